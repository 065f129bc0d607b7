"""Colours of a surface from views of it: per vertex, or as a texture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
import xatlas
from jaxtyping import Float, Float32, UInt8
from scipy import ndimage
from scipy.spatial import cKDTree
from trimesh import Trimesh
from trimesh.triangles import points_to_barycentric

from diffusion3d.cameras import Cameras
from diffusion3d.export.fusion import SOLID
from diffusion3d.export.pictures import to_uint8
from diffusion3d.rendering.render import Render

SHARPNESS = 4
"""A view counts by this power of the cosine at which it sees the surface."""
GUTTER = 4
"""Texels between the charts of a texture of 1024²."""


@dataclass(frozen=True)
class TexturedMesh:
    """A mesh whose vertices are split at the seams of its texture.

    Attributes:
        whole: before the split.
        mesh: vertices, faces and vertex normals, world units, z up.
        uv: texture coordinates in [0, 1], v upwards.
        texture: sRGB, row 0 at v = 1.
    """

    whole: Trimesh
    mesh: Trimesh
    uv: Float[np.ndarray, "N 2"]
    texture: UInt8[np.ndarray, "H W 3"]


def view_colors(
    points: Float[np.ndarray, "N 3"],
    normals: Float[np.ndarray, "N 3"],
    render: Render,
    cameras: Cameras,
    tolerance: float,
) -> Float32[np.ndarray, "N 3"]:
    """The mean sRGB colour of surface points over the views of scene 0 that see them, frontal ones first.

    Points that no view sees take the colour of the nearest one that is seen; grey if there is none.

    Args:
        normals: unit, outward.
        tolerance: a view sees a point if its depth there is within this of the point's, world units.
    """
    device = render.rgb.device
    at, out = (torch.tensor(value, dtype=torch.float32, device=device) for value in (points, normals))
    pixels, depths = cameras.project(at[None])
    scale = at.new_tensor([2 / cameras.width, 2 / cameras.height])
    total, weight = torch.zeros_like(at), torch.zeros_like(at[:, :1])
    for v in range(cameras.shape[1]):
        where = (pixels[0, v] * scale - 1)[None, None]
        smooth = torch.cat([render.rgb[:1, v], render.alpha[:1, v]], 1)
        rgba = F.grid_sample(smooth, where, align_corners=False)[0, :, 0].T
        depth = F.grid_sample(render.depth[:1, v], where, mode="nearest", align_corners=False)[0, 0, 0]
        facing = (F.normalize(cameras.origins[0, v] - at, dim=-1) * out).sum(-1).clamp(min=0)
        seen = ((depth - depths[0, v]).abs() < tolerance) & (rgba[:, 3] > SOLID) & (depths[0, v] > cameras.near)
        worth = (facing**SHARPNESS * rgba[:, 3] ** 2 * seen)[:, None]
        total += worth * rgba[:, :3] / rgba[:, 3:].clamp(min=SOLID)
        weight += worth
    known = (weight[:, 0] > 1e-6).cpu().numpy()
    colors = (total / weight.clamp(min=1e-6)).clamp(0, 1).cpu().numpy()
    if not known.any():
        return np.full_like(colors, 0.5)
    colors[~known] = colors[known][cKDTree(points[known]).query(points[~known])[1]]
    return colors


def textured(mesh: Trimesh, render: Render, cameras: Cameras, size: int, tolerance: float) -> TexturedMesh:
    """Unwrap a mesh and bake the views into a square texture of `size` texels a side (see `view_colors`)."""
    atlas = xatlas.Atlas()
    atlas.add_mesh(
        mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32), mesh.vertex_normals.astype(np.float32)
    )
    pack = xatlas.PackOptions()
    pack.padding = GUTTER
    pack.bilinear = True
    atlas.generate(pack_options=pack)
    origin, corners, uv = atlas[0]
    faces = corners.astype(np.int64)
    split = Trimesh(mesh.vertices[origin], faces, vertex_normals=mesh.vertex_normals[origin], process=False)
    face, weights = _texels(uv.astype(np.float64), faces, size)
    covered = face >= 0
    at = faces[face[covered]]
    points = (split.vertices[at] * weights[covered, :, None]).sum(1)
    normals = (split.vertex_normals[at] * weights[covered, :, None]).sum(1)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True).clip(1e-9)
    colors = np.zeros((size * size, 3), np.float32)
    colors[covered] = view_colors(points, normals, render, cameras, tolerance)
    nearest = ndimage.distance_transform_edt(~covered.reshape(size, size), return_distances=False, return_indices=True)
    picture = colors.reshape(size, size, 3)[tuple(nearest)]
    return TexturedMesh(mesh, split, uv.astype(np.float64), to_uint8(torch.from_numpy(picture)))


def _texels(uv: np.ndarray, faces: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The face [size²] that each texel's centre lies in (-1: none) and its barycentric coordinates [size², 3], by rays
    through the unwrapped mesh."""
    flat = Trimesh(np.pad(uv * size, ((0, 0), (0, 1))), faces, process=False)
    column, row = np.meshgrid(np.arange(size) + 0.5, size - 0.5 - np.arange(size))
    centres = np.stack([column.ravel(), row.ravel(), np.zeros(size * size)], 1)
    face = flat.ray.intersects_first(centres + np.array([0, 0, 1.0]), np.broadcast_to([0, 0, -1.0], centres.shape))
    weights = np.zeros((size * size, 3))
    hit = face >= 0
    weights[hit] = points_to_barycentric(flat.triangles[face[hit]], centres[hit]).clip(0, 1)
    return face, weights
