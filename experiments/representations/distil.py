"""Distil three prompts into every representation, with the settings that ship; a recogniser says what came of it.

    python experiments/representations/distil.py [--only gsplat,nerf] [--prompts "castle,race car"] [--jobs 2] [--state FOLDER]
    python experiments/representations/distil.py --table

Seed 0, as many runs at a time as --jobs says, on one thread each. A run that was cut goes on where it stopped, one that is
finished is kept; results/distil.json keeps the figures. --table writes DISTILLED.md and a sheet of views for every prompt,
with a row for each representation. As in `../text_to_3d/evaluate_distilled.py`, recogniser A reads 24 views of the turntable:
- right subject: the share of views that are called the prompt's subject.
- Janus: among views from behind, those that show a front (asymmetric subjects only).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from runs import HERE, Figures, arguments, finish, head, keep, means, names, place, read, signed

sys.path.insert(0, str(HERE.parent / "text_to_3d"))
RESULTS = "distil.json"
REPRESENTATIONS = ("gsplat", "nerf", "nerf_frequency", "triplane", "voxels", "voxels_factorised", "ib_planes")
PROMPTS = {"castle": "castle", "a standing corgi dog": "standing corgi dog", "race car": "race car"}
"""Prompt -> the subject that it names."""
FIGURES = {"janus": "Janus", "steps": "steps", "seconds": "seconds", "peak_memory_mb": "MB"}
SHOWN = 8


def views(folder: Path, prompt: str) -> Any:
    """24 views [24, 3, H, W] of a finished run, drawn once."""
    from common import cached
    from evaluate_distilled import distilled

    with torch.no_grad():
        return cached(folder / "turntable.npy", lambda: distilled(folder, prompt, []).pictures)


def measured(folder: Path, name: str, prompt: str, overrides: Sequence[str]) -> Figures:
    """One distillation, or what is left of it, and what the recogniser sees in it."""
    figures = finish(folder, [f"representation={name}", *overrides, f"prompt={prompt}"])
    from evaluate_distilled import right, turntable
    from pictures import SIZE
    from recogniser import load

    from diffusion3d.data.toybox.subjects import ASYMMETRIC
    from diffusion3d.metrics.azimuth import janus_share

    subject = PROMPTS[prompt]
    reading = load(folder, "a").read(views(folder, prompt))
    janus = {"janus": janus_share(reading.azimuth, turntable(SIZE).azimuth[0])} if subject in ASYMMETRIC else {}
    return {**figures, "right_subject": right(reading, subject), **janus}


def run_all(options: argparse.Namespace) -> None:
    results = read(options.results / RESULTS)
    torch.set_num_threads(1)
    with ThreadPoolExecutor(options.jobs) as pool:
        begun = {}
        for name in options.only or REPRESENTATIONS:
            for prompt in options.prompts or PROMPTS:
                key = f"{name} | {prompt}"
                if key not in results:
                    folder = place(options.state / "distilled", key)
                    begun[pool.submit(measured, folder, name, prompt, options.overrides)] = key
        keep(options.results / RESULTS, begun, options.state / "distilled")


def table(results: Mapping[str, Any]) -> str:
    """Markdown: a row for each representation, the share of right views by prompt."""
    lines = signed("distil.py", results)
    lines += head(["representation", *(f"right subject: {prompt}" for prompt in PROMPTS), *FIGURES.values()])
    for name in REPRESENTATIONS:
        own = {prompt: results[key] for prompt in PROMPTS if (key := f"{name} | {prompt}") in results}
        if own:
            shares = [f"{own[prompt]['right_subject']:.0%}" if prompt in own else "" for prompt in PROMPTS]
            told = [means([f for f in own.values() if figure in f], [figure]) for figure in FIGURES]
            lines.append(f"| {' | '.join([name, *shares, *told])} |")
    return "\n".join(lines) + "\n"


def sheets(state: Path) -> None:
    """A picture for each prompt: eight views by every representation that has finished."""
    from common import slug

    from diffusion3d.export.pictures import write_grid

    (HERE / "pictures").mkdir(exist_ok=True)
    for prompt in PROMPTS:
        folders = {name: place(state / "distilled", f"{name} | {prompt}") for name in REPRESENTATIONS}
        rows = {n: views(folder, prompt) for n, folder in folders.items() if (folder / "metrics.json").exists()}
        if rows:
            path = HERE / "pictures" / f"distilled-{slug(PROMPTS[prompt])}.png"
            write_grid(path, [row[:: len(row) // SHOWN] for row in rows.values()], [f"{n}: {prompt}" for n in rows])


if __name__ == "__main__":
    parser = arguments(__doc__, "DISTILLED.md and the pictures")
    parser.add_argument("--prompts", type=names, help="only these, separated by commas")
    chosen = parser.parse_args()
    if chosen.table:
        (HERE / "DISTILLED.md").write_text(table(read(chosen.results / RESULTS)))
        sheets(chosen.state)
    else:
        run_all(chosen)
