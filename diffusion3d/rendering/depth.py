"""Surfaces from depth maps."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.rendering.render import Render


def depth_points(depth: Float[Tensor, "B V 1 H W"], cameras: Cameras) -> Float[Tensor, "B V 3 H W"]:
    """The world points that pixels with this camera-z show."""
    rays_o, rays_d = cameras.rays()
    return (rays_o + depth.movedim(2, -1) * rays_d).movedim(-1, 2)


def depth_normals(depth: Float[Tensor, "B V 1 H W"], cameras: Cameras) -> Float[Tensor, "B V 3 H W"]:
    """Unit world normals, towards the camera, from differences of depth; meaningless where there is none (depth 0).

    Of the two neighbours along each axis of the image the one nearer in depth counts, so that a normal belongs to its own side
    of an edge.
    """
    points = depth_points(depth, cameras)

    def slope(axis: int) -> Float[Tensor, "B V 3 H W"]:
        size = points.shape[axis]
        if size == 1:
            return torch.zeros_like(points)
        step = points.diff(dim=axis)
        first, last = step.narrow(axis, 0, 1), step.narrow(axis, size - 2, 1)
        behind, ahead = torch.cat([first, step], axis), torch.cat([step, last], axis)
        jump = depth.diff(dim=axis).abs()
        wall = torch.full_like(jump.narrow(axis, 0, 1), torch.inf)
        return torch.where(torch.cat([jump, wall], axis) <= torch.cat([wall, jump], axis), ahead, behind)

    return F.normalize(torch.linalg.cross(slope(-2), slope(-1), dim=2), dim=2)


def seen_normals(render: Render, cameras: Cameras) -> Float[Tensor, "B V 3 H W"]:
    """The normals that the scene gave, or else those of its depth."""
    return depth_normals(render.depth, cameras) if render.normals is None else render.normals
