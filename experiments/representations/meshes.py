"""Export the scenes that fit.py has fitted as meshes, and hold them against the meshes that were fitted.

    python experiments/representations/meshes.py [--only gsplat,nerf] [--objects "toybox castle"] [--state FOLDER]
    python experiments/representations/meshes.py --table

Every finished run in --state whose figures are in --results (both those of fit.py) goes through `task=export` with its
defaults, in a process of its own on one thread; results/meshes.json keeps the figures, --table writes MESHES.md. The mesh is
read back from its GLB by trimesh.
- watertight: the share of meshes whose fine (PLY) and whose light, textured form (GLB) are both closed.
- chamfer: the mean distance from points of the light mesh to the nearest of the source, and back, halved; in thousandths of
  a world unit (an object is at most 2000 across). The source is where the rays of the training views hit it, so that what
  no view can see does not count; a point for each cell of 0.005 units. Floor: the same of what the held-out views hit.
- PSNR: the GLB's texture, unlit, from the held-out cameras over white, as the fit itself is judged (also given).
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
import trimesh
from numpy.typing import NDArray
from runs import HERE, Figures, arguments, finish, grouped, head, keep, means, names, place, read, signed
from scipy.spatial import cKDTree

from diffusion3d.config import load_config
from diffusion3d.data.base import Splits
from diffusion3d.data.raycast import Lighting, render
from diffusion3d.data.textured import Y_UP, TexturedMesh
from diffusion3d.metrics.geometry import unproject
from diffusion3d.tasks.build import build
from diffusion3d.tasks.fit import judge, whole
from diffusion3d.views import PosedViews

RESULTS = "meshes.json"
UNLIT = Lighting(key_strength=0.0, fill_strength=0.0, sky=1.0, ground=1.0)
CELL = 0.005
"""World units; of points of a surface one is kept for each cell."""
DRAWN = 200_000
"""Points on the exported mesh."""
THOUSANDTHS = 1000
FIGURES = {
    "watertight": "watertight",
    "chamfer": "chamfer",
    "to_source": "mesh to source",
    "to_mesh": "source to mesh",
    "floor": "floor",
    "psnr": "PSNR",
    "psnr_masked": "masked PSNR",
    "psnr_fit": "PSNR of the fit",
    "faces": "faces",
    "seconds": "seconds",
    "peak_memory_mb": "MB",
}


def points_of(views: PosedViews) -> NDArray[np.float64]:
    """Where the rays through the pixels of one scene's views hit it [N, 3]."""
    assert views.depth is not None
    found = torch.cat(unproject(views.depth, (views.depth > 0).float(), views.cameras)).double().numpy()
    return thinned(found)


def thinned(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[np.unique(np.floor(points / CELL).astype(np.int64), axis=0, return_index=True)[1]]


def distance(points: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Mean distance to the nearest of the others, thousandths of a world unit."""
    return THOUSANDTHS * float(cKDTree(others).query(points)[0].mean())


def read_glb(path: Path) -> TexturedMesh:
    """An exported GLB where it is in the world, for the ray caster."""
    loaded: Any = trimesh.load_mesh(path, process=False)
    vertices, faces = np.asarray(loaded.vertices) @ Y_UP.T, np.asarray(loaded.faces)
    picture = loaded.visual.material.baseColorTexture.convert("RGBA")
    count = len(faces)
    return TexturedMesh(
        vertices=vertices.astype(np.float32),
        faces=faces.astype(np.int32),
        colours=np.ones((count, 3), np.float32),
        labels=np.ones(count, np.int32),
        normals=(np.asarray(loaded.vertex_normals) @ Y_UP.T)[faces].astype(np.float32),
        names=("object",),
        tints=np.ones((count, 3, 4), np.float32),
        uv=np.asarray(loaded.visual.uv)[faces].astype(np.float32),
        material=np.zeros(count, np.int32),
        textures=(np.asarray(picture, np.float32) / 255,),
    )


def compared(mesh: TexturedMesh, seen: PosedViews, held: PosedViews) -> Figures:
    """A mesh against views, with depth, of what it should be."""
    source = points_of(seen)
    drawn = trimesh.Trimesh(mesh.vertices, mesh.faces, process=False)
    ours = thinned(np.asarray(trimesh.sample.sample_surface(drawn, DRAWN, seed=0)[0], np.float64))
    to_source, to_mesh = distance(ours, source), distance(source, ours)
    others = points_of(held)
    images = render(mesh, held.cameras, samples=4, lighting=UNLIT).over(torch.ones(1, 3))
    scores = judge(images.clamp(0, 1), held)
    return {
        "chamfer": (to_source + to_mesh) / 2,
        "to_source": to_source,
        "to_mesh": to_mesh,
        "floor": (distance(others, source) + distance(source, others)) / 2,
        "psnr": scores["test/psnr"],
        "psnr_masked": scores["test/psnr_masked"],
    }


def measured(run: Path, folder: Path, fitted: float, overrides: Sequence[str]) -> Figures:
    """Export a finished run, and look at what came of it."""
    exported = finish(folder, ["task=export", f"run={run}", "task.formats=[glb,mesh_ply]", *overrides])
    config = load_config(run)
    config.data.geometry = True
    data: Splits = build(config.data)
    assert data.test is not None
    found = compared(read_glb(folder / "export" / "mesh.glb"), whole(data.train, 1), whole(data.test, 1))
    kept = {name: exported[name] for name in ("watertight", "faces", "seconds", "peak_memory_mb")}
    return {**kept, **found, "psnr_fit": fitted}


def run_all(options: argparse.Namespace) -> None:
    found, fits = read(options.results / RESULTS), read(options.results / "fit.json")
    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = {}
        for key, figures in fits.items():
            name, _, thing = key.partition(" | ")
            chosen = name in (options.only or [name]) and thing in (options.objects or [thing])
            run = place(options.state, key)
            if thing and chosen and key not in found and (run / "metrics.json").exists():
                folder = place(options.state / "meshes", key)
                begun[pool.submit(measured, run, folder, figures["test/psnr"], options.overrides)] = key
        keep(options.results / RESULTS, begun, options.state / "meshes")


def table(results: Mapping[str, Any]) -> str:
    """Markdown: means over the objects of each kind."""
    lines = [*signed("meshes.py", results), *head(["representation", "objects", *FIGURES.values()])]
    for (name, kind), found in grouped(results).items():
        lines.append(f"| {name} | {len(found)} {kind} | {means(found, FIGURES)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = arguments(__doc__, "MESHES.md")
    parser.add_argument("--objects", type=names, help="such as toybox castle, separated by commas")
    chosen = parser.parse_args()
    if chosen.table:
        (HERE / "MESHES.md").write_text(table(read(chosen.results / RESULTS)))
    else:
        run_all(chosen)
