"""All subjects of toybox."""

from __future__ import annotations

from diffusion3d.data.toybox.parts import Subject
from diffusion3d.data.toybox.subjects_buildings import BUILDINGS, FIXTURES
from diffusion3d.data.toybox.subjects_craft import CRAFT
from diffusion3d.data.toybox.subjects_objects import SUBJECTS as OBJECTS
from diffusion3d.data.toybox.subjects_vehicles import VEHICLES

SUBJECTS: tuple[Subject, ...] = BUILDINGS + VEHICLES + CRAFT + FIXTURES + OBJECTS
ASYMMETRIC: tuple[str, ...] = tuple(subject.name for subject in SUBJECTS if subject.asymmetric)
"""Subjects whose front and back look clearly different."""

_BY_NAME = {subject.name: subject for subject in SUBJECTS}


def subject_named(name: str) -> Subject:
    """The subject with this name.

    Raises:
        ValueError: there is none.
    """
    if name not in _BY_NAME:
        raise ValueError(f"toybox: no subject {name!r}; there are {', '.join(_BY_NAME)}")
    return _BY_NAME[name]
