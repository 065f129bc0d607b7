"""Pinhole cameras.

OpenCV axes (x right, y down, z forward), world z up. Objects live in [-1, 1]^3 with their front along +x. Azimuth 0 sees the
front and grows counter-clockwise seen from above; elevation grows upwards. Angles are degrees at this interface. Pixel (row i,
column j) has its centre at (j + 0.5, i + 0.5).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class Cameras:
    """V pinhole cameras for each of B scenes.

    Attributes:
        c2w: camera-to-world transforms, OpenCV axes.
        K: intrinsics in pixels.
        height, width: image size in pixels, shared by all views.
        near, far: depth range in world units along the camera's z axis.
    """

    c2w: Float[Tensor, "B V 4 4"]
    K: Float[Tensor, "B V 3 3"]
    height: int
    width: int
    near: float = 0.1
    far: float = 100.0

    @property
    def shape(self) -> tuple[int, int]:
        """(B, V)."""
        return self.c2w.shape[0], self.c2w.shape[1]

    @property
    def viewmats(self) -> Float[Tensor, "B V 4 4"]:
        """World-to-camera transforms."""
        rotation = self.c2w[..., :3, :3].mT
        translation = -(rotation @ self.c2w[..., :3, 3:])
        top = torch.cat([rotation, translation], -1)
        return torch.cat([top, self.c2w[..., 3:, :]], -2)

    @property
    def origins(self) -> Float[Tensor, "B V 3"]:
        """Camera centres in the world."""
        return self.c2w[..., :3, 3]

    @property
    def azimuth(self) -> Float[Tensor, "B V"]:
        """Azimuth of the camera centre seen from the world origin, degrees in (-180, 180]."""
        return torch.rad2deg(torch.atan2(self.origins[..., 1], self.origins[..., 0]))

    @property
    def elevation(self) -> Float[Tensor, "B V"]:
        """Elevation of the camera centre seen from the world origin, degrees."""
        return torch.rad2deg(torch.atan2(self.origins[..., 2], self.origins[..., :2].norm(dim=-1)))

    def rays(self) -> tuple[Float[Tensor, "B V H W 3"], Float[Tensor, "B V H W 3"]]:
        """Origins and directions of the rays through all pixel centres.

        Directions have unit camera-z (not unit length), so the ray parameter t is the depth.
        """
        j = torch.arange(self.width, device=self.K.device, dtype=self.K.dtype) + 0.5
        i = torch.arange(self.height, device=self.K.device, dtype=self.K.dtype) + 0.5
        y, x = torch.meshgrid(i, j, indexing="ij")
        pixels = torch.stack([x, y, torch.ones_like(x)], -1)
        local = torch.einsum("bvij,hwj->bvhwi", torch.linalg.inv(self.K), pixels)
        rays_d = torch.einsum("bvij,bvhwj->bvhwi", self.c2w[..., :3, :3], local)
        return self.origins[:, :, None, None].expand_as(rays_d), rays_d

    def project(self, points: Float[Tensor, "B N 3"]) -> tuple[Float[Tensor, "B V N 2"], Float[Tensor, "B V N"]]:
        """Project world points: pixel coordinates (x, y) and camera-z depth (negative behind the camera)."""
        local = torch.einsum("bvij,bnj->bvni", self.viewmats[..., :3, :3], points) + self.viewmats[:, :, None, :3, 3]
        image = torch.einsum("bvij,bvnj->bvni", self.K, local)
        return image[..., :2] / image[..., 2:], local[..., 2]

    def resize(self, height: int, width: int) -> Cameras:
        """The same cameras with another number of pixels."""
        scale = self.K.new_tensor([[width / self.width], [height / self.height], [1.0]])
        return dataclasses.replace(self, K=self.K * scale, height=height, width=width)

    def select(self, scenes: slice | Tensor = slice(None), views: slice | Tensor = slice(None)) -> Cameras:
        """A subset of scenes and views; indices are slices or integer tensors."""
        return dataclasses.replace(self, c2w=self.c2w[scenes][:, views], K=self.K[scenes][:, views])

    def expand(self, scenes: int) -> Cameras:
        """The cameras of one scene repeated for several."""
        return dataclasses.replace(self, c2w=self.c2w.expand(scenes, -1, -1, -1), K=self.K.expand(scenes, -1, -1, -1))

    def to(self, device: torch.device | str) -> Cameras:
        return dataclasses.replace(self, c2w=self.c2w.to(device), K=self.K.to(device))


def look_at(
    eye: Float[Tensor, "*S 3"], target: Float[Tensor, "*S 3"], up: Float[Tensor, "3"] | None = None
) -> Float[Tensor, "*S 4 4"]:
    """Camera-to-world transforms of cameras at `eye` that look at `target`, world z up unless told."""
    up = eye.new_tensor([0.0, 0.0, 1.0]) if up is None else up
    forward = torch.nn.functional.normalize(target - eye, dim=-1)
    right = torch.linalg.cross(forward, up.expand_as(forward))
    if (right.norm(dim=-1) < 1e-6).any():
        raise ValueError("look_at: a camera looks exactly along the up direction; move it by a fraction of a degree")
    right = torch.nn.functional.normalize(right, dim=-1)
    down = torch.linalg.cross(forward, right)
    c2w = torch.zeros(*eye.shape[:-1], 4, 4, dtype=eye.dtype, device=eye.device)
    c2w[..., :3, 0], c2w[..., :3, 1], c2w[..., :3, 2], c2w[..., :3, 3] = right, down, forward, eye
    c2w[..., 3, 3] = 1.0
    return c2w


def orbit(
    azimuth: Float[Tensor, "B V"],
    elevation: Float[Tensor, "B V"],
    distance: Float[Tensor, "B V"] | float,
    fov: Float[Tensor, "B V"] | float,
    height: int,
    width: int,
) -> Cameras:
    """Cameras on a sphere around the world origin, looking at it.

    Args:
        azimuth, elevation: degrees; elevation strictly inside (-90, 90).
        distance: from the origin, world units.
        fov: vertical field of view, degrees.
        height, width: pixels.

    Raises:
        ValueError: a camera exactly above or below the origin.
    """
    azimuth, elevation = azimuth.float(), elevation.float()
    distance = torch.as_tensor(distance, dtype=azimuth.dtype, device=azimuth.device).expand_as(azimuth)
    fov = torch.as_tensor(fov, dtype=azimuth.dtype, device=azimuth.device).expand_as(azimuth)
    a, e = torch.deg2rad(azimuth), torch.deg2rad(elevation)
    eye = distance[..., None] * torch.stack([e.cos() * a.cos(), e.cos() * a.sin(), e.sin()], -1)
    c2w = look_at(eye, torch.zeros_like(eye))
    focal = 0.5 * height / torch.tan(0.5 * torch.deg2rad(fov))
    K = torch.zeros(*azimuth.shape, 3, 3, dtype=azimuth.dtype, device=azimuth.device)
    K[..., 0, 0] = K[..., 1, 1] = focal
    K[..., 0, 2], K[..., 1, 2], K[..., 2, 2] = width / 2, height / 2, 1.0
    reach = math.sqrt(3.0)
    nearest, farthest = float(distance.min()), float(distance.max())
    return Cameras(c2w, K, height, width, near=max(0.05, nearest - reach), far=farthest + reach)
