"""Fit every representation to posed images of toybox objects and real meshes; held-out views judge it.

    python experiments/representations/fit.py --meshes FOLDER [--only gsplat,nerf] [--state outputs/representations]
    python experiments/representations/fit.py --table

100 training and 50 test views at 128 x 128 on a sphere around the object, the settings that each representation ships with,
seed 0, one run after the other with all cores. A run that was cut goes on where it stopped, one that is finished is kept;
results/fit.json keeps the figures, --table writes FIT.md. The meshes are those of Debian's package sweethome3d-furniture
(`apt-get download sweethome3d-furniture && dpkg-deb -x *.deb .`), see README.md.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from statistics import mean
from typing import Any

import diffusion3d
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
REPRESENTATIONS = {
    "gsplat": [],
    "nerf": [],
    "nerf_frequency": [],
    "triplane": [],
    "voxels": [],
    "voxels_factorised": [],
    "ib_planes": [],
    "ib_planes_100": ["representation.sources=100", "representation.size=32", "task.steps=150"],
}
FIGURES = ("test/psnr", "test/psnr_masked", "test/ssim", "seconds", "peak_memory_mb")
TARGETS = {"gsplat": 33.0, "nerf": 28.0, "triplane": 27.0, "voxels": 27.0}


def objects(meshes: str | None) -> dict[str, list[str]]:
    """{name: overrides that choose its data}."""
    found = {f"toybox {name}": ["data=toybox_scenes", f"data.subject='{name}'"] for name in SUBJECTS}
    if meshes is not None:
        for name, library in MESHES.items():
            root = f"data.root={meshes}/{library}.sh3f"
            found[f"mesh {name}"] = ["data=meshes", root, f"data.select='{name}'", "data.scenes=1"]
    return found


def run(options: argparse.Namespace) -> None:
    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only or REPRESENTATIONS:
        typed = [f"representation={name.removesuffix('_100')}", *REPRESENTATIONS[name]]
        for thing, data in objects(options.meshes).items():
            key = f"{name} | {thing}"
            if key in results:
                continue
            folder = options.state / key.replace(" | ", "_").replace(" ", "_")
            if (folder / "checkpoints").exists():
                metrics = diffusion3d.run([f"run.resume={folder}"])
            else:
                metrics = diffusion3d.run(["task=fit", "logger=none", *typed, *data, f"hydra.run.dir={folder}"])
            record = json.loads((folder / "metrics.json").read_text())
            results[key] = {k: v for k, v in {**record, **metrics}.items() if isinstance(v, int | float)}
            RESULTS.parent.mkdir(exist_ok=True)
            write_json(RESULTS, {**results, "versions": versions()})


def table() -> str:
    """Markdown: means over the objects of each kind, and every object's PSNR."""
    results = json.loads(RESULTS.read_text())
    groups: dict[tuple[str, str], list[dict[str, float]]] = defaultdict(list)
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for key, figures in results.items():
        if " | " in key:
            name, thing = key.split(" | ")
            groups[name, thing.split()[0]].append(figures)
            rows[thing][name] = figures["test/psnr"]
    lines = [
        "| representation | objects | PSNR | worst | target | masked PSNR | SSIM | seconds | MB |",
        "|" + "---|" * 9,
    ]
    for (name, kind), found in sorted(groups.items()):
        means = [mean(figures[figure] for figures in found) for figure in FIGURES if all(figure in f for f in found)]
        worst = min(figures["test/psnr"] for figures in found)
        target = TARGETS.get(name, "-")
        psnr, *others = means
        lines.append(
            f"| {name} | {len(found)} {kind} | {psnr:.2f} | {worst:.2f} | {target} | {others[0]:.2f} | {others[1]:.4f} | "
            f"{others[2]:.0f} | {others[3] if len(others) > 3 else 0:.0f} |"
        )
    any_of = next(iter(groups.values()))
    for guess in ("mean_image", "nearest_view"):
        every = [figures[f"test/psnr_{guess}"] for found in groups.values() for figures in found]
        lines.append(f"| guess: {guess.replace('_', ' ')} | | {mean(every):.2f} | {min(every):.2f} | | | | | |")
    assert any_of
    names = sorted({name for found in rows.values() for name in found})
    lines += ["", "| object | " + " | ".join(names) + " |", "|" + "---|" * (len(names) + 1)]
    for thing, found in sorted(rows.items()):
        lines.append(f"| {thing} | " + " | ".join(f"{found[n]:.2f}" if n in found else "" for n in names) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--meshes", help="the folder with the .sh3f libraries; without it toybox alone")
    parser.add_argument("--only", type=lambda text: text.split(","), help="representations, separated by commas")
    parser.add_argument("--state", type=Path, default=Path("outputs/representations"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="write FIT.md from the results")
    chosen = parser.parse_args()
    if chosen.table:
        (HERE / "FIT.md").write_text(table())
    else:
        run(chosen)
