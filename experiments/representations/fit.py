"""Fit every representation to posed images of toybox objects and real meshes; held-out views judge it.

    python experiments/representations/fit.py --meshes FOLDER [--only gsplat,nerf] [--objects "toybox castle"] [--jobs 2]
    python experiments/representations/fit.py --table

100 training and 50 test views at 128 x 128 on a sphere around the object, the settings that each representation ships with
(but for what is said below), seed 0, as many runs at a time as --jobs says, on one thread each. A run that was cut goes on
where it stopped, one that is finished is kept; results/fit.json keeps the figures, --table writes FIT.md. The meshes are from
Debian's package sweethome3d-furniture (`apt-get download sweethome3d-furniture && dpkg-deb -x *.deb .`), see README.md.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from diffusion3d.tasks.facts import versions, write_json

HERE = Path(__file__).parent
RESULTS = HERE / "results" / "fit.json"
SUBJECTS = ("castle", "standing corgi dog", "race car", "chair", "airplane", "robot", "tree", "mushroom")
MESHES = {
    "cartoon_biplane": "BlendSwap-CC-0",
    "horse2": "BlendSwap-CC-0",
    "hotDog": "BlendSwap-CC-0",
    "umbrella": "BlendSwap-CC-0",
    "stoneLantern": "BlendSwap-CC-0",
    "deckChair": "BlendSwap-CC-0",
    "bread": "BlendSwap-CC-0",
    "VW new beetle": "KatorLegaz",
}
"""Name of a model -> its library."""
FEWER = ["representation.renderer.samples=32", "data.test_views=10"]
"""For image-based planes, which skip no empty space: fewer samples of a ray, and fewer test views."""
REPRESENTATIONS = {
    "gsplat": ["task.steps=1200"],
    "nerf": ["task.steps=500"],
    "nerf_frequency": ["task.steps=300"],
    "triplane": ["task.steps=400"],
    "voxels": ["task.steps=450"],
    "voxels_factorised": ["task.steps=400"],
    "ib_planes": [*FEWER, "task.steps=200"],
    "ib_planes_100": [
        *FEWER,
        "representation.sources=100",
        "representation.size=32",
        "task.pixels=32",
        "task.steps=40",
    ],
}
"""Name -> overrides; lengths of a minute or two of one core."""
QUIET = ["logger=none", "task.video_size=64", "task.preview_every=100000", "camera.turntable_frames=24"]
FIGURES = {
    "test/psnr": "PSNR",
    "test/psnr_masked": "masked PSNR",
    "test/ssim": "SSIM",
    "test/st_lpips": "ST-LPIPS",
    "parameters": "numbers",
    "seconds": "seconds",
    "peak_memory_mb": "MB",
}
TARGETS = {"gsplat": 33.0, "nerf": 28.0, "triplane": 27.0, "voxels": 27.0}


def objects(meshes: str | None) -> dict[str, list[str]]:
    """{name: overrides that choose its data}."""
    found = {f"toybox {name}": ["data=toybox_scenes", f"data.subject='{name}'"] for name in SUBJECTS}
    if meshes is not None:
        for name, library in MESHES.items():
            root = f"data.root={meshes}/{library}.sh3f"
            found[f"mesh {name}"] = ["data=meshes", root, f"data.select='{name}'", "data.scenes=1"]
    return found


def run(folder: Path, typed: list[str]) -> dict[str, float]:
    """One fit, or what is left of it, and its figures."""
    if not (folder / "metrics.json").exists():
        cut = (folder / "checkpoints").exists()
        typed = [f"run.resume={folder}"] if cut else ["task=fit", *typed, *QUIET, f"hydra.run.dir={folder}"]
        one = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run([sys.executable, "-m", "diffusion3d.run", *typed], env=os.environ | one, check=True)
    record = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def run_all(options: argparse.Namespace) -> None:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = {}
        for name in options.only or REPRESENTATIONS:
            typed = [f"representation={name.removesuffix('_100')}", *REPRESENTATIONS[name]]
            for thing, data in objects(options.meshes).items():
                key = f"{name} | {thing}"
                if key not in results and thing in (options.objects or [thing]):
                    folder = options.state / key.replace(" | ", "_").replace(" ", "_")
                    begun[pool.submit(run, folder, [*typed, *data])] = key
        RESULTS.parent.mkdir(exist_ok=True)
        for done in as_completed(begun):
            results[begun[done]] = done.result()
            write_json(RESULTS, {**results, "versions": versions()})


def means(found: list[dict[str, float]], suffix: str = "") -> str:
    """The cells of a row; empty where a figure is not there."""
    keys = [f"{figure}{suffix}" for figure in FIGURES]
    return " | ".join(f"{mean(f[key] for f in found):.4g}" if all(key in f for f in found) else "" for key in keys)


def table() -> str:
    """Markdown: means over the objects of each kind, two guesses beside them, and every object's PSNR."""
    results = json.loads(RESULTS.read_text())
    groups: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for key, figures in results.items():
        if " | " in key:
            name, thing = key.split(" | ")
            groups[name, thing.split()[0]].append(figures)
            rows[thing][name] = figures["test/psnr"]
    lines = [f"| representation | objects | worst PSNR | target | {' | '.join(FIGURES.values())} |"]
    lines.append("|" + "---|" * (4 + len(FIGURES)))
    for (name, kind), found in sorted(groups.items()):
        worst = min(figures["test/psnr"] for figures in found)
        lines.append(f"| {name} | {len(found)} {kind} | {worst:.2f} | {TARGETS.get(name, '')} | {means(found)} |")
    every = [figures for found in groups.values() for figures in found]
    for guess in ("mean_image", "nearest_view"):
        worst = min(figures[f"test/psnr_{guess}"] for figures in every)
        lines.append(f"| guess: {guess.replace('_', ' ')} | all | {worst:.2f} | | {means(every, f'_{guess}')} |")
    names = sorted({name for found in rows.values() for name in found})
    lines += ["", "| object | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for thing, found in sorted(rows.items()):
        lines.append(f"| {thing} | " + " | ".join(f"{found[n]:.2f}" if n in found else "" for n in names) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", help="the folder with the .sh3f libraries; without it toybox alone")
    parser.add_argument("--only", type=lambda text: text.split(","), help="representations, separated by commas")
    parser.add_argument(
        "--objects", type=lambda text: text.split(","), help="such as toybox castle, separated by commas"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, on one thread each")
    parser.add_argument("--state", type=Path, default=Path("outputs/representations"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="write FIT.md from the results")
    chosen = parser.parse_args()
    if chosen.table:
        (HERE / "FIT.md").write_text(table())
    else:
        run_all(chosen)
