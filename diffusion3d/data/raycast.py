"""Exact pictures of triangle meshes by ray casting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from embreex.mesh_construction import TriangleMesh
from embreex.rtcore_scene import EmbreeScene
from numpy.typing import NDArray

from diffusion3d.cameras import Cameras
from diffusion3d.views import PosedViews

Array = NDArray[np.float32]
Hits = dict[str, NDArray]
"""Of N rays: the face `primID`, the weights `u`, `v` of its second and third corner, the depth `tfar`."""

LAYERS = 16
"""Faces with holes that a ray may go through."""


@dataclass(frozen=True)
class Mesh:
    """A triangle soup.

    Attributes:
        vertices: [N, 3].
        faces: [F, 3], counter-clockwise seen from outside.
        colours: sRGB of every face [F, 3].
        labels: part label of every face [F], from 1; `names[label - 1]` is the part.
        normals: unit shading normals of the corners of every face [F, 3, 3].
        names: of the part labels.
    """

    vertices: NDArray[np.float32]
    faces: NDArray[np.int32]
    colours: NDArray[np.float32]
    labels: NDArray[np.int32]
    normals: NDArray[np.float32]
    names: tuple[str, ...]

    two_sided = False
    """Whether faces are lit on the side that is seen, whatever their normals say."""

    def albedo(self, hits: Hits) -> Array:
        """sRGB [N, 3] where rays hit."""
        return self.colours[hits["primID"]]

    def holes(self, hits: Hits) -> NDArray[np.bool_] | None:
        """Where rays go through [N], None for a mesh without holes in its faces."""
        return None


@dataclass(frozen=True)
class Lighting:
    """Lights fixed in the world; intensities multiply the sRGB colour.

    Attributes:
        key, fill: towards the two directional lights, any length.
        key_strength, fill_strength: of the lights at perpendicular incidence.
        sky, ground: ambient light of faces that look up or down; in between for others.
    """

    key: tuple[float, float, float] = (1.0, 0.7, 1.3)
    key_strength: float = 0.33
    fill: tuple[float, float, float] = (-0.8, -1.0, 0.2)
    fill_strength: float = 0.22
    sky: float = 0.75
    ground: float = 0.55

    def shade(self, normals: Array) -> Array:
        """Brightness for unit normals [N, 3]."""
        directions = np.array([self.key, self.fill], np.float32)
        directions /= np.linalg.norm(directions, axis=1, keepdims=True)
        directions *= np.array([[self.key_strength], [self.fill_strength]], np.float32)
        direct = np.maximum(normals @ directions.T, 0).sum(1)
        return (
            direct + np.float32((self.sky - self.ground) / 2) * normals[:, 2] + np.float32((self.sky + self.ground) / 2)
        )


DEFAULT = Lighting()
EVENING = Lighting(
    key=(-0.3, -1.2, 0.9), key_strength=0.55, fill=(1.0, 0.5, 0.3), fill_strength=0.1, sky=0.5, ground=0.4
)
"""Lighting that training never shows, for evaluation."""


class Caster:
    """Casts rays against one mesh."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.scene = EmbreeScene()
        self.triangles = TriangleMesh(self.scene, np.ascontiguousarray(mesh.vertices[mesh.faces]))

    def bounds(self, viewmat: Array, K: Array, height: int, width: int) -> tuple[int, int, int, int]:
        """Pixel rectangle (top, bottom, left, right) outside which nothing is seen."""
        local = self.mesh.vertices @ viewmat[:3, :3].T + viewmat[:3, 3]
        if local[:, 2].min() < 1e-3:
            return 0, height, 0, width
        image = local @ K.T
        image = image[:, :2] / image[:, 2:]
        left, top = (int(value) - 1 for value in np.floor(image.min(0)))
        right, bottom = (int(value) + 1 for value in np.ceil(image.max(0)))
        return max(top, 0), min(bottom, height), max(left, 0), min(right, width)

    def cast(self, c2w: Array, K: Array, x: Array, y: Array) -> tuple[NDArray[np.intp], Hits, Array]:
        """Cast rays through image positions x [W], y [H]: which of the H * W rays hit, the hits, and all directions."""
        inverse = (c2w[:3, :3] @ np.linalg.inv(K)).astype(np.float32)
        rays = (y[:, None, None] * inverse[:, 1] + inverse[:, 2]) + x[None, :, None] * inverse[:, 0]
        rays = rays.reshape(-1, 3)
        origins = np.empty_like(rays)
        origins[:] = c2w[:3, 3]
        found = self.scene.run(origins, rays, output=True)
        hit = np.flatnonzero(found["primID"] >= 0)
        hits = {k: found[k][hit] for k in ("primID", "u", "v", "tfar")}
        holes = self.mesh.holes(hits)
        if holes is not None and holes.any():
            self._go_through(origins, rays, hit, hits, holes)
            seen = hits["primID"] >= 0
            hit, hits = hit[seen], {k: values[seen] for k, values in hits.items()}
        return hit, hits, rays

    def _go_through(self, origins: Array, rays: Array, hit: NDArray[np.intp], hits: Hits, holes: NDArray) -> None:
        """Replace hits of holes by what lies behind; primID -1 is nothing."""
        open_hits = np.flatnonzero(holes)
        for _ in range(LAYERS):
            start = hits["tfar"][open_hits] + 1e-4
            directions = rays[hit[open_hits]]
            found = self.scene.run(origins[hit[open_hits]] + directions * start[:, None], directions, output=True)
            found["tfar"] = found["tfar"] + start
            for k, values in hits.items():
                values[open_hits] = found[k]
            open_hits = open_hits[found["primID"] >= 0]
            behind = self.mesh.holes({k: values[open_hits] for k, values in hits.items()})
            assert behind is not None
            open_hits = open_hits[behind]
            if len(open_hits) == 0:
                return
        hits["primID"][open_hits] = -1

    def normals(self, hits: Hits, directions: Array) -> Array:
        """Unit shading normals of the hits of rays with `directions` [N, 3]."""
        corners = self.mesh.normals[hits["primID"]]
        u, v = hits["u"][:, None], hits["v"][:, None]
        normals = corners[:, 0] * (1 - u - v)
        normals += corners[:, 1] * u
        normals += corners[:, 2] * v
        normals *= 1 / np.sqrt(np.einsum("ni,ni->n", normals, normals))[:, None]
        if self.mesh.two_sided:
            normals[np.einsum("ni,ni->n", self.plain_normals(hits), directions) > 0] *= -1
        return normals

    def plain_normals(self, hits: Hits) -> Array:
        """Normals of the faces that rays hit [N, 3], of any length."""
        corners = self.mesh.vertices[self.mesh.faces[hits["primID"]]]
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])

    def colour(self, c2w: Array, K: Array, height: int, width: int, samples: int, lighting: Lighting) -> Array:
        """Premultiplied sRGB and alpha [H, W, 4] of one view."""
        picture = np.zeros((height, width, 4), np.float32)
        viewmat = np.linalg.inv(c2w)
        top, bottom, left, right = self.bounds(viewmat, K, height, width)
        if top >= bottom or left >= right:
            return picture
        offsets = ((np.arange(samples) + 0.5) / samples).astype(np.float32)
        x = (np.arange(left, right, dtype=np.float32)[:, None] + offsets).ravel()
        y = (np.arange(top, bottom, dtype=np.float32)[:, None] + offsets).ravel()
        hit, hits, rays = self.cast(c2w, K, x, y)
        fine = np.zeros((len(y) * len(x), 4), np.float32)
        shaded = self.mesh.albedo(hits) * lighting.shade(self.normals(hits, rays[hit]))[:, None]
        np.minimum(shaded, 1, out=shaded)
        fine[hit, :3] = shaded
        fine[hit, 3] = 1
        rows = fine.reshape(bottom - top, samples, right - left, samples * 4)
        coarse = rows.sum(1).reshape(bottom - top, right - left, samples, 4).sum(2)
        picture[top:bottom, left:right] = coarse / samples**2
        return picture


def render_rgba(
    mesh: Mesh, c2w: Array, K: Array, height: int, width: int, samples: int = 2, lighting: Lighting = DEFAULT
) -> NDArray[np.uint8]:
    """Only colour and alpha, premultiplied, of views [V]: uint8 [V, H, W, 4]."""
    caster = Caster(mesh)
    pictures = [caster.colour(c2w[v], K[v], height, width, samples, lighting) for v in range(len(c2w))]
    return (np.stack(pictures) * 255 + 0.5).astype(np.uint8)


def render(mesh: Mesh, cameras: Cameras, *, samples: int = 2, lighting: Lighting = DEFAULT) -> PosedViews:
    """All views of one mesh, with B = 1.

    Images and alpha average samples x samples rays a pixel; depth, normals and labels are those of the ray through the
    pixel's centre.

    Raises:
        ValueError: the cameras are those of several scenes.
    """
    if cameras.shape[0] != 1:
        raise ValueError(f"render takes the cameras of one scene, not of {cameras.shape[0]}")
    caster = Caster(mesh)
    height, width = cameras.height, cameras.width
    c2w, K = cameras.c2w[0].cpu().numpy().astype(np.float32), cameras.K[0].cpu().numpy().astype(np.float32)
    count = len(c2w)
    rgba = np.stack([caster.colour(c2w[v], K[v], height, width, samples, lighting) for v in range(count)])
    depth = np.zeros((count, height * width), np.float32)
    normals = np.zeros((count, height * width, 3), np.float32)
    labels = np.zeros((count, height * width), np.int64)
    x, y = np.arange(width, dtype=np.float32) + 0.5, np.arange(height, dtype=np.float32) + 0.5
    for v in range(count):
        hit, hits, rays = caster.cast(c2w[v], K[v], x, y)
        smooth = caster.normals(hits, rays[hit])
        away = (smooth * rays[hit]).sum(1) >= 0
        plain = caster.plain_normals({k: values[away] for k, values in hits.items()})
        plain *= -np.sign((plain * rays[hit][away]).sum(1, keepdims=True))
        smooth[away] = plain / np.linalg.norm(plain, axis=1, keepdims=True)
        depth[v, hit], normals[v, hit], labels[v, hit] = hits["tfar"], smooth, mesh.labels[hits["primID"]]
    images = torch.from_numpy(rgba).permute(0, 3, 1, 2)[None]
    return PosedViews(
        cameras=cameras,
        images=images[:, :, :3].contiguous(),
        alpha=images[:, :, 3:].contiguous(),
        depth=torch.from_numpy(depth).view(1, count, 1, height, width),
        normals=torch.from_numpy(normals).view(1, count, height, width, 3).permute(0, 1, 4, 2, 3).contiguous(),
        labels=torch.from_numpy(labels).view(1, count, 1, height, width),
    )
