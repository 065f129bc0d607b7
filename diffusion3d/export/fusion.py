"""From depth maps to a closed surface: a truncated signed distance field and its zero level."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from scipy import ndimage
from skimage.measure import marching_cubes
from torch import Tensor
from trimesh import Trimesh

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering.depth import depth_points, seen_normals
from diffusion3d.rendering.render import Render

SOLID = 0.5
"""A pixel of less alpha shows free space."""
SLAB = 2**19
"""Voxels that are worked on at once."""

NEVER_ZERO = 1e-3
"""A voxel exactly on the surface would pinch it."""


@dataclass(frozen=True)
class Grid:
    """A truncated signed distance field of cubic voxels, in [-1, 1], negative inside.

    Attributes:
        values: at the points `origin + side * (i, j, k)`; beyond them is free space.
        origin, side: world units.
    """

    values: Float32[np.ndarray, "X Y Z"]
    origin: Float[np.ndarray, "3"]
    side: float


def fuse(render: Render, cameras: Cameras, resolution: int = 160, truncation: float = 4.0, bound: float = 1.1) -> Grid:
    """The signed distance field of scene 0 as its depth maps tell (Curless and Levoy 1996).

    Every view votes on the voxels before its surface and, with a weight that falls to 0, on those up to `truncation` behind
    it; surfaces seen aslant count less. What no view sees is inside, so the surface is closed.

    Args:
        render: views from around the object.
        resolution: voxels along the longest side of the object.
        truncation: reach of the field to both sides of the surface, voxels.
        bound: the object lies in [-bound, bound]³.

    Raises:
        UserError: no view shows anything solid.
    """
    solid = render.alpha[0, :, 0] >= SOLID
    points = depth_points(render.depth, cameras)[0].movedim(1, -1)[solid]
    points = points[(points.abs() <= bound).all(-1)]
    if len(points) == 0:
        raise UserError(f"there is no surface to make a mesh of: no view shows anything with an alpha above {SOLID}")
    low, high = points.amin(0).cpu().double(), points.amax(0).cpu().double()
    side = float((high - low).max().clamp(min=1e-3)) / resolution
    margin = truncation + 2
    origin = low - margin * side
    shape = [int(n) for n in ((high - low) / side + 2 * margin).ceil() + 1]
    near = F.max_pool2d(solid[:, None].float(), 3, 1, 1)[:, 0] > 0
    weights = torch.where(solid, _frontality(render, cameras).clamp(min=0.05), (~near).float()).flatten(1)
    depths = torch.where(solid, render.depth[0, :, 0], torch.inf).flatten(1)
    axes = [origin[i] + side * torch.arange(n, dtype=torch.float64) for i, n in enumerate(shape)]
    matrices = (cameras.K @ cameras.viewmats[..., :3, :])[0].cpu().double()
    values = np.ones(shape, np.float32)
    thick = max(1, SLAB // (shape[1] * shape[2]))
    for start in range(0, shape[0], thick):
        slab = [axes[0][start : start + thick], *axes[1:]]
        votes = _votes(slab, matrices, depths, weights, cameras, truncation * side)
        values[start : start + thick] = votes.cpu().numpy()
    return Grid(values, origin.numpy(), side)


def fronts(render: Render) -> Render:
    """Views whose depth is where matter begins: one standard deviation before the mean, where the variance is known.

    In a mist that absorbs sigma per unit both are 1 / sigma, so that nothing is left between its edge and the depth.
    """
    if render.depth_variance is None:
        return render
    return dataclasses.replace(render, depth=(render.depth - render.depth_variance.sqrt()).clamp(min=0))


def _frontality(render: Render, cameras: Cameras) -> Float[Tensor, "V H W"]:
    """The cosine at which each pixel of scene 0 sees its surface; view by view, to stay small."""
    parts = []
    for v in range(cameras.shape[1]):
        one = slice(v, v + 1)
        normals = None if render.normals is None else render.normals[:1, one]
        view, camera = (
            Render(render.rgb[:1, one], render.alpha[:1, one], render.depth[:1, one], normals),
            cameras.select(views=one),
        )
        rays = F.normalize(camera.rays()[1][0, 0], dim=-1).movedim(-1, 0)
        parts.append(-(seen_normals(view, camera)[0, 0] * rays).sum(0))
    return torch.stack(parts)


def _votes(
    axes: list[Float[Tensor, " _"]],
    matrices: Float[Tensor, "V 3 4"],
    depths: Float[Tensor, "V P"],
    weights: Float[Tensor, "V P"],
    cameras: Cameras,
    reach: float,
) -> Float[Tensor, "X Y Z"]:
    """The weighted mean over all views at the voxels of one slab."""
    device = depths.device
    total: Tensor | float = 0.0
    weight: Tensor | float = 0.0
    for matrix, depth, worth in zip(matrices, depths, weights, strict=True):
        parts = [(matrix[:, i, None] * axes[i]).float().to(device) for i in range(3)]
        parts[2] = parts[2] + matrix[:, 3:].float().to(device)
        x, y, z = (parts[0][i][:, None, None] + parts[1][i][:, None] + parts[2][i] for i in range(3))
        column, row = (x / z).floor(), (y / z).floor()
        inside = (column >= 0) & (column < cameras.width) & (row >= 0) & (row < cameras.height) & (z > cameras.near)
        pixel = torch.where(inside, row * cameras.width + column, 0.0).long()
        distance = ((depth[pixel] - z) / reach).clamp(max=1.0)
        vote = torch.where(inside, worth[pixel] * (1 + distance).clamp(0, 1), 0.0)
        total = total + vote * distance.clamp(min=-1.0)
        weight = weight + vote
    assert isinstance(weight, Tensor) and isinstance(total, Tensor)
    return torch.where(weight > 0, total / weight.clamp(min=1e-9), -1.0)


def surface(grid: Grid, parts: float = 0.01, smooth: float = 0.5) -> Trimesh:
    """The zero level of the field as a closed mesh, faces outwards, world units.

    Args:
        parts: pieces smaller than this share of the largest are dropped; cavities are filled.
        smooth: blur before, standard deviation in voxels.

    Raises:
        UserError: nothing is inside.
    """
    values = np.pad(ndimage.gaussian_filter(grid.values, smooth, mode="nearest"), 1, constant_values=1)
    labels, count = ndimage.label(values < 0)
    if count == 0:
        raise UserError("there is no surface to make a mesh of: all is thinner than a voxel; raise task.resolution")
    sizes = np.bincount(labels.ravel())[1:]
    small = np.concatenate([[False], sizes < parts * sizes.max()])[labels]
    values[small] = -values[small]
    inside = values < 0
    values[ndimage.binary_fill_holes(inside) & ~inside] = -1
    values[np.abs(values) < NEVER_ZERO] = NEVER_ZERO
    vertices, faces, _, _ = marching_cubes(values, 0.0, gradient_direction="descent")
    return Trimesh(grid.origin + grid.side * (vertices.astype(np.float64) - 1), faces)
