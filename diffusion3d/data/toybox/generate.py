"""Draw objects: deterministic in (seed, index, split, subject)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from diffusion3d.data.raycast import Mesh
from diffusion3d.data.toybox import captions, heldout
from diffusion3d.data.toybox.parts import COLOURS, Builder, Subject
from diffusion3d.data.toybox.subjects import SUBJECTS, subject_named

SPLITS = ("train", "validation", "test", "heldout")
RADIUS = 0.95
"""Every object is centred and scaled so that its bounding sphere has this radius."""


@dataclass(frozen=True)
class ToyObject:
    """One object: what it is, the colours of its parts, and the entropy from which its mesh is built when asked for."""

    subject: str
    colours: Mapping[str, str]
    entropy: tuple[int, ...]

    @property
    def phrases(self) -> dict[str, tuple[str, ...]]:
        """Kind of caption -> all phrases of that kind that training may use, without article."""
        return captions.phrases(subject_named(self.subject), self.colours)

    def caption(self, rng: np.random.Generator) -> str:
        """A random training caption."""
        return captions.compose(self.phrases, rng)

    @cached_property
    def mesh(self) -> Mesh:
        rng = np.random.default_rng(np.random.SeedSequence(self.entropy, spawn_key=(1,)))
        colour = {part: shade(name, rng) for part, name in self.colours.items()}
        builder = Builder()
        subject_named(self.subject).build(builder, colour, rng)
        return finish(builder)


def shade(name: str, rng: np.random.Generator) -> NDArray[np.float64]:
    """The named colour, a little brighter or darker and with a slightly different hue."""
    return np.clip(np.array(COLOURS[name]) * (1 + 0.05 * rng.uniform(-1, 1)) + 0.015 * rng.uniform(-1, 1, 3), 0, 1)


def finish(builder: Builder) -> Mesh:
    """Centre and scale what was built into the sphere of RADIUS about the origin."""
    vertices = np.concatenate(builder.vertices)
    vertices = vertices - (vertices.min(0) + vertices.max(0)) / 2
    vertices *= RADIUS / np.linalg.norm(vertices, axis=1).max()
    return Mesh(
        vertices.astype(np.float32),
        np.concatenate(builder.faces).astype(np.int32),
        np.concatenate(builder.colours).astype(np.float32),
        np.concatenate(builder.labels).astype(np.int32),
        np.concatenate(builder.normals).astype(np.float32),
        tuple(builder.names),
    )


def draw(
    seed: int,
    index: int,
    split: str = "train",
    subject: str | None = None,
    colours: Mapping[str, str] | None = None,
) -> ToyObject:
    """The object number `index` of a split.

    Train and validation never show a held-out (subject, part, colour); test shows everything; every object of "heldout"
    shows at least one of them.

    Args:
        seed, index: non-negative, below 2**32.
        split: one of SPLITS; splits draw from different random streams.
        subject: its name, or None for a random one by weight.
        colours: part -> colour name for some parts; any colour name, also a held-out one, is taken as it is.

    Raises:
        ValueError: unknown split, subject, part or colour.
    """
    if split not in SPLITS:
        raise ValueError(f"toybox: split={split!r} is not one of {', '.join(SPLITS)}")
    place = 0 if subject is None else 1 + SUBJECTS.index(subject_named(subject))
    entropy = (seed, index, SPLITS.index(split), place)
    rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(0,)))
    if subject is not None:
        chosen = subject_named(subject)
    else:
        names = heldout.subjects() if split == "heldout" else None
        chosen = pick_subject(rng, names)
    fixed = dict(colours or {})
    for part, name in fixed.items():
        if part not in chosen.parts or name not in COLOURS:
            raise ValueError(
                f"toybox: {part}={name} is unknown for a {chosen.name}; "
                f"parts: {', '.join(chosen.parts)}; colours: {', '.join(COLOURS)}"
            )
    if split == "heldout":
        triples = heldout.of_subject(chosen.name)
        if not triples:
            raise ValueError(f"toybox: no combination of {chosen.name} is held out")
        part, name = triples[int(rng.integers(len(triples)))]
        fixed.setdefault(part, name)
    return ToyObject(chosen.name, pick_colours(rng, chosen, fixed, split in ("train", "validation")), entropy)


def pick_subject(rng: np.random.Generator, names: frozenset[str] | None) -> Subject:
    """A random subject by weight, among `names` if given."""
    pool = [s for s in SUBJECTS if names is None or s.name in names]
    limits = np.cumsum([s.weight for s in pool])
    return pool[int(np.searchsorted(limits, rng.random() * limits[-1], side="right"))]


def pick_colours(
    rng: np.random.Generator, subject: Subject, fixed: Mapping[str, str], without_heldout: bool
) -> dict[str, str]:
    """A colour for every part, different ones where there is a choice."""
    colours = dict(fixed)
    for part, options in subject.parts.items():
        if part in fixed:
            continue
        if without_heldout:
            options = heldout.allowed(subject.name, part, options)
        fresh = [name for name in options if name not in colours.values()] or options
        colours[part] = fresh[int(rng.integers(len(fresh)))]
    return {part: colours[part] for part in subject.parts}
