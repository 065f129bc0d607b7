"""Colour combinations that training never sees, committed in heldout.json before any training."""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np

from diffusion3d.data.toybox.parts import Subject

PATH = Path(__file__).with_name("heldout.json")

KEPT = {
    ("castle", "walls", "grey"),
    ("castle", "roofs", "red"),
    ("race car", "body", "red"),
    ("house", "walls", "white"),
    ("house", "roof", "red"),
    ("windmill", "tower", "white"),
    ("lighthouse", "stripes", "red"),
    ("tree", "leaves", "green"),
    ("table", "top", "brown"),
    ("chair", "frame", "brown"),
    ("car", "body", "red"),
    ("bus", "body", "yellow"),
    ("airplane", "body", "white"),
    ("rocket", "body", "white"),
    ("rocket", "fins", "red"),
    ("cactus", "body", "green"),
    ("boat", "hull", "red"),
    ("cat", "fur", "orange"),
    ("horse", "coat", "brown"),
    ("elephant", "body", "grey"),
    ("rabbit", "fur", "white"),
    ("duck", "body", "yellow"),
    ("turtle", "shell", "green"),
    ("penguin", "body", "black"),
    ("robot", "body", "grey"),
    ("mushroom", "cap", "red"),
    ("lamp", "shade", "yellow"),
    ("cake", "sponge", "pink"),
    ("mug", "body", "white"),
    ("train", "body", "black"),
    ("truck", "cab", "red"),
    ("helicopter", "body", "red"),
    ("snowman", "hat", "black"),
}
"""Combinations that stay in training because everybody asks for them."""

LIKE = {"castle on a hill": "castle"}
"""Subjects whose parts hold out the same colours as those of another one."""


def choose(subjects: Iterable[Subject]) -> list[tuple[str, str, str]]:
    """The combinations to hold out: one colour of every main part and of most others, two of seven or more.

    The choice for a part depends on its own names only, so that a new subject does not change that of the others. Parts
    with fewer than four colours stay whole, so a hill is never held out.
    """
    chosen = []
    for subject in subjects:
        for place, (part, colours) in enumerate(subject.parts.items()):
            alike = LIKE.get(subject.name, subject.name)
            options = sorted(set(colours))
            pool = [colour for colour in options if (alike, part, colour) not in KEPT]
            if len(options) < 4:
                continue
            rng = np.random.default_rng(zlib.crc32(f"{alike}/{part}".encode()))
            if place > 0 and rng.random() < 0.3:
                continue
            count = 2 if len(options) >= 7 else 1
            chosen += [(subject.name, part, str(c)) for c in sorted(rng.choice(pool, count, replace=False))]
    return chosen


def share(subjects: Iterable[Subject]) -> float:
    """The share of held-out combinations among those of parts with a choice."""
    choices = [len(set(colours)) for subject in subjects for colours in subject.parts.values()]
    return len(triples()) / sum(n for n in choices if n > 1)


@cache
def triples() -> frozenset[tuple[str, str, str]]:
    """All held-out (subject, part, colour)."""
    return frozenset((s, p, c) for s, p, c in json.loads(PATH.read_text()))


@cache
def subjects() -> frozenset[str]:
    """Subjects with at least one held-out combination."""
    return frozenset(subject for subject, _, _ in triples())


@cache
def of_subject(subject: str) -> tuple[tuple[str, str], ...]:
    """The held-out (part, colour) of a subject, sorted."""
    return tuple(sorted((part, colour) for s, part, colour in triples() if s == subject))


@cache
def allowed(subject: str, part: str, options: tuple[str, ...]) -> tuple[str, ...]:
    """The colours that training may use for a part."""
    return tuple(colour for colour in options if (subject, part, colour) not in triples())


if __name__ == "__main__":
    from diffusion3d.data.toybox.subjects import SUBJECTS

    PATH.write_text("[\n" + ",\n".join(f"  {json.dumps(t)}" for t in choose(SUBJECTS)) + "\n]\n")
