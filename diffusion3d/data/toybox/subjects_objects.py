"""Animals, figures and things."""

from __future__ import annotations

from diffusion3d.data.toybox import subjects_animals, subjects_figures, subjects_things
from diffusion3d.data.toybox.parts import Subject

SUBJECTS: tuple[Subject, ...] = subjects_animals.SUBJECTS + subjects_figures.SUBJECTS + subjects_things.SUBJECTS
