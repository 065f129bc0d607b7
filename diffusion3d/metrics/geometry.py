"""Measures of shape from silhouettes, depth and points. World units."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion3d.cameras import Cameras


def silhouette_iou(a: Bool[Tensor, "*S H W"], b: Bool[Tensor, "*S H W"]) -> Float[Tensor, "*S"]:
    """Intersection over union of masks; 1 where both are empty."""
    union = (a | b).sum((-2, -1))
    return torch.where(union > 0, (a & b).sum((-2, -1)) / union.clamp(min=1), 1.0)


def unproject(
    depth: Float[Tensor, "1 V 1 H W"], alpha: Float[Tensor, "1 V 1 H W"], cameras: Cameras, opaque: float = 0.9
) -> list[Float[Tensor, "_ 3"]]:
    """The visible surface points of one scene, view by view.

    Args:
        depth: camera-z.
        alpha: coverage; pixels below `opaque` (edges, mist) are left out.
        cameras: of the views, with the images' size.
    """
    rays_o, rays_d = cameras.rays()
    points = rays_o + depth[:, :, 0, :, :, None] * rays_d
    seen = alpha[:, :, 0] >= opaque
    return [points[0, v][seen[0, v]] for v in range(depth.shape[1])]


def bounding_box(points: Float[Tensor, "N 3"], outliers: float = 0.005) -> Float[Tensor, "3"]:
    """Side lengths of the axis-aligned box; a share of `outliers` is dropped at both ends of every axis.

    Raises:
        ValueError: there are no points.
    """
    if len(points) == 0:
        raise ValueError("bounding_box: there are no points")
    ordered = points.sort(dim=0).values
    last = len(points) - 1
    low = round(outliers * last)
    return ordered[last - low] - ordered[low]


def plane_residual(points: Float[Tensor, "N 3"]) -> float:
    """RMS distance to the best-fitting plane, as a share of the longest side of the points' box.

    0 for anything flat; 1/sqrt(72) ≈ 0.118 for a sphere seen from afar (half of it, evenly over its disc).

    Raises:
        ValueError: fewer than four points.
    """
    if len(points) < 4:
        raise ValueError(f"plane_residual needs at least four points, got {len(points)}")
    centred = (points - points.mean(0)).double()
    variance = torch.linalg.eigvalsh(centred.T @ centred / len(points))[0].clamp(min=0)
    extent = (points.amax(0) - points.amin(0)).max()
    return float(variance.sqrt() / extent.clamp(min=1e-9))
