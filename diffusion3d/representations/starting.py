"""Gaussians to start from: of a file, or made of points."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.errors import UserError, one_line
from diffusion3d.representations.splat_files import read_splats
from diffusion3d.representations.splats import Splats, file_bytes
from diffusion3d.views import PointCloud

if TYPE_CHECKING:
    from diffusion3d.data.textured import TexturedMesh

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


def _points(file: Path, count: int) -> PointCloud:
    import trimesh

    from diffusion3d.data.files import Files
    from diffusion3d.data.textured import check_ply, placed_mesh

    if file.suffix.lower() == ".ply":
        check_ply(file_bytes(file), str(file))
    try:
        loaded = trimesh.load(file, process=False)
    except Exception as error:  # trimesh's readers share no base
        raise UserError(f"cannot read {file}: {one_line(error)}") from None
    if isinstance(loaded, trimesh.Scene) or len(getattr(loaded, "faces", ())):
        return _covering(placed_mesh(Files(str(file)), file.name), count)
    points, colors = (np.asarray(getattr(loaded, name, ())) for name in ("vertices", "colors"))
    if len(points) == 0 or not np.isfinite(points).all():
        raise UserError(f"{file} holds neither Gaussians nor points nor a mesh, or some that are not finite")
    colors = colors[:, :3] if len(colors) == len(points) else np.full((len(points), 3), GREY)
    return PointCloud(torch.from_numpy(points).float(), torch.from_numpy(colors / 255).float())


def _covering(mesh: TexturedMesh, count: int) -> PointCloud:
    """Points on the surface, evenly."""
    import trimesh
    from trimesh.triangles import points_to_barycentric

    drawn = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    points, faces = trimesh.sample.sample_surface(drawn, count, seed=0)
    weights = points_to_barycentric(drawn.triangles[faces], points)
    colors = mesh.albedo({"primID": faces, "u": weights[:, 1], "v": weights[:, 2]})
    return PointCloud(torch.from_numpy(np.asarray(points)).float(), torch.from_numpy(colors).float())
