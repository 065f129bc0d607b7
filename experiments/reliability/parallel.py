"""A sweep with two jobs at a time, of one thread each, against one job at a time with two threads: wall-clock time.

    python experiments/reliability/parallel.py [--jobs 6] [--steps 60] [--rounds 3] [--out outputs/parallel]

The jobs distil with the shipped prior. The two ways take turns, so that a machine that slows down slows both; the figure is the
ratio of their medians. Figures of three rounds or more go to parallel.json. Wants a machine with two cores, both idle.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

from circumstances import circumstances, threads_of

HERE = Path(__file__).parent
WAYS = {
    "one at a time": ["hydra/launcher=basic"],
    "two at a time": ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2"],
}
THREADS = {"one at a time": 2, "two at a time": 1}


def seconds(way: str, jobs: int, steps: int, out: Path) -> float:
    shutil.rmtree(out, ignore_errors=True)
    seeds = ",".join(map(str, range(jobs)))
    typed = ["prompt=castle", f"seed={seeds}", f"task.steps={steps}", "logger=none", f"hydra.sweep.dir={out}"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OMP_")}
    begin = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "diffusion3d.run", "-m", *typed, *WAYS[way]],
        check=True,
        capture_output=True,
        env=environment,
    )
    taken = time.monotonic() - begin
    threads = [threads_of(path.parent) for path in out.glob("*/metrics.json")]
    assert threads == [THREADS[way]] * jobs, (
        f"{way}: {jobs} jobs of {THREADS[way]} threads were asked for, not {threads}"
    )
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("outputs/parallel"))
    given = parser.parse_args()
    taken: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(given.rounds):
        for way, found in taken.items():
            found.append(round(seconds(way, given.jobs, given.steps, given.out.resolve()), 1))
    medians = [statistics.median(found) for found in taken.values()]
    report = {
        **circumstances(THREADS.values()),
        "threads of a job": THREADS,
        "jobs": given.jobs,
        "steps": given.steps,
        **taken,
        "speed-up": round(medians[0] / medians[1], 3),
    }
    print(json.dumps(report, indent=2))
    if given.rounds >= 3:
        (HERE / "parallel.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
