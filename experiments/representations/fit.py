"""Fit every representation to posed images of toybox objects and real meshes; held-out views judge it.

    python experiments/representations/fit.py --meshes FOLDER [--only gsplat,nerf] [--objects "toybox castle"] [--jobs 2]
    python experiments/representations/fit.py --table

100 training and 50 test views at 128 x 128 on a sphere around the object, the settings that each representation ships with
(but for what is said below), seed 0, as many runs at a time as --jobs says, on one thread each. A run that was cut goes on
where it stopped, one that is finished is kept; results/fit.json keeps the figures, and what is in it is not run again
(--results names another folder); --table writes FIT.md. The meshes are from Debian's package sweethome3d-furniture
(`apt-get download sweethome3d-furniture && dpkg-deb -x *.deb .`), see README.md.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from runs import HERE, arguments, finish, grouped, head, keep, means, names, place, read, signed

RESULTS = "fit.json"
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
    "gsplat": ["task.steps=2500"],
    "nerf": ["task.steps=500"],
    "nerf_frequency": ["task.steps=300"],
    "triplane": ["task.steps=600"],
    "voxels": ["task.steps=700"],
    "voxels_factorised": ["task.steps=400"],
    "ib_planes": ["task.steps=200", "data.test_views=10"],
    "ib_planes_100": [
        "task.steps=150",
        "representation.occupancy.warmup=16",
        "data.test_views=10",
        "representation.sources=100",
        "representation.size=32",
        "task.pixels=32",
    ],
}
"""Name -> overrides; lengths of a minute or two of one core."""
QUIET = ["task.video_size=64", "task.preview_every=100000", "camera.turntable_frames=24"]
FIGURES = {
    "test/psnr": "PSNR",
    "test/psnr_masked": "masked PSNR",
    "test/ssim": "SSIM",
    "test/st_lpips": "ST-LPIPS",
    "parameters": "parameters",
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


def run_all(options: argparse.Namespace) -> None:
    found = read(options.results / RESULTS)
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = {}
        for name in options.only or REPRESENTATIONS:
            typed = ["task=fit", f"representation={name.removesuffix('_100')}", *REPRESENTATIONS[name], *QUIET]
            for thing, data in objects(options.meshes).items():
                key = f"{name} | {thing}"
                if key not in found and thing in (options.objects or [thing]):
                    begun[pool.submit(finish, place(options.state, key), [*typed, *data, *options.overrides])] = key
        keep(options.results / RESULTS, begun, options.state)


def table(results: Mapping[str, Any]) -> str:
    """Markdown: means over the objects of each kind, two guesses beside them, and every object's PSNR."""
    groups = grouped(results)
    lines = signed("fit.py", results)
    lines += head(["representation", "objects", "target of PSNR", *FIGURES.values(), "worst PSNR"])
    for (name, kind), found in groups.items():
        worst = min(figures["test/psnr"] for figures in found)
        target = TARGETS.get(name, "")
        lines.append(f"| {name} | {len(found)} {kind} | {target} | {means(found, FIGURES)} | {worst:.2f} |")
    every = [figures for found in groups.values() for figures in found]
    for guess in ("mean_image", "nearest_view"):
        worst = min(figures[f"test/psnr_{guess}"] for figures in every)
        cells = means(every, [f"{figure}_{guess}" for figure in FIGURES])
        lines.append(f"| guess: {guess.replace('_', ' ')} | all | | {cells} | {worst:.2f} |")
    rows: dict[str, dict[str, float]] = defaultdict(dict)
    for key, figures in results.items():
        if " | " in key:
            name, thing = key.split(" | ")
            rows[thing][name] = figures["test/psnr"]
    shown = sorted({name for found in rows.values() for name in found})
    lines += ["", *head(["object", *shown])]
    for thing, by_name in sorted(rows.items()):
        lines.append(f"| {thing} | " + " | ".join(f"{by_name[n]:.2f}" if n in by_name else "" for n in shown) + " |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    parser = arguments(__doc__, "FIT.md")
    parser.add_argument("--meshes", help="the folder with the .sh3f libraries; without it toybox alone")
    parser.add_argument("--objects", type=names, help="such as toybox castle, separated by commas")
    chosen = parser.parse_args()
    if chosen.table:
        (HERE / "FIT.md").write_text(table(read(chosen.results / RESULTS)))
    else:
        run_all(chosen)
