"""Gaussians to start from: of a file, or made of points."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion3d.errors import UserError, one_line
from diffusion3d.representations.splat_files import read_splats
from diffusion3d.representations.splats import Splats, file_bytes
from diffusion3d.views import PointCloud

NEIGHBOURS = 3
FLOOR = 1e-4
GREY = 128


def started_from(path: str | None, points: PointCloud | None, count: int, opacity: float) -> dict[str, Tensor]:
    """Raw tensors [1, N, …] of a file of Gaussians, points or a mesh, or else of `points`.

    Args:
        path: the file; points and meshes in world units, z up, in glTF and OBJ y up with their front along +z.
        points: used where there is no file.
        count: points drawn from a mesh, and the most that are kept of a cloud.
        opacity: of Gaussians made of points.

    Raises:
        UserError: the file cannot be read, or holds neither Gaussians, nor points, nor a mesh.
    """
    if path is not None:
        file = Path(path).expanduser()
        if not file.is_file():
            raise UserError(f"representation.start={path} is not a file")
        with file.open("rb") as content:
            gaussians = file.suffix.lower() in (".spz", ".splat") or b"f_dc_0" in content.read(4096)
        if gaussians:
            return read_splats(file).raw()
        points = _points(file, count)
    assert points is not None
    some = np.linspace(0, len(points.points) - 1, min(count, len(points.points))).astype(int)
    return of_points(points.points[some], points.colors[some], opacity).raw()


def of_points(points: Float[Tensor, "N 3"], colors: Float[Tensor, "N 3"], opacity: float) -> Splats:
    """Round Gaussians as large as the mean distance to the three nearest others (Kerbl et al. 2023, section 5.1)."""
    from scipy.spatial import cKDTree

    count = len(points)
    neighbours = min(NEIGHBOURS, count - 1)
    distance = torch.full((count,), 0.05)
    if neighbours:
        found, _ = cKDTree(points.numpy()).query(points.numpy(), neighbours + 1)
        distance = torch.from_numpy(found[:, 1:]).float().mean(1).clamp(min=FLOOR)
    quats = torch.tensor([[1.0, 0.0, 0.0, 0.0]]).expand(count, -1)
    opacities = torch.full((count,), opacity)
    return Splats.activated(points, quats, distance[:, None].expand(-1, 3), opacities, colors)


def _surface_colors(mesh: Any, points: Float[np.ndarray, "N 3"], faces: Int[np.ndarray, " N"]) -> np.ndarray:
    """The colours [N, 3], 0 to 255, of points on these faces of trimesh's `mesh`."""
    from trimesh.triangles import points_to_barycentric

    weights = points_to_barycentric(mesh.triangles[faces], points)[..., None]
    visual, corners = mesh.visual, mesh.faces[faces]
    found = None
    if visual.kind == "texture":
        found = None if visual.uv is None else visual.material.to_color((visual.uv[corners] * weights).sum(1))
        found = visual.material.main_color if found is None else found
    elif visual.kind == "vertex":
        found = (visual.vertex_colors[corners] * weights).sum(1)
    elif visual.kind == "face":
        found = visual.face_colors[faces]
    return np.broadcast_to(GREY if found is None else np.asarray(found)[..., :3], points.shape)


def _points(file: Path, count: int) -> PointCloud:
    import trimesh

    from diffusion3d.data.textured import FORMATS, Y_UP, check_faces, check_ply

    suffix = file.suffix.lower()
    if suffix == ".ply":
        check_ply(file_bytes(file), str(file))
    try:
        loaded = trimesh.load(file, process=False)
        if isinstance(loaded, trimesh.Scene):
            loaded = loaded.to_mesh()
    except Exception as error:  # trimesh's readers share no base
        raise UserError(f"cannot read {file}: {one_line(error)}") from None
    points = np.asarray(getattr(loaded, "vertices", np.zeros((0, 3))))
    if len(points) == 0 or not np.isfinite(points).all():
        raise UserError(f"{file} holds neither Gaussians nor points nor a mesh, or some that are not finite")
    if isinstance(loaded, trimesh.Trimesh) and len(loaded.faces):
        check_faces(loaded.faces, len(points), str(file))
        points, faces = trimesh.sample.sample_surface(loaded, count, seed=0)
        colors = _surface_colors(loaded, points, faces)
    else:
        colors = np.asarray(getattr(loaded, "colors", ()))
        colors = colors[:, :3] if len(colors) == len(points) else np.full((len(points), 3), GREY)
    if FORMATS.get(suffix) == "y":
        points = points @ Y_UP.T
    return PointCloud(torch.from_numpy(points).float(), torch.from_numpy(colors / 255).float())
