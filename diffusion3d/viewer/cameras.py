"""Cameras of browsers as ours: viser has the same OpenCV axes (x right, y down, z forward) and, as set here, world z up."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from diffusion3d.cameras import Cameras
from diffusion3d.rendering.reference import rotations

if TYPE_CHECKING:
    from viser import CameraHandle

REACH = math.sqrt(3.0)
"""Objects lie no farther than this from the world's origin."""


@dataclass(frozen=True)
class View:
    """What one browser looks through.

    Attributes:
        wxyz: quaternion of the camera-to-world rotation.
        position: world units.
        fov: vertical field of view, radians.
        aspect: width / height of the page's picture.
    """

    wxyz: tuple[float, ...]
    position: tuple[float, ...]
    fov: float
    aspect: float

    @classmethod
    def of(cls, camera: CameraHandle) -> View | None:
        """None while the page has no area to draw in."""
        if not (camera.image_width and camera.image_height):
            return None
        return cls(tuple(map(float, camera.wxyz)), tuple(map(float, camera.position)), camera.fov, camera.aspect)

    def cameras(self, height: int) -> Cameras:
        """The one camera [1, 1] whose pictures have so many rows."""
        width = max(1, round(height * self.aspect))
        focal = 0.5 * height / math.tan(0.5 * self.fov)
        c2w = torch.eye(4)
        c2w[:3, :3], c2w[:3, 3] = rotations(torch.tensor(self.wxyz)), torch.tensor(self.position)
        K = torch.tensor([[focal, 0.0, width / 2], [0.0, focal, height / 2], [0.0, 0.0, 1.0]])
        distance = math.hypot(*self.position)
        return Cameras(c2w[None, None], K[None, None], height, width, max(0.05, distance - REACH), distance + REACH)
