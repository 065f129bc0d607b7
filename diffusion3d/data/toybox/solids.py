"""Primitive solids as (vertices [N, 3], faces [F, 3], shading normals of every face's corners [F, 3, 3])."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import trimesh
from numpy.typing import NDArray

Numbers = Sequence[Any] | NDArray[Any]
Solid = tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64]]

SMOOTH = np.cos(np.deg2rad(40))
"""Cosine of the largest bend in a lathe's profile that is shaded smoothly."""


def unit(vectors: NDArray[Any]) -> NDArray[Any]:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def flat(vertices: Numbers, faces: Numbers) -> Solid:
    """A solid whose faces are shaded flatly; faces without an area are dropped."""
    vertices, faces = np.asarray(vertices, float), np.asarray(faces, np.int64)
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    cross = np.cross(b - a, c - a)
    kept = (cross**2).sum(1) > 1e-20
    return vertices, faces[kept], np.repeat(unit(cross[kept])[:, None], 3, 1)


@lru_cache(1)
def unit_box() -> Solid:
    mesh = trimesh.creation.box((1, 1, 1))
    return flat(mesh.vertices, mesh.faces)


@lru_cache(8)
def unit_sphere(subdivisions: int) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    mesh = trimesh.creation.icosphere(subdivisions=subdivisions)
    return np.asarray(mesh.vertices, float), np.asarray(mesh.faces, np.int64)


def ellipsoid(radii: Numbers, subdivisions: int = 3) -> Solid:
    """An ellipsoid with exact normals."""
    radii = np.asarray(radii, float)
    vertices, faces = unit_sphere(subdivisions)
    return vertices * radii, faces, unit(vertices / radii)[faces]


@lru_cache(8)
def _grid(rows: int, columns: int) -> NDArray[np.int64]:
    """Faces of a grid of rows x columns vertices, closed along its columns; counter-clockwise seen from outside."""
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    k = (j + 1) % columns
    a, b, c, d = (x.ravel() for x in (i * columns + j, i * columns + k, (i + 1) * columns + k, (i + 1) * columns + j))
    return np.stack([np.c_[a, b, c], np.c_[a, c, d]], 1).reshape(-1, 3)


def lathe(profile: Numbers, sections: int = 24) -> Solid:
    """Revolve (radius, z) points given from the bottom to the top about z; fewer than nine sections are flat."""
    profile = np.asarray(profile, float)
    angle = np.linspace(0, 2 * np.pi, sections, endpoint=False) + np.pi / sections
    ring = np.stack([np.cos(angle), np.sin(angle)], 1)
    vertices = np.concatenate([np.c_[ring * r, np.full(sections, z)] for r, z in profile])
    faces = _grid(len(profile), sections)
    if sections < 9:
        return flat(vertices, faces)
    step = np.diff(profile, axis=0)
    normal = unit(np.stack([step[:, 1], -step[:, 0]], 1))
    ends = np.stack([normal, normal], 1)
    joined = unit(normal[:-1] + normal[1:])
    soft = (normal[:-1] * normal[1:]).sum(1) > SMOOTH
    ends[:-1, 1][soft] = joined[soft]
    ends[1:, 0][soft] = joined[soft]
    row, column = np.divmod(faces, sections)
    segment = row.min(1)[:, None]
    radial = ends[segment, row - segment]
    normals = np.concatenate([ring[column] * radial[..., :1], radial[..., 1:]], -1)
    corners = vertices[faces]
    area = np.linalg.norm(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]), axis=1)
    kept = area > 1e-10
    return vertices, faces[kept], normals[kept]


def loft(rings: Numbers, smooth: bool) -> Solid:
    """A closed skin over rings [S, N, 3]; with `smooth` the sides, but not the caps, get averaged normals."""
    rings = np.asarray(rings, float)
    rows, n = rings.shape[:2]
    vertices = rings.reshape(-1, 3)
    sides = _grid(rows, n)
    fan = np.arange(1, n - 1)
    zero = np.zeros(n - 2, np.int64)
    last = (rows - 1) * n
    faces = np.concatenate([sides, np.c_[zero, fan + 1, fan], last + np.c_[zero, fan, fan + 1]])
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    if (a * np.cross(b, c)).sum() < 0:
        faces = faces[:, ::-1]
    solid = flat(vertices, faces)
    if not smooth:
        return solid
    a, b, c = (vertices[faces[: len(sides), k]] for k in range(3))
    total = np.zeros_like(vertices)
    for k in range(3):
        np.add.at(total, faces[: len(sides), k], np.cross(b - a, c - a))
    normals = unit(total)[faces]
    cross = np.cross(vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]])
    normals[len(sides) :] = unit(cross)[len(sides) :, None]
    kept = (cross**2).sum(1) > 1e-20
    return vertices, faces[kept], normals[kept]


def torus(radius: float, tube: float, major: int = 24, minor: int = 12) -> Solid:
    """A ring in the xy plane."""
    u = np.linspace(0, 2 * np.pi, major, endpoint=False)[:, None]
    v = np.linspace(0, 2 * np.pi, minor, endpoint=False)[None]
    normals = np.stack(np.broadcast_arrays(np.cos(u) * np.cos(v), np.sin(u) * np.cos(v), np.sin(v)), -1).reshape(-1, 3)
    centres = np.stack(np.broadcast_arrays(np.cos(u), np.sin(u), 0 * u), -1).repeat(minor, 1).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(major), np.arange(minor), indexing="ij")
    k, m = (i + 1) % major, (j + 1) % minor
    a, b, c, d = (x.ravel() for x in (i * minor + j, k * minor + j, k * minor + m, i * minor + m))
    faces = np.concatenate([np.c_[a, b, c], np.c_[a, c, d]])
    return centres * radius + normals * tube, faces, normals[faces]
