"""Scenes as meshes, and their files."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from fast_simplification import simplify
from PIL import Image
from trimesh import Scene, Trimesh
from trimesh.exchange.gltf import export_glb
from trimesh.exchange.obj import export_obj
from trimesh.exchange.ply import export_ply
from trimesh.visual import ColorVisuals, TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from diffusion3d.cameras import Cameras
from diffusion3d.export.colouring import TexturedMesh, textured, view_colors
from diffusion3d.export.fusion import Grid, fronts, fuse, surface
from diffusion3d.rendering.render import Render

Y_UP = np.array([[0.0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 1]])
"""From our axes (front +x, up +z) to those of glTF (front +z, up +y)."""

BLURS = (0.8, 1.2, 1.6)
"""Simplifying a rugged surface pinches it here and there; then one that is blurred more, in voxels, is simplified."""
GREED = 5
"""How fast a simplification raises the error it allows."""


@dataclass(frozen=True)
class SceneMesh:
    """The mesh of scene 0 of some views from around it, made when it is asked for.

    Attributes:
        render, cameras: the views.
        grid: the signed distance field fused from them.
        parts, smooth: see `fusion.surface`.
        faces: at most so many in the textured mesh.
        texture: its size, texels a side.
    """

    render: Render
    cameras: Cameras
    grid: Grid
    parts: float = 0.01
    smooth: float = 0.5
    faces: int = 20_000
    texture: int = 1024

    @classmethod
    def of(
        cls,
        render: Render,
        cameras: Cameras,
        resolution: int = 160,
        truncation: float = 4.0,
        parts: float = 0.01,
        smooth: float = 0.5,
        faces: int = 20_000,
        texture: int = 1024,
    ) -> SceneMesh:
        """Fuse the views (see `fusion.fuse` for what it refuses)."""
        render = fronts(render)
        return cls(render, cameras, fuse(render, cameras, resolution, truncation), parts, smooth, faces, texture)

    @cached_property
    def fine(self) -> Trimesh:
        """As fine as the field, with a colour per vertex."""
        mesh = surface(self.grid, self.parts, self.smooth)
        colors = view_colors(mesh.vertices, mesh.vertex_normals, self.render, self.cameras, self._tolerance)
        mesh.visual = ColorVisuals(mesh, vertex_colors=np.round(255 * colors).astype(np.uint8))
        return mesh

    @cached_property
    def light(self) -> TexturedMesh:
        """Of few faces, with a texture; closed, too, unless no blur keeps it so."""
        mesh = decimated(self.fine, self.faces)
        for blur in BLURS:
            if mesh.is_watertight:
                break
            mesh = decimated(surface(self.grid, self.parts, max(blur, self.smooth)), self.faces)
        return textured(mesh, self.render, self.cameras, self.texture, self._tolerance)

    @property
    def _tolerance(self) -> float:
        return 3 * self.grid.side


def decimated(mesh: Trimesh, faces: int) -> Trimesh:
    """The mesh with at most `faces` faces; a rugged one may touch itself along some edges then."""
    vertices, corners = mesh.vertices.astype(np.float32), mesh.faces.astype(np.int32)
    if len(corners) > faces:
        vertices, corners = simplify(vertices, corners, target_count=faces, agg=GREED)
    return Trimesh(vertices, corners, process=False)


def write_mesh_ply(mesh: Trimesh) -> bytes:
    """Binary PLY with a colour per vertex, world axes (z up)."""
    return export_ply(mesh)


def write_glb(mesh: TexturedMesh) -> bytes:
    """One binary glTF file with the texture inside; y up, front +z."""
    material = PBRMaterial(baseColorTexture=Image.fromarray(mesh.texture), metallicFactor=0.0, roughnessFactor=1.0)
    return export_glb(Scene(_upright(mesh, material)), include_normals=True)


def write_obj(mesh: TexturedMesh, name: str) -> Mapping[str, bytes]:
    """{file: content} of `name`.obj, the .mtl it names and the .png that this names, the .obj last; y up, front +z."""
    image = Image.fromarray(mesh.texture)
    picture = io.BytesIO()
    image.save(picture, "png")
    text = export_obj(
        _upright(mesh, SimpleMaterial(image=image, name=name)), include_normals=True, mtl_name=f"{name}.mtl"
    )
    material = f"newmtl {name}\nKa 0 0 0\nKd 1 1 1\nKs 0 0 0\nillum 1\nmap_Kd {name}.png\n"
    return {f"{name}.png": picture.getvalue(), f"{name}.mtl": material.encode(), f"{name}.obj": text.encode()}


def _upright(mesh: TexturedMesh, material: PBRMaterial | SimpleMaterial) -> Trimesh:
    turn = Y_UP[:3, :3].T
    return Trimesh(
        mesh.mesh.vertices @ turn,
        mesh.mesh.faces,
        vertex_normals=mesh.mesh.vertex_normals @ turn,
        visual=TextureVisuals(uv=mesh.uv, material=material),
        process=False,
    )
