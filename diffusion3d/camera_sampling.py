"""Which cameras a run looks through: random ones while it optimises, a turntable at the end."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.errors import UserError


class Orbit:
    """Cameras around the object at one distance.

    Args:
        size: side of the square views, pixels.
        views: views a step, evenly spaced in azimuth.
        azimuth: of the first one, degrees; None is random.
        elevation: lowest and highest elevation, degrees; every view draws its own.
        distance: from the object's centre, world units.
        fov: vertical field of view, degrees.
        turntable_elevation: elevation of the turntable, degrees.
        turntable_frames: its number of frames.
    """

    def __init__(
        self,
        size: int,
        views: int = 4,
        azimuth: float | None = None,
        elevation: Sequence[float] = (0.0, 40.0),
        distance: float = 3.0,
        fov: float = 40.0,
        turntable_elevation: float = 15.0,
        turntable_frames: int = 60,
    ) -> None:
        low, high = elevation
        if not -90 < low <= high < 90:
            raise UserError(f"camera.elevation={list(elevation)} must be [low, high] with -90 < low <= high < 90")
        if distance <= 0 or not 0 < fov < 180 or size < 1 or views < 1:
            raise UserError(
                f"camera: distance={distance}, fov={fov}, size={size}, views={views} must be positive, fov below 180"
            )
        self.size, self.views, self.distance, self.fov = size, views, distance, fov
        self.azimuth, self.low, self.high = azimuth, low, high
        self.turntable_elevation, self.turntable_frames = turntable_elevation, turntable_frames

    def sample(self, scenes: int = 1, views: int | None = None) -> Cameras:
        """Training cameras, drawn from torch's global generator; other than a step's number of views where one is given."""
        views = self.views if views is None else views
        first = 360 * torch.rand(scenes, 1) if self.azimuth is None else torch.full((scenes, 1), self.azimuth)
        azimuth = first + 360 * torch.arange(views) / views
        elevation = self.low + (self.high - self.low) * torch.rand(scenes, views)
        return orbit(azimuth, elevation, self.distance, self.fov, self.size, self.size)

    def turntable(
        self,
        frames: int | None = None,
        size: int | None = None,
        elevation: tuple[float, float] | None = None,
        turns: float = 1.0,
    ) -> Cameras:
        """A camera path that starts at the front: `turns` turns while the elevation goes from one value to another.

        Raises:
            UserError: an elevation outside (-90, 90), no frames or pixels.
        """
        frames = self.turntable_frames if frames is None else frames
        size = self.size if size is None else size
        start, end = elevation or (self.turntable_elevation, self.turntable_elevation)
        if frames < 1 or size < 1 or not all(-90 < value < 90 for value in (start, end)):
            raise UserError(
                f"turntable: frames={frames} and size={size} must be positive, elevations {start}, {end} in (-90, 90)"
            )
        share = torch.arange(frames).float()[None] / frames
        return orbit(360 * turns * share, start + (end - start) * share, self.distance, self.fov, size, size)
