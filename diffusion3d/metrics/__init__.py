"""Measures of pictures and of 3D scenes: pure functions of tensors."""
