"""Fit data drawn on the spot: meshes seen by cameras on a sphere."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.data.base import InMemory, Splits
from diffusion3d.data.raycast import Mesh, render
from diffusion3d.errors import UserError

RADIUS = 0.95
"""Of the bounding sphere of every object."""


@dataclass(frozen=True)
class Rig:
    """How objects are looked at; the cameras of all objects are the same.

    Attributes:
        train_views, test_views: how many; no test view is a training view.
        size: side of the square images, pixels.
        layout: "fibonacci" (evenly on the sphere) or "random".
        elevation: lowest and highest, degrees.
        distance: from the origin, world units.
        fov: degrees.
        samples: samples x samples rays a pixel.
        geometry: whether to give depth and normals, which take four times the memory of the pictures.
        seed: of the cameras: where the spiral starts, or all angles.

    Raises:
        UserError: a number makes no sense.
    """

    train_views: int = 100
    test_views: int = 50
    size: int = 128
    layout: str = "fibonacci"
    elevation: Sequence[float] = (-30.0, 75.0)
    distance: float = 3.0
    fov: float = 40.0
    samples: int = 4
    geometry: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        if len(self.elevation) != 2 or not -90 < self.elevation[0] <= self.elevation[1] < 90:
            raise UserError(f"data.elevation={list(self.elevation)} must be [low, high] with -90 < low <= high < 90")
        for name, least in (("train_views", 1), ("test_views", 1), ("size", 1), ("samples", 1), ("seed", 0)):
            if getattr(self, name) < least:
                raise UserError(f"data.{name}={getattr(self, name)} must be at least {least}")
        if not 0 < self.fov < 180 or self.distance * math.sin(math.radians(self.fov / 2)) < RADIUS:
            raise UserError(
                f"data.distance={self.distance} and data.fov={self.fov} do not show the whole object; its radius is {RADIUS}"
            )
        if self.layout not in ("fibonacci", "random"):
            raise UserError(f"data.layout={self.layout} is not one of fibonacci, random")

    def cameras(self, test: bool) -> Cameras:
        """The training or test cameras, of one scene."""
        count = self.test_views if test else self.train_views
        rng = np.random.default_rng((self.seed, int(test)))
        golden = 180 * (3 - math.sqrt(5))
        if self.layout == "fibonacci":
            share, azimuth = (np.arange(count) + 0.5) / count, rng.uniform(0, 360) + golden * np.arange(count)
        else:
            share, azimuth = rng.uniform(size=count), rng.uniform(0, 360, count)
        low, high = np.sin(np.deg2rad(self.elevation))
        elevation = np.rad2deg(np.arcsin(low + (high - low) * share))
        angles = torch.from_numpy(np.stack([azimuth % 360, elevation]))[:, None]
        return orbit(angles[0], angles[1], self.distance, self.fov, self.size, self.size)


def rendered(meshes: Iterable[Mesh], captions: Sequence[Sequence[str]], rig: Rig) -> Splits:
    """All meshes from the training and the test cameras of a rig.

    Args:
        meshes: in [-1, 1]^3, drawn one after the other.
        captions: of every mesh.
    """
    parts: dict[bool, list[dict[str, torch.Tensor]]] = {False: [], True: []}
    for mesh in meshes:
        for test, scenes in parts.items():
            views = render(mesh, rig.cameras(test), samples=rig.samples)
            assert views.images is not None and views.alpha is not None
            scene = {"pixels": (torch.cat([views.images, views.alpha], 2) * 255).round().byte()}
            if rig.geometry:
                assert views.depth is not None and views.normals is not None
                scene |= {"depth": views.depth, "normals": views.normals}
            scenes.append(scene)
    data = {}
    for test, scenes in parts.items():
        fields = {name: torch.cat([scene[name] for scene in scenes]) for name in scenes[0]}
        data[test] = InMemory(rig.cameras(test).expand(len(scenes)), fields.pop("pixels"), captions, fields)
    return Splits(train=data[False], test=data[True])
