"""Time the main job as users start it: process start to last file, and what happens in between.

    python experiments/text_to_3d/main_job.py [--repeat 3] [--prompt "castle on a hill"] [prior.weights=FILE ...]

Every repeat is a process of its own with the shipped defaults and all cores. Inside it, clocks are put around the loop, the
prior's `denoise`, the scene's `render` and the rasteriser's backward calls; what the loop spends elsewhere (text encoder,
activations, losses, optimiser, previews' files, checkpoints) is "outside".
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any


def child(report: Path, overrides: list[str]) -> None:
    """Run the job in this process, with clocks."""
    from diffusion3d.priors.ddpm import DDPM
    from diffusion3d.rendering import kernel
    from diffusion3d.representations.gsplat import SplatScene
    from diffusion3d.run import run
    from diffusion3d.tasks import distill

    spent: dict[str, float] = defaultdict(float)
    marks: dict[str, float] = {}

    def clocked(function: Callable[..., Any], name: Callable[..., str | None]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments, **named)
            finally:
                key = name(*arguments)
                if key is not None and "last step" not in marks:
                    spent[key] += time.perf_counter() - begin

        return timed

    def loop(files: Any, losses: Callable[[int], Any], update: Callable[[int], Any], **options: Any) -> int:
        def first(index: int) -> Any:
            marks.setdefault("first step", time.time())
            return losses(index)

        done = original(files, first, update, **options)
        marks["last step"] = time.time()
        return done

    original = distill.loop
    distill.loop = loop
    DDPM.denoise = clocked(DDPM.denoise, lambda *_: "prior")
    SplatScene.render = clocked(SplatScene.render, lambda *_: "renderer")
    kernel.call = clocked(kernel.call, lambda name, *_: "renderer" if name.endswith("_backward") else None)
    metrics = run(overrides)
    report.write_text(json.dumps({**marks, "spent": spent, "metrics": metrics}))


def once(folder: Path, prompt: str, overrides: list[str]) -> dict[str, float]:
    """One job in a fresh process; seconds and MB."""
    report = folder / "report.json"
    job = ["logger=none", f"hydra.run.dir={folder / 'run'}", *overrides, f"prompt={prompt}"]
    begin = time.time()
    process = subprocess.Popen([sys.executable, __file__, "--child", str(report), *job])
    _, status, usage = os.wait4(process.pid, 0)
    end = time.time()
    if status != 0:
        raise SystemExit(f"the job failed with status {status}")
    found = json.loads(report.read_text())
    last_file = max(path.stat().st_mtime for path in (folder / "run").rglob("*") if path.is_file())
    inside = found["last step"] - found["first step"]
    prior, renderer = found["spent"]["prior"], found["spent"]["renderer"]
    return {
        "start_to_last_file": last_file - begin,
        "start_to_exit": end - begin,
        "start_to_first_step": found["first step"] - begin,
        "after_last_step": last_file - found["last step"],
        "loop": inside,
        "prior": prior,
        "renderer": renderer,
        "outside_share": 1 - (prior + renderer) / inside,
        "peak_memory_mb": usage.ru_maxrss / 1024,
        "steps": found["metrics"]["steps"],
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
        return
    from common import RESULTS, machine, run_key, write_result

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--prompt", default="castle on a hill")
    parser.add_argument("--results", type=Path, default=RESULTS)
    given = parser.parse_args()
    jobs = []
    for _ in range(given.repeat):
        with tempfile.TemporaryDirectory() as folder:
            jobs.append(once(Path(folder), given.prompt, given.overrides))
        print({name: round(value, 2) for name, value in jobs[-1].items()}, flush=True)
    medians = {name: statistics.median(job[name] for job in jobs) for name in jobs[0]}
    load = dict(zip(("1", "5", "15"), os.getloadavg(), strict=True))
    facts = {
        "key": run_key(given.overrides),
        "overrides": given.overrides,
        "prompt": given.prompt,
        "load_average_after": load,
        **machine(),
    }
    write_result(given.results, "main_job", {"median": medians, "jobs": jobs, **facts})
    print("median of", len(jobs), {name: round(value, 2) for name, value in medians.items()})


if __name__ == "__main__":
    main()
