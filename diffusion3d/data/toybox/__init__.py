"""Toybox: an endless procedural data set of simple coloured objects with captions. Import its modules by name."""
