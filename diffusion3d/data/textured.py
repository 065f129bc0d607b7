"""Meshes of any format that trimesh reads, as the ray caster wants them: coloured, centred, z up."""

from __future__ import annotations

import io
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import PurePosixPath
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from trimesh.visual.color import linear_to_srgb
from trimesh.visual.material import PBRMaterial

from diffusion3d.data.files import Files
from diffusion3d.data.images import open_image, to_rgb
from diffusion3d.data.raycast import Array, Hits, Mesh
from diffusion3d.data.rendered import RADIUS
from diffusion3d.errors import UserError

log = logging.getLogger(__name__)

FORMATS = {".glb": "y", ".gltf": "y", ".obj": "y", ".ply": "z", ".stl": "z"}
"""File suffix -> the axis that is up unless told. glTF says so, the others are habits."""
PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tga", ".tif", ".tiff", ".webp", ".gif")
Y_UP = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
"""Turns y up, front +z (glTF's) to z up, front +x."""
GREY = (0.7, 0.7, 0.7, 1.0)
"""Of meshes without colours."""
SMOOTH = np.cos(np.deg2rad(40))
"""Cosine of the largest angle between a face's and a corner's normal that is shaded smoothly."""


@dataclass(frozen=True)
class TexturedMesh(Mesh):
    """Colour = texture x the colour of the corners. What is less than half opaque is a hole, such as window panes and what
    surrounds leaves.

    Attributes:
        tints: sRGB and opacity of the corners of every face [F, 3, 4].
        uv: texture coordinates of the corners [F, 3, 2], from the lower left, repeating.
        material: number of the texture of every face [F], -1 is none.
        textures: RGBA in [0, 1], each [h, w, 4].
    """

    tints: Array
    uv: Array
    material: NDArray[np.int32]
    textures: tuple[Array, ...]

    two_sided = True

    def rgba(self, hits: Hits) -> Array:
        """sRGB and opacity [N, 4]."""
        faces = hits["primID"]
        weights = np.stack([1 - hits["u"] - hits["v"], hits["u"], hits["v"]], 1)[..., None].astype(np.float32)
        colour = (self.tints[faces] * weights).sum(1)
        place = (self.uv[faces] * weights).sum(1)
        for number, texture in enumerate(self.textures):
            on = np.flatnonzero(self.material[faces] == number)
            colour[on] *= sample(texture, place[on])
        return colour

    def albedo(self, hits: Hits) -> Array:
        return self.rgba(hits)[:, :3]

    @cached_property
    def solid(self) -> bool:
        """Whether there are no holes."""
        return min(float(colours[..., 3].min()) for colours in (self.tints, *self.textures)) >= 0.5

    def holes(self, hits: Hits) -> NDArray[np.bool_] | None:
        return None if self.solid else self.rgba(hits)[:, 3] < 0.5


def sample(texture: Array, uv: Array) -> Array:
    """Bilinear, repeating: [N, 4] at uv [N, 2], whose v runs upwards; texel centres lie at half-integers."""
    height, width = texture.shape[:2]
    x, y = uv[:, 0] % 1 * width - 0.5, (1 - uv[:, 1] % 1) * height - 0.5
    left, top = np.floor(x).astype(np.int64), np.floor(y).astype(np.int64)
    a, b = (x - left)[:, None].astype(np.float32), (y - top)[:, None].astype(np.float32)
    columns, rows = (left % width, (left + 1) % width), (top % height, (top + 1) % height)
    upper = texture[rows[0], columns[0]] * (1 - a) + texture[rows[0], columns[1]] * a
    lower = texture[rows[1], columns[0]] * (1 - a) + texture[rows[1], columns[1]] * a
    return upper * (1 - b) + lower * b


class Resolver(trimesh.resolvers.Resolver):
    """Hands trimesh the files beside a mesh. What is not there or outside (authors leave paths of their own disks in
    materials) is done without and warned of; what cannot be read is remembered, since trimesh goes on without it."""

    def __init__(self, files: Files, mesh: str) -> None:
        self.files, self.mesh = files, mesh
        self.errors: list[UserError] = []

    def get(self, name: str) -> bytes:
        path = self._path(name)
        if path is None or not self.files.has(path):
            log.warning("%s names %s, which is not there; it is drawn without", self.files.describe(self.mesh), name)
            raise FileNotFoundError(name)
        try:
            content = self.files.read(path)
            if path.lower().endswith(PICTURES):
                open_image(io.BytesIO(content), self.files.describe(path))
            return content
        except UserError as error:
            self.errors.append(error)
            raise FileNotFoundError(name) from error

    def _path(self, name: str) -> str | None:
        """In the collection; None is outside."""
        parts = list(PurePosixPath(self.mesh).parent.parts)
        for part in PurePosixPath(name.strip().replace("\\", "/")).parts:
            if part == "/" or (part == ".." and not parts):
                return None
            if part == "..":
                parts.pop()
            else:
                parts.append(part)
        return "/".join(parts)

    def write(self, name: str, data: Any) -> None:
        """Abstract in trimesh, whose exporters alone call it."""
        raise NotImplementedError

    def namespaced(self, namespace: str) -> Resolver:
        """Abstract in trimesh, whose readers do not call it."""
        raise NotImplementedError

    def keys(self) -> list[str]:
        return self.files.names


@dataclass
class _Corners:
    """What becomes a TexturedMesh, collected part by part, with three vertices for every face."""

    vertices: list[NDArray] = field(default_factory=list)
    normals: list[NDArray] = field(default_factory=list)
    tints: list[NDArray] = field(default_factory=list)
    uv: list[NDArray] = field(default_factory=list)
    material: list[NDArray] = field(default_factory=list)
    textures: list[NDArray] = field(default_factory=list)

    def mesh(self, vertices: NDArray) -> TexturedMesh:
        """With these positions of the corners [F, 3, 3]."""
        tints, count = np.concatenate(self.tints), len(vertices)
        return TexturedMesh(
            vertices=vertices.reshape(-1, 3).astype(np.float32),
            faces=np.arange(3 * count, dtype=np.int32).reshape(-1, 3),
            colours=tints[..., :3].mean(1).astype(np.float32),
            labels=np.ones(count, np.int32),
            normals=np.concatenate(self.normals).astype(np.float32),
            names=("object",),
            tints=tints.astype(np.float32),
            uv=np.concatenate(self.uv).astype(np.float32),
            material=np.concatenate(self.material).astype(np.int32),
            textures=tuple(self.textures),
        )


def read_mesh(
    files: Files, name: str, up: str | None = None, turn: Float[np.ndarray, "3 3"] | None = None, detail: float = 0.0
) -> TexturedMesh:
    """A mesh, its bounding box centred and its bounding sphere scaled to RADIUS. One of glass alone becomes opaque.

    Args:
        files: where it is, with its materials and textures.
        name: its path there.
        up: axis that is up in the file, "y" (front +z) or "z" (front +x); None is its format's habit.
        turn: rotation to apply before.
        detail: length in the scaled world below which textures are averaged; 0 leaves them as they are.

    Raises:
        UserError: it cannot be read, has no faces, has NaNs, or a texture is damaged.
    """
    corners = _collect(files, name, up, turn)
    vertices = np.concatenate(corners.vertices)
    low, high = vertices.min(axis=(0, 1)), vertices.max(axis=(0, 1))
    vertices = vertices - (low + high) / 2
    reach = np.linalg.norm(vertices, axis=2).max()
    if not 0 < reach < np.inf:
        raise UserError(f"{files.describe(name)} has no extent")
    vertices = vertices * (RADIUS / reach)
    material, uv = np.concatenate(corners.material), np.concatenate(corners.uv)
    corners.textures = [
        _reduce(texture, vertices[material == i], uv[material == i], detail)
        for i, texture in enumerate(corners.textures)
    ]
    if all((tints[..., 3] < 0.5).all() for tints in corners.tints):
        for tints in corners.tints:
            tints[..., 3] = 1
    return corners.mesh(vertices)


def placed_mesh(files: Files, name: str) -> TexturedMesh:
    """A mesh where its file has it, z up (see `read_mesh`)."""
    corners = _collect(files, name)
    return corners.mesh(np.concatenate(corners.vertices))


def _collect(files: Files, name: str, up: str | None = None, turn: Float[np.ndarray, "3 3"] | None = None) -> _Corners:
    what, suffix = files.describe(name), PurePosixPath(name).suffix.lower()
    content = files.read(name)
    if suffix == ".ply":
        check_ply(content, what)
    resolver = Resolver(files, name)
    try:
        scene = trimesh.load_scene(io.BytesIO(content), file_type=suffix[1:], resolver=resolver, process=False)
    except Exception as error:  # whatever trimesh's readers raise
        raise resolver.errors[0] if resolver.errors else UserError(f"{what} cannot be read: {error!r}") from None
    if resolver.errors:
        raise resolver.errors[0]
    corners = _Corners()
    for matrix, part in _parts(scene):
        _add(corners, matrix, part, suffix, what)
    if not corners.vertices:
        raise UserError(f"{what} has no faces, or is cut off")
    for rotation in (turn, Y_UP if (up or FORMATS.get(suffix)) == "y" else None):
        if rotation is not None:
            corners.vertices = [vertices @ rotation.T for vertices in corners.vertices]
            corners.normals = [normals @ rotation.T for normals in corners.normals]
    return corners


def _parts(scene: trimesh.Scene) -> Iterator[tuple[NDArray, trimesh.Trimesh]]:
    """All placed triangle meshes of a scene, with their transforms."""
    for node in scene.graph.nodes_geometry:
        matrix, name = scene.graph[node]
        if isinstance(scene.geometry[name], trimesh.Trimesh) and len(scene.geometry[name].faces):
            yield matrix, scene.geometry[name]


def _add(corners: _Corners, matrix: NDArray, part: trimesh.Trimesh, suffix: str, what: str) -> None:
    vertices, faces = np.asarray(part.vertices), np.asarray(part.faces)
    if not np.isfinite(vertices).all() or not np.isfinite(matrix).all():
        raise UserError(f"{what} has vertices that are NaN or infinite")
    check_faces(faces, len(vertices), what)
    tints, uv, texture = _look(part, suffix, what)
    if suffix == ".stl":
        part = part.copy()
        part.merge_vertices()
    moved = part.copy()
    moved.apply_transform(matrix)
    faces, positions = np.asarray(moved.faces), np.asarray(moved.vertices)[moved.faces]
    plain = np.cross(positions[:, 1] - positions[:, 0], positions[:, 2] - positions[:, 0])
    length = np.linalg.norm(plain, axis=1)
    kept = length > 1e-12 * max(float(length.max()), 1e-300)
    if not kept.any():
        return
    plain = np.repeat(plain[kept, None] / length[kept, None, None], 3, 1)
    smooth = np.asarray(moved.vertex_normals)[faces[kept]]
    bent = ~((plain * smooth).sum(2) > SMOOTH)
    corners.vertices.append(positions[kept])
    corners.normals.append(np.where(bent[..., None], plain, smooth))
    corners.tints.append(tints[kept])
    corners.uv.append(uv[kept])
    corners.material.append(np.full(kept.sum(), -1 if texture is None else len(corners.textures)))
    if texture is not None:
        corners.textures.append(texture)


def _look(part: trimesh.Trimesh, suffix: str, what: str) -> tuple[NDArray, NDArray, NDArray | None]:
    """Tints [F, 3, 4] and uv [F, 3, 2] of the corners, and the texture [h, w, 4] if there is one.

    An OBJ's texture replaces its diffuse colour; in glTF they multiply, and the factor and vertex colours are linear.
    """
    visual: Any = part.visual
    count = len(part.faces)
    tints, uv, texture = np.tile(GREY, (count, 3, 1)), np.zeros((count, 3, 2)), None
    if visual.kind == "vertex":
        tints = visual.vertex_colors[part.faces] / 255
    elif visual.kind == "face":
        tints = np.repeat(visual.face_colors[:, None] / 255, 3, 1)
    elif visual.kind == "texture":
        material: Any = visual.material
        pbr = isinstance(material, PBRMaterial)
        image = material.baseColorTexture if pbr else material.image
        if image is not None and visual.uv is not None and len(visual.uv) == len(part.vertices):
            uv = np.nan_to_num(np.asarray(visual.uv)[part.faces])
            texture = np.array(to_rgb(image, f"a texture of {what}").convert("RGBA"), np.float32) / 255
        if pbr:
            tints[:] = 1 if material.baseColorFactor is None else material.baseColorFactor / 255
            if "color" in visual.vertex_attributes:
                tints *= visual.vertex_attributes["color"][part.faces] / 255
            if material.alphaMode in (None, "OPAQUE"):
                for colours in (tints, texture):
                    if colours is not None:
                        colours[..., 3] = 1
        else:
            tints[..., :3] = material.diffuse[:3] / 255 if texture is None else 1
            tints[..., 3] = _opacity(material.kwargs)
    if suffix in (".glb", ".gltf") and visual.kind is not None:
        tints = np.concatenate([linear_to_srgb(tints[..., :3]), tints[..., 3:]], 2)
    return tints, uv, texture


def _opacity(kwargs: dict[str, Any]) -> float:
    """Of an MTL material: d, or 1 - Tr."""
    try:
        return float(kwargs["d"][-1]) if "d" in kwargs else 1 - float(kwargs.get("tr", "0")[-1])
    except (ValueError, IndexError):
        return 1.0


def _reduce(texture: Array, vertices: NDArray, uv: NDArray, detail: float) -> Array:
    """Average a texture over texels until one is about as large as `detail` on the median of its faces."""
    a, b = vertices[:, 1] - vertices[:, 0], vertices[:, 2] - vertices[:, 0]
    c, d = uv[:, 1] - uv[:, 0], uv[:, 2] - uv[:, 0]
    area = np.linalg.norm(np.cross(a, b), axis=1)
    texels = np.abs(c[:, 0] * d[:, 1] - c[:, 1] * d[:, 0]) * texture.shape[0] * texture.shape[1]
    factor = detail * float(np.median(np.sqrt(texels / area)))
    if not factor > 1:
        return texture
    size = max(1, round(texture.shape[1] / factor)), max(1, round(texture.shape[0] / factor))
    premultiplied = np.concatenate([texture[..., :3] * texture[..., 3:], texture[..., 3:]], 2)
    planes = [Image.fromarray(plane).resize(size, Image.Resampling.BOX) for plane in premultiplied.transpose(2, 0, 1)]
    small = np.stack([np.asarray(plane) for plane in planes], 2)
    return np.concatenate([small[..., :3] / np.maximum(small[..., 3:], 1e-6), small[..., 3:]], 2)


def check_faces(faces: NDArray[np.integer], vertices: int, what: str) -> None:
    """Refuse faces [F, 3] that name vertices beyond so many.

    Raises:
        UserError: as above.
    """
    if faces.min() < 0 or faces.max() >= vertices:
        raise UserError(f"{what} has faces of vertices that are not there")


def check_ply(content: bytes, what: str) -> None:
    """Refuse a PLY without positions, or an ASCII one whose lines are not as many as its header says; of binary ones trimesh
    checks the length.

    Raises:
        UserError: as above.
    """
    header, _, body = content.partition(b"end_header")
    lines = header.decode("ascii", "replace").split("\n")
    elements = [line.split() for line in lines if line.startswith("element ")]
    try:
        counts = {words[1]: int(words[2]) for words in elements}
    except (IndexError, ValueError):
        counts = {}
    fields = {line.split()[-1] for line in lines if line.startswith("property ")}
    missing = {"x", "y", "z"} - fields
    if not body or missing or "vertex" not in counts:
        lacking = ", ".join(sorted(missing)) or "vertices or its end"
        raise UserError(f"{what} is no whole PLY: its header lacks {lacking}")
    if b"format ascii" in header:
        found = len([line for line in body.split(b"\n")[1:] if line.strip()])
        if found != sum(counts.values()):
            raise UserError(f"{what} has {found} lines of data, but its header says {sum(counts.values())}")
