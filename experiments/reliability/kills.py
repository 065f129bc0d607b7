"""Runs killed with SIGKILL at random moments, resumed, and compared bit for bit with runs that nobody disturbed.

    python experiments/reliability/kills.py [--kills 50] [--in-writes 12] [--seed 0] [--minutes M] [--out outputs/kills]

Distillations, fits and trainings of some hundred steps with the networks that ship: one of each kind is left alone, the others
are killed three or four times each and resumed until they end by themselves, so that 50 kills give 16 ends to compare; 50 ends
take --kills 150. The kills of a run, in this order:

- some while a checkpoint is being written: the process then writes its checkpoints in pieces, with pauses between, and is
  killed when some, not all, of the bytes are on disk;
- some after a random share of the time that an undisturbed run took for the steps that are left;
- the last one after its last checkpoint, while it exports, makes videos, writes metrics.json or ends: after a share of the time
  that this took undisturbed. The shares of a kind's runs are spread over all of it.

A run that ends before one of its kills is begun anew, with earlier ones.

Compared are the last checkpoint, the exported scene or weights, videos and pictures, metrics.csv and metrics.json, both without
times and memory. What is done is kept in OUT; the same command goes on there, unless the package's code or configuration has
changed since: then it begins anew. When all is done, figures go to kills.json. Wants a quiet machine.
"""

from __future__ import annotations

import argparse
import csv
import ctypes
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from circumstances import circumstances, code_hash, threads_of

HERE = Path(__file__).resolve().parent
SMALL = ["camera.views=1", "camera.size=32", "camera.turntable_frames=4", "task.video_size=64"]
KINDS = {
    "distill": ["task=distill", "prompt=castle", "representation.count=500", *SMALL],
    "fit": [
        "task=fit",
        "prompt=",
        "representation.count=500",
        "data=toybox_scenes",
        "data.subject=castle",
        "data.train_views=24",
        "data.test_views=4",
        "data.size=64",
        *SMALL,
    ],
    "train": [
        "task=train",
        "task.batches=[{scenes: 2, views: 2, share: 0.5}, {scenes: 4, views: 1, share: 0.5}]",
        "task.validation_batches=1",
        "task.preview_prompts=[castle]",
        "task.warmup=20",
    ],
}
STEPS = {"distill": 300, "fit": 1500, "train": 300}
"""Each is a minute or two of one core."""
SLOWED = """
import sys, time
from pathlib import Path
from safetensors.torch import save
from diffusion3d.tasks import checkpoint

def save_slowly(tensors, path, metadata):
    content = save(tensors, metadata)
    with Path(path).open("wb") as file:
        for start in range(0, len(content), len(content) // 20 + 1):
            file.write(content[start : start + len(content) // 20 + 1])
            file.flush()
            time.sleep(0.05)

checkpoint.save_file = save_slowly
from diffusion3d.run import main
sys.exit(main())
"""
INCIDENTAL = ("seconds", "peak_memory_mb")
PATIENCE = 3600.0
RESULTS = ("export/*", "videos/*", "*.png", "metrics.json")
SOONER = 0.9
"""What the time until a kill is multiplied by after each end that came before it."""


def command(kind: str, directory: Path, data: Path, slowed: bool) -> list[str]:
    """What begins a run, or goes on with it."""
    program = ["-c", SLOWED] if slowed else ["-m", "diffusion3d.run"]
    begun = (directory / "overrides.yaml").exists()
    if not begun:
        shutil.rmtree(directory, ignore_errors=True)
    fresh = [
        *KINDS[kind],
        f"task.steps={STEPS[kind]}",
        f"task.checkpoint_every={STEPS[kind] // 12}",
        f"task.preview_every={STEPS[kind] // 3}",
        "logger=none",
        f"paths.data={data}",
        f"hydra.run.dir={directory}",
    ]
    return [sys.executable, *program, *([f"run.resume={directory}"] if begun else fresh)]


def start(arguments: list[str], directory: Path) -> subprocess.Popen[bytes]:
    with directory.with_suffix(".log").open("a") as log:
        return subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"},
            preexec_fn=end_with_this_process,
        )


def end_with_this_process() -> None:
    """So that no run goes on alone when this script is killed (Linux)."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def newest(directory: Path) -> int:
    """Step of the newest checkpoint."""
    return max((int(path.stem[5:]) for path in (directory / "checkpoints").glob("step_*.safetensors")), default=0)


def torn(directory: Path, since: int = 0) -> list[int]:
    """Bytes of checkpoints that are being written, or were when a process was killed.

    Args:
        since: nanoseconds; older ones are left out.
    """
    sizes = []
    for path in (directory / "checkpoints").glob(".step_*.tmp.safetensors"):
        try:
            facts = path.stat()
        except FileNotFoundError:
            continue
        if facts.st_mtime_ns >= since:
            sizes.append(facts.st_size)
    return sizes


def newest_result(directory: Path, since: int) -> str | None:
    """What was last written, whole or not, of the results of a run, None where nothing was since then (nanoseconds)."""
    found = {}
    for path in (path for kind in RESULTS for path in directory.glob(kind)):
        written = path.stat().st_mtime_ns
        if written >= since:
            found[written] = str(path.relative_to(directory))
    return found[max(found)] if found else None


def has_begun(directory: Path, since: int) -> bool:
    """Whether a process that was started then has opened the run directory."""
    log = directory / "run.log"
    return log.exists() and log.stat().st_mtime_ns >= since


def kill_once(
    kind: str, directory: Path, data: Path, wish: dict[str, Any], undisturbed: dict[str, float]
) -> dict[str, Any]:
    """Start or go on with a run and kill it; what was hit.

    Args:
        wish: {"when": "left", "share": of the time for the steps that are left}, {"when": "end", "share": of the time after the
            last checkpoint} or {"when": "write", "write": which one, "share": of its bytes}.
        undisturbed: "seconds" of a whole run from when it opens its directory, and "end seconds", see `finish`.
    """
    slowed, ending = wish["when"] == "write", wish["when"] == "end"
    before = newest(directory)
    left = 1 - before / STEPS[kind]
    arguments, since = command(kind, directory, data, slowed), time.time_ns()
    process = start(arguments, directory)
    begin, writes, writing = time.monotonic(), 0, False
    while process.poll() is None and not has_begun(directory, since):
        time.sleep(0.01)
    opened = time.monotonic()
    counted = None if ending else opened
    wait = wish["share"] * (undisturbed["end seconds"] if ending else left * undisturbed["seconds"])
    whole = max((path.stat().st_size for path in directory.glob("checkpoints/step_*")), default=0)
    while process.poll() is None and time.monotonic() - begin < PATIENCE:
        time.sleep(0.002)
        now = torn(directory, since)
        writes += bool(now) and not writing
        writing = bool(now)
        if counted is None and newest(directory) == STEPS[kind]:
            counted = time.monotonic()
        late = counted is not None and time.monotonic() - counted > wait
        if (writes >= wish["write"] and any(size > wish["share"] * whole for size in now)) if slowed else late:
            process.send_signal(signal.SIGKILL)
            break
    if process.wait() not in (0, -signal.SIGKILL):
        raise SystemExit(f"{directory} ended with exit code {process.returncode}: see {directory.with_suffix('.log')}")
    return {
        "killed": process.returncode == -signal.SIGKILL,
        "when": wish["when"],
        "newest result": newest_result(directory, since),
        "torn bytes left": sum(torn(directory, since)),
        "checkpoint before": before,
        "checkpoint after": newest(directory),
        "seconds": round(time.monotonic() - begin, 1),
        "of these before it opened its directory": round(opened - begin, 1),
    }


def finish(kind: str, directory: Path, data: Path) -> float:
    """Let a run go on to its end; seconds from its last checkpoint to the end of the process."""
    process, last = start(command(kind, directory, data, slowed=False), directory), None
    while process.poll() is None:
        time.sleep(0.01)
        if last is None and newest(directory) == STEPS[kind]:
            last = time.monotonic()
    if process.returncode != 0 or last is None:
        raise SystemExit(f"{directory} ended with exit code {process.returncode}: see {directory.with_suffix('.log')}")
    return round(time.monotonic() - last, 3)


def figures(directory: Path) -> list[dict[str, str]]:
    with (directory / "metrics.csv").open(newline="") as file:
        return [{name: value for name, value in row.items() if name not in INCIDENTAL} for row in csv.DictReader(file)]


def final(directory: Path) -> dict[str, float]:
    found = json.loads((directory / "metrics.json").read_text())
    return {name: value for name, value in found.items() if name not in INCIDENTAL}


def compare(kind: str, one: Path, whole: Path) -> dict[str, bool]:
    """What of two runs is the same."""
    import torch

    from diffusion3d.tasks.checkpoint import read_checkpoint

    def same(a: Any, b: Any) -> bool:
        if isinstance(a, dict):
            return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
        if isinstance(a, list | tuple):
            return len(a) == len(b) and all(map(same, a, b))
        if isinstance(a, torch.Tensor) or hasattr(a, "dtype"):
            a, b = torch.as_tensor(a), torch.as_tensor(b)
            return a.dtype == b.dtype and a.shape == b.shape and a.numpy().tobytes() == b.numpy().tobytes()
        return type(a) is type(b) and (a == b or repr(a) == repr(b))

    last = f"checkpoints/step_{STEPS[kind]:08d}.safetensors"
    exported = [path.relative_to(whole) for path in whole.glob("export/*") if path.suffix in (".ply", ".safetensors")]
    media = [path.relative_to(whole) for pattern in ("videos/*", "*.png") for path in whole.glob(pattern)]

    def equal(paths: list[Path]) -> bool:
        return all((one / path).exists() and (one / path).read_bytes() == (whole / path).read_bytes() for path in paths)

    return {
        "checkpoint": same(read_checkpoint(one / last), read_checkpoint(whole / last)),
        "export": bool(exported) and equal(exported),
        "media": bool(media) == (kind != "train") and equal(media),
        "metrics.csv": figures(one) == figures(whole),
        "metrics.json": final(one) == final(whole),
        "no litter": not [path for kind in ("tmp", "old") for path in one.rglob(f".*.{kind}*")],
    }


def plan(kills: int, in_writes: int, seed: int) -> list[dict[str, Any]]:
    """Runs of all kinds in turn, each with the kills it is to get: three, four where some are left over."""
    rng = random.Random(seed)
    count = max(1, kills // 3)
    early = kills - count
    chosen = set(rng.sample(range(early), min(early, in_writes)))
    wishes: list[dict[str, Any]] = [
        {"when": "write", "write": rng.randint(1, 2), "share": rng.uniform(0.05, 0.9)}
        if n in chosen
        else {"when": "left", "share": rng.uniform(0.05, 0.5)}
        for n in range(early)
    ]
    runs = []
    for n in range(count):
        kind = list(KINDS)[n % len(KINDS)]
        own = len(range(n % len(KINDS), count, len(KINDS)))
        last = {"when": "end", "share": (n // len(KINDS) + rng.random()) / own}
        runs.append({"kind": kind, "wishes": [*sorted(wishes[n::count], key=lambda w: w["when"] != "write"), last]})
    return runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--in-writes", type=int, default=12, help="how many of them inside a slowed checkpoint write")
    parser.add_argument("--kinds", nargs="+", choices=list(KINDS), default=list(KINDS))
    parser.add_argument("--steps", type=int, help="of every run, for a quick look: figures are only printed")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="begin no run after these; the same command goes on"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/kills"))
    given = parser.parse_args()
    for kind in list(KINDS):
        if kind not in given.kinds:
            KINDS.pop(kind)
        STEPS[kind] = given.steps or STEPS[kind]
    out, deadline = given.out.resolve(), time.monotonic() + 60 * given.minutes
    out.mkdir(parents=True, exist_ok=True)
    data, state = out / "data", out / "state.json"
    asked = {
        "code": code_hash(),
        "kills": given.kills,
        "in_writes": given.in_writes,
        "seed": given.seed,
        "steps": {kind: STEPS[kind] for kind in KINDS},
    }
    kept: dict[str, Any] = json.loads(state.read_text()) if state.exists() else {}
    if kept.get("asked") != asked:
        if kept:
            print(f"{out} was made by other code or with other arguments: all is begun anew", flush=True)
        kept = {"asked": asked, "whole": {}, "runs": {}}

    def keep() -> None:
        state.with_suffix(".tmp").write_text(json.dumps(kept, indent=2))
        state.with_suffix(".tmp").replace(state)

    if "train" in KINDS:
        for split, count in (("train", 40), ("validation", 8)):
            made = [sys.executable, "-m", "diffusion3d.data.toybox", "--out", str(data / "toybox" / split)]
            subprocess.run([*made, "--split", split, "--count", str(count)], check=True, capture_output=True)
    for kind in KINDS:
        if kind not in kept["whole"]:
            shutil.rmtree(out / f"whole_{kind}", ignore_errors=True)
            ending = finish(kind, out / f"whole_{kind}", data)
            seconds = json.loads((out / f"whole_{kind}" / "metrics.json").read_text())["seconds"]
            kept["whole"][kind] = {"seconds": seconds, "end seconds": ending}
            keep()
    for number, run in enumerate(plan(given.kills, given.in_writes, given.seed)):
        name, kind = f"{number:02d}_{run['kind']}", run["kind"]
        done = kept["runs"].setdefault(name, {"kills": [], "ended before a kill": 0})
        if "same" in done or time.monotonic() > deadline:
            continue
        if code_hash() != asked["code"]:
            raise SystemExit("the package's code has changed meanwhile; the same command begins anew")
        directory = out / name
        while len(done["kills"]) < len(run["wishes"]):
            if not done["kills"]:
                shutil.rmtree(directory, ignore_errors=True)
            sooner = SOONER ** done["ended before a kill"]
            undisturbed = {name: sooner * value for name, value in kept["whole"][kind].items()}
            hit = kill_once(kind, directory, data, run["wishes"][len(done["kills"])], undisturbed)
            if hit.pop("killed"):
                done["kills"].append(hit)
            else:
                done["kills"], done["ended before a kill"] = [], done["ended before a kill"] + 1
            keep()
        finish(kind, directory, data)
        done["threads"] = threads_of(directory)
        done["same"] = compare(kind, directory, out / f"whole_{kind}")
        keep()
        print(name, json.dumps(done), flush=True)
    if not any("same" in run for run in kept["runs"].values()):
        return
    found = report(kept)
    print(json.dumps(found, indent=2))
    if given.steps is None and all("same" in run for run in kept["runs"].values()):
        (HERE / "kills.json").write_text(json.dumps(found, indent=2) + "\n")


def report(kept: dict[str, Any]) -> dict[str, Any]:
    runs = {name: run for name, run in kept["runs"].items() if "same" in run}
    kills = [kill for run in runs.values() for kill in run["kills"]]
    return {
        **circumstances(run["threads"] for run in runs.values()),
        **kept["asked"],
        "seconds undisturbed": kept["whole"],
        "runs": len(runs),
        "killed": len(kills),
        "killed inside a slowed write, a part of it on disk": sum(
            kill["when"] == "write" and kill["torn bytes left"] > 0 for kill in kills
        ),
        "killed after the last checkpoint, by the newest result": Counter(
            str(kill["newest result"]) for kill in kills if kill["when"] == "end"
        ),
        "fewest kills of a run": min((len(run["kills"]) for run in runs.values()), default=0),
        "runs that ended before a kill, begun anew": sum(run["ended before a kill"] for run in runs.values()),
        "runs in which all is bit-identical": sum(all(run["same"].values()) for run in runs.values()),
        "others": {name: run["same"] for name, run in runs.items() if not all(run["same"].values())},
        "by run": runs,
    }


if __name__ == "__main__":
    main()
