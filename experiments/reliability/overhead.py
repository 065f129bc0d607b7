"""What logging and checkpoints cost the main job: runs with and without them, in turns.

    python experiments/reliability/overhead.py [--rounds 5] [--prompt "castle on a hill"] [OVERRIDE ...]

Every run is a process of its own with the shipped defaults, first with one thread, then with one for each core. With:
metrics.csv, the default logger (W&B, offline) and the default checkpoints. Without: steps, previews, videos and exports alike,
but no logger, and nothing logged or saved. The figures are medians of the rounds' ratios, of wall-clock time, process start to
exit, and of CPU time (W&B's own process included); and beside them the time that the main thread of a run spends inside logging
and checkpoints, as a share of that run's. They go to overhead.json. Wants a quiet machine.
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
from collections.abc import Callable
from pathlib import Path
from typing import Any

from circumstances import circumstances, threads_of

HERE = Path(__file__).resolve().parent
WAYS = {"with": "logger=wandb", "without": "logger=none"}
TOLD = ("log", "image", "video", "artifact", "save")
"""What a task tells its run."""


def child(way: str, report: Path, overrides: list[str]) -> None:
    """Run the job in this process, with clocks around logging and checkpoints or without both."""
    from diffusion3d.loggers.background import Loggers
    from diffusion3d.run import run
    from diffusion3d.tasks.run_dir import Run

    spent = dict.fromkeys((*TOLD, "start", "finish"), 0.0)

    def clocked(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any) -> Any:
            begin = time.perf_counter()
            try:
                return function(*arguments)
            finally:
                spent[name] += time.perf_counter() - begin

        return timed

    def nothing(*arguments: Any) -> None: ...

    for name in TOLD:
        setattr(Run, name, clocked(name, getattr(Run, name)) if way == "with" else nothing)
    Run.start_loggers = clocked("start", Run.start_loggers)
    Loggers.finish = clocked("finish", Loggers.finish)
    metrics = run(overrides)
    report.write_text(json.dumps({"spent": spent, "steps": metrics["steps"]}))


def once(way: str, threads: int, prompt: str, overrides: list[str]) -> dict[str, Any]:
    """One job in a fresh process; seconds."""
    with tempfile.TemporaryDirectory() as folder:
        report, run = Path(folder) / "report.json", Path(folder) / "run"
        job = [WAYS[way], f"hydra.run.dir={run}", *overrides, f"prompt={prompt}"]
        begin, before = time.monotonic(), os.times()
        subprocess.run(
            [sys.executable, __file__, "--child", way, str(report), *job],
            check=True,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "WANDB_MODE": "offline", "OMP_NUM_THREADS": str(threads)},
        )
        seconds, after = time.monotonic() - begin, os.times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        found = json.loads(report.read_text())
        written = [len(list(run.glob(pattern))) > 0 for pattern in ("checkpoints/*.safetensors", "wandb/offline-run-*")]
        assert written == [way == "with"] * 2, f"{way} logging and checkpoints, these were written: {written}"
        assert threads_of(run) == threads
    return {
        "seconds": round(seconds, 2),
        "cpu seconds": round(cpu, 2),
        "steps": found["steps"],
        "inside, seconds": {name: round(value, 3) for name, value in found["spent"].items()},
    }


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2], Path(sys.argv[3]), sys.argv[4:])
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="such as task.steps=20 for a quick look: figures are only printed")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", default="castle on a hill")
    given = parser.parse_args()
    counts = sorted({1, os.cpu_count() or 1})
    report = {**circumstances(counts), "prompt": given.prompt, "overrides": given.overrides}
    for threads in counts:
        taken: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
        for number in range(given.rounds):
            for way in [*WAYS][:: 1 if number % 2 == 0 else -1]:  # neither is always the first of a round
                taken[way].append(once(way, threads, given.prompt, given.overrides))
                print(way, threads, taken[way][-1], flush=True)
        inside = [sum(job["inside, seconds"].values()) / job["seconds"] for job in taken["with"]]
        report[f"threads: {threads}"] = {
            "wall-clock overhead": overhead(taken, "seconds"),
            "CPU time overhead": overhead(taken, "cpu seconds"),
            "share of the main thread's time inside": round(statistics.median(inside), 4),
            "load average after": os.getloadavg()[0],
            **taken,
        }
    print(json.dumps(report, indent=2))
    if not given.overrides:
        (HERE / "overhead.json").write_text(json.dumps(report, indent=2) + "\n")


def overhead(taken: dict[str, list[dict[str, Any]]], figure: str) -> float:
    pairs = zip(*(taken[way] for way in WAYS), strict=True)
    return round(statistics.median(more[figure] / less[figure] for more, less in pairs) - 1, 4)


if __name__ == "__main__":
    main()
