"""A sweep of 16 jobs, one of them poisoned, killed twice and repeated: what was done how often.

    python experiments/reliability/sweep.py [--steps 20] [--out outputs/reliability] [OVERRIDE ...]

The jobs distil with the shipped prior at sixteen guidance scales, one of which is infinite. The sweep's processes are killed
(SIGKILL) when 4 and when 10 jobs are done and the one after has a checkpoint; the same command is repeated until it ends by
itself, and once more. Jobs that were cut are then run by themselves, undisturbed, and their last checkpoints compared. Figures
go to sweep.json.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from circumstances import circumstances, threads_of

HERE = Path(__file__).parent
SCALES = [*(f"{scale}.0" for scale in range(2, 8)), "inf", *(f"{scale}.0" for scale in range(8, 17))]
KILL_AT = (4, 10)
"""Jobs done before a kill."""


def command(sweep: Path, steps: int, scales: list[str], extra: list[str]) -> list[str]:
    small = ["representation.count=500", "camera.turntable_frames=4", "task.video_size=32", "logger=none"]
    plan = [
        f"task.steps={steps}",
        "task.checkpoint_every=4",
        "prompt=castle",
        f"hydra.sweep.dir={sweep}",
        *small,
        *extra,
    ]
    return [sys.executable, "-m", "diffusion3d.run", "-m", f"guidance.scale={','.join(scales)}", *plan]


def table(sweep: Path) -> list[dict[str, str]]:
    try:
        with (sweep / "sweep.csv").open(newline="") as file:
            return list(csv.DictReader(file))
    except FileNotFoundError:
        return []


def attempt(arguments: list[str], sweep: Path, kill_at: int | None) -> dict[str, Any]:
    """Run the command; kill it once so many jobs are done and another one is past a checkpoint."""
    begin = time.monotonic()
    with (sweep.parent / "log.txt").open("a") as log:
        process = subprocess.Popen(
            arguments, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True, env=os.environ
        )
        while process.poll() is None:
            time.sleep(0.05)
            rows = table(sweep) if kill_at is not None else []
            begun = [row["job"] for row in rows if row["status"] == "cut"]
            if sum(row["status"] == "done" for row in rows) >= (kill_at or 99) and any(
                list((sweep / job / "checkpoints").glob("step_*")) for job in begun
            ):
                os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    count = {status: sum(row["status"] == status for row in table(sweep)) for status in ("done", "failed", "cut")}
    return {"exit code": process.returncode, "seconds": round(time.monotonic() - begin, 1), **count}


def history(job: Path) -> dict[str, Any]:
    """How often a job was begun, resumed and finished, and whether each of its steps is in metrics.csv once."""
    log = (job / "run.log").read_text()
    metrics = job / "metrics.csv"
    rows = metrics.read_text().splitlines()[1:] if metrics.exists() else []
    steps = [row.split(",")[0] for row in rows]
    return {
        "begun": log.count(": writing to "),
        "resumed": log.count(": continuing at step "),
        "finished": log.count(": outputs in "),
        "steps": len(steps),
        "each once": steps == [str(step) for step in range(len(steps))],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--out", type=Path, default=Path("outputs/reliability"))
    parser.add_argument("overrides", nargs="*")
    given = parser.parse_args()
    out = given.out.resolve()
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    sweep = out / "sweep"
    arguments = command(sweep, given.steps, SCALES, given.overrides)
    attempts = [attempt(arguments, sweep, kill_at) for kill_at in (*KILL_AT, None)]
    before = {path: path.stat().st_mtime_ns for path in sweep.glob("*/metrics.json")}
    attempts.append(attempt(arguments, sweep, None))
    untouched = before == {path: path.stat().st_mtime_ns for path in sweep.glob("*/metrics.json")}

    rows = table(sweep)
    histories = {row["job"]: history(sweep / row["job"]) for row in rows}
    done = {row["job"]: row["guidance.scale"] for row in rows if row["status"] == "done"}
    cut = [job for job in done if histories[job]["begun"] > 1]
    whole = out / "whole"
    if cut:
        attempt(command(whole, given.steps, [done[job] for job in cut] + ["1.5"], given.overrides), whole, None)
    last = f"checkpoints/step_{given.steps:08d}.safetensors"
    report = {
        **circumstances(threads_of(sweep / job) for job in done),
        "attempts": attempts,
        "finished once": sum(histories[job]["finished"] == 1 for job in done),
        "finished more than once": sum(histories[job]["finished"] > 1 for job in done),
        "finished jobs begun again": sum(histories[job]["begun"] > histories[job]["resumed"] + 1 for job in done),
        "whole, each step once": sum(
            histories[job]["steps"] == given.steps and histories[job]["each once"] for job in done
        ),
        "reported": [f"{row['job']}: {row['error']}" for row in rows if row["status"] == "failed"],
        "times a failed job was tried": [found["begun"] for job, found in histories.items() if job not in done],
        "cut and resumed": len(cut),
        "of these bit-identical to undisturbed": sum(
            (sweep / job / last).read_bytes() == (whole / job / last).read_bytes() for job in cut
        ),
        "the last repetition touched no finished job": untouched,
    }
    print(json.dumps(report, indent=2))
    (HERE / "sweep.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
