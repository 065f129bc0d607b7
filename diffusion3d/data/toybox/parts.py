"""The vocabulary of toybox: colours, a mesh builder made of primitive solids, and what a subject declares."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import trimesh
from numpy.typing import NDArray
from trimesh.transformations import euler_matrix

from diffusion3d.data.toybox import solids

COLOURS: dict[str, tuple[float, float, float]] = {
    "red": (0.80, 0.10, 0.09),
    "orange": (0.95, 0.50, 0.08),
    "yellow": (0.95, 0.83, 0.15),
    "green": (0.14, 0.58, 0.20),
    "cyan": (0.15, 0.75, 0.80),
    "blue": (0.11, 0.28, 0.80),
    "purple": (0.48, 0.18, 0.66),
    "pink": (0.96, 0.55, 0.72),
    "brown": (0.43, 0.26, 0.13),
    "tan": (0.83, 0.57, 0.29),
    "white": (0.95, 0.95, 0.95),
    "grey": (0.52, 0.52, 0.54),
    "black": (0.09, 0.09, 0.10),
}
"""sRGB of every colour a caption may name."""


class Builder:
    """Collects primitive solids into one triangle soup with a colour, a part label and shading normals per face.

    World axes: x forward (the front of the object faces +x), y left, z up. Lengths are arbitrary: the finished object
    is centred and scaled into a sphere. `rotate` is (roll about x, pitch about y, yaw about z) in degrees, applied
    about the primitive's own centre before it is placed at `at`.
    """

    def __init__(self) -> None:
        self.vertices: list[NDArray[np.float64]] = []
        self.faces: list[NDArray[np.int64]] = []
        self.normals: list[NDArray[np.float64]] = []
        self.colours: list[NDArray[np.float64]] = []
        self.labels: list[NDArray[np.int64]] = []
        self.names: list[str] = []
        self._count = 0

    def add(self, mesh: trimesh.Trimesh, colour, part, at=(0, 0, 0), rotate=(0, 0, 0)) -> None:
        """Add a flatly shaded mesh given around its own centre. `part` is the label's name, e.g. "roof"."""
        self._add(solids.flat(mesh.vertices, mesh.faces), colour, part, at, rotate)

    def _add(self, solid: solids.Solid, colour, part, at, rotate) -> None:
        vertices, faces, normals = solid
        if any(rotate):
            matrix = euler_matrix(*np.deg2rad(rotate))[:3, :3].T
            vertices, normals = vertices @ matrix, normals @ matrix
        if part not in self.names:
            self.names.append(part)
        self.vertices.append(vertices + np.asarray(at, float))
        self.faces.append(faces + self._count)
        self.normals.append(normals)
        self.colours.append(np.broadcast_to(np.clip(colour, 0, 1), (len(faces), 3)))
        self.labels.append(np.full(len(faces), self.names.index(part) + 1))
        self._count += len(vertices)

    def box(self, size, colour, part, at, rotate=(0, 0, 0)):
        """A box with edge lengths `size` centred at `at`."""
        vertices, faces, normals = solids.unit_box()
        self._add((vertices * np.asarray(size, float), faces, normals), colour, part, at, rotate)

    def cylinder(self, radius, height, colour, part, at, rotate=(0, 0, 0), sections=20):
        """A cylinder along z centred at `at`."""
        self.cone(radius, height, colour, part, at, rotate, sections, top=radius)

    def cone(self, radius, height, colour, part, at, rotate=(0, 0, 0), sections=20, top=0.0):
        """A cone (or a frustum with radius `top`) along z; `at` is the centre of its axis. sections=4 makes a pyramid
        whose sides face the axes; its `radius` reaches the corners."""
        profile = [(0, -height / 2), (radius, -height / 2), (top, height / 2), (0, height / 2)]
        self.lathe(profile, colour, part, at, rotate, sections)

    def lathe(self, profile, colour, part, at, rotate=(0, 0, 0), sections=24):
        """A solid of revolution about z. `profile` is a list of (radius, z) from the bottom to the top that starts and
        ends at radius 0; bends of less than 40 degrees are shaded smoothly."""
        self._add(solids.lathe(profile, sections), colour, part, at, rotate)

    def loft(self, rings, colour, part, at=(0, 0, 0), rotate=(0, 0, 0), smooth=False):
        """A closed skin over rings [S, N, 3] of convex outlines with equally many points, capped at both ends."""
        self._add(solids.loft(rings, smooth), colour, part, at, rotate)

    def ellipsoid(self, radii, colour, part, at, rotate=(0, 0, 0), subdivisions=3):
        """An ellipsoid with semi-axes `radii` centred at `at`."""
        self._add(solids.ellipsoid(radii, subdivisions), colour, part, at, rotate)

    def torus(self, radius, tube, colour, part, at, rotate=(0, 0, 0)):
        """A ring in the xy plane with the given centre-line radius and tube radius."""
        self._add(solids.torus(radius, tube), colour, part, at, rotate)

    def prism(self, outline, height, colour, part, at, rotate=(0, 0, 0)):
        """A convex (x, y) outline, counter-clockwise, extruded along z and centred in z at `at`. rotate=(90, 0, 0)
        makes the outline a side view (x, z)."""
        outline = np.asarray(outline, float)
        rings = [np.c_[outline, np.full(len(outline), z)] for z in (-height / 2, height / 2)]
        self._add(solids.loft(rings, smooth=False), colour, part, at, rotate)


@dataclass(frozen=True)
class Subject:
    """A kind of object: what it is called, which of its parts take which colours, and how it is built.

    Attributes:
        name: the noun phrase without article, e.g. "castle on a hill"; unique.
        parts: coloured part -> the colour names it may take; a repeated name is likelier. The first part is the main
            one. A part may have a single colour (a snowman's body is white).
        main: phrase naming the main colour only, e.g. "{walls} castle on a hill".
        full: phrase naming every part with more than one colour, e.g. "{walls} castle with {roofs} roofs".
        words: other names of the subject that training captions use, without article.
        evaluation: names that never occur in any training caption; synonyms kept for evaluation.
        asymmetric: front and back look clearly different.
        build: adds the solids. Receives the builder, part -> sRGB colour, and the random generator that draws sizes and
            optional features.
        weight: relative frequency in the data set.
    """

    name: str
    parts: Mapping[str, tuple[str, ...]]
    main: str
    full: str
    words: tuple[str, ...]
    evaluation: tuple[str, ...]
    asymmetric: bool
    build: Callable[[Builder, Mapping[str, NDArray[np.float64]], np.random.Generator], None]
    weight: float = 1.0
