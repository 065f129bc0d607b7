"""Override lists made by hypothesis: each runs its first step, or ends in one line that says why it cannot.

    python experiments/reliability/fuzz.py [--lists 500] [--seed 0] [--minutes M] [--out outputs/fuzz]

A list chooses from all config groups but Hydra's own (of the loggers: none and TensorBoard) and sets some of the keys that its
choices have, to values of the right type; nearly half of them have something wrong with them: a misspelt key, an unknown
choice, a value of another type or one that makes no sense, a combination that cannot work, an odd prompt. Some of the others
are sweeps (-m) of two jobs. They run one after another in this process, through `diffusion3d.run([...])` or what the command
line does with a sweep. One in fifty also runs as a process of its own, which must end in time, with the exit code that belongs
to the outcome, without a traceback and, unless it ran to its end, with a last line that begins with "error: ". Outcomes:

- ran: to its end.
- refused, stopped: a UserError of one line, with exit code 2 or 1.
- traceback: any other exception, also of a sweep's job, or a UserError of several lines.
- slow: not done after --seconds of CPU time. crashed: it took the process with it, twice.

What is asked for depends on the seed, hypothesis' version and the configuration. What is done is kept in OUT, where the same
command goes on, after a crash, too, unless the package's code or configuration has changed since: then it begins anew. When all
is done, figures go to fuzz.json. Needs `pip install -e ".[test]"` and this checkout's tests
folder, which makes the data.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import importlib.metadata
import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from circumstances import circumstances, code_hash
from override_lists import CAMERA, NETWORK, PIPELINES, make_lists

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent / "tests"
sys.path.insert(0, str(TESTS))
EVERY = 50
"""One in so many lists also runs as a process of its own."""
MEMORY = 6 * 2**30
"""Address space that lists may add to what is loaded, bytes: what asks for more is told so."""
EXIT_CODES = {"ran": 0, "refused": 2, "stopped": 1, "traceback": 1}


def make_world(world: Path) -> None:
    """Data, small pipelines with random weights and a finished run, for lists to use."""
    import trimesh
    from PIL import Image

    import diffusion3d
    from captures import blender, colmap_scene, srn_instance
    from posed_scenes import write_scenes
    from tiny_pipelines import edit, pipeline

    shutil.rmtree(world, ignore_errors=True)
    world.mkdir(parents=True)
    for kind in PIPELINES.values():
        pipeline(kind).save_pretrained(world / "pipelines" / kind)
    edit(world / "pipelines" / "mvdream" / "model_index.json", _class_name="MVDreamPipeline")
    write_scenes(world / "posed_folder", 4)
    blender(world / "transforms")
    colmap_scene(world / "colmap")
    srn_instance(world / "srn" / "cars_train" / "a")
    (world / "meshes").mkdir()
    trimesh.creation.box().export(world / "meshes" / "box.obj")
    photograph = Image.new("RGBA", (40, 30))
    photograph.paste((200, 60, 30, 255), (10, 5, 30, 25))
    photograph.save(world / "photograph.png")
    for split in ("train", "validation"):
        command = [sys.executable, "-m", "diffusion3d.data.toybox", "--out", world / "data" / "toybox" / split]
        subprocess.run([*command, "--split", split, "--count", "4"], check=True, capture_output=True)
    typed = ["prompt=a car", "debug=fast", "representation.count=60", "representation.scale=0.15", *NETWORK, *CAMERA]
    diffusion3d.run([*typed, f"hydra.run.dir={world / 'run'}"])
    (world / "made").touch()


class Slow(BaseException):
    """A list took too long."""


@contextlib.contextmanager
def at_most(seconds: float) -> Iterator[None]:
    """Raises Slow in the block after so much CPU time."""

    def ring(number: int, frame: Any) -> None:
        raise Slow

    before = signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)


class Failed(Exception):
    """A job of a sweep met what is no UserError."""


def try_list(typed: list[str], seconds: float, run: Callable[[list[str]], Any]) -> dict[str, Any]:
    """How a list ends in this process."""
    from diffusion3d.errors import UserError, summary

    begin = time.process_time()
    found: dict[str, Any] = {}
    try:
        with at_most(seconds):
            run(typed)
        found["outcome"] = "ran"
    except UserError as error:
        named = "traceback" if "\n" in str(error) else "refused" if error.exit_code == 2 else "stopped"
        found |= {"outcome": named, "line": summary(error)}
    except Exception as error:
        found |= {"outcome": "traceback", "line": summary(error), "traceback": traceback.format_exc()[-4000:]}
    except Slow:
        found |= {"outcome": "slow", "traceback": traceback.format_exc()[-4000:]}
    return {**found, "cpu_seconds": round(time.process_time() - begin, 2)}


def as_process(typed: list[str], seconds: float) -> dict[str, Any]:
    """How a list ends as a process; its exit code is None where it did not in time."""
    command = [sys.executable, "-m", "diffusion3d.run", *typed]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired:
        return {"exit code": None, "traceback": False, "last line": ""}
    return {
        "exit code": done.returncode,
        "traceback": "Traceback (most recent call last)" in done.stderr,
        "last line": (done.stderr.splitlines() or [""])[-1],
    }


def agrees(outcome: str, process: dict[str, Any]) -> bool:
    """Whether a process ended as one does that has this outcome."""
    told = process["last line"].startswith("error: ")
    return process["exit code"] == EXIT_CODES.get(outcome) and not process["traceback"] and told == (outcome != "ran")


def answer(typed: list[str], output: Path) -> None:
    """What the command line does with a list, whose runs go to `output`.

    Raises:
        Failed: a job of a sweep met what is no UserError, which the sweep tells as it tells any other.
    """
    from diffusion3d.errors import RunError, unexpected
    from diffusion3d.hydra_cli import sweep
    from diffusion3d.run import job, run
    from diffusion3d.sweeps import read_jobs

    if "-m" not in typed:
        run(typed)
        return
    try:
        sweep([override for override in typed if override != "-m"], job)
    except RunError:
        told = [one.error for folder in output.glob("*") for one in read_jobs(folder) if unexpected(one.error)]
        if told:
            raise Failed(told[0]) from None
        raise


def limit_memory() -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def report(lists: list[dict[str, Any]], done: dict[int, dict[str, Any]], asked: dict[str, Any]) -> dict[str, Any]:
    import torch

    wrong = {name: Counter() for name in sorted({one["wrong"] for one in lists})}
    for number, one in done.items():
        wrong[lists[number]["wrong"]][one["outcome"]] += 1
    outcomes = Counter(one["outcome"] for one in done.values())
    unlike = {number: "process" in one and not agrees(one["outcome"], one["process"]) for number, one in done.items()}
    bad = [
        {"typed": lists[number]["typed"], **one}
        for number, one in sorted(done.items())
        if one["outcome"] in ("traceback", "slow", "crashed") or unlike[number]
    ]
    return {
        **circumstances([torch.get_num_threads()]),
        **asked,
        "sweeps": sum("-m" in one["typed"] for one in lists),
        "done": len(done),
        "outcomes": dict(outcomes),
        "valid share": round(outcomes["ran"] / max(1, len(done)), 3),
        "by what is wrong": {name: dict(count) for name, count in wrong.items()},
        "also as a process": sum("process" in one for one in done.values()),
        "of these not as expected": sum(unlike.values()),
        "cpu_seconds": round(sum(one["cpu_seconds"] for one in done.values()), 1),
        "bad": [{key: value for key, value in one.items() if key != "traceback"} for one in bad],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lists", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=float("inf"), help="stop after these; the same command goes on"
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="CPU time after which a list is slow")
    parser.add_argument("--again", nargs="*", help="try lists with these outcomes again, such as traceback")
    parser.add_argument(
        "--plans", action="store_true", help="only compose and check: run.dry_run=true, no figures written"
    )
    parser.add_argument("--out", type=Path, default=Path("outputs/fuzz"))
    given = parser.parse_args()
    out = given.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + 60 * given.minutes
    world, kept, state = out / "world", out / "lists.json", out / ("plans.jsonl" if given.plans else "state.jsonl")
    asked = {
        "lists": given.lists,
        "seed": given.seed,
        "hypothesis": importlib.metadata.version("hypothesis"),
        "code": code_hash(HERE / "override_lists.py"),
    }
    content = json.loads(kept.read_text()) if kept.exists() else {}
    if content.get("asked") != asked:
        if content:
            print(f"{out} was made by other code or with other arguments: all is begun anew", flush=True)
        for path in (world / "made", out / "plans.jsonl", out / "state.jsonl"):
            path.unlink(missing_ok=True)
        content = {"asked": asked, "content": make_lists(given.lists, given.seed, world)}
        kept.write_text(json.dumps(content))
    lists = content["content"]
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    if not given.plans:
        if not (world / "made").exists():
            make_world(world)
        import torch  # noqa: F401 - loaded before memory is limited

        limit_memory()
    done: dict[int, dict[str, Any]] = {}
    begun: Counter[int] = Counter()
    for line in state.read_text().splitlines() if state.exists() else []:
        one = json.loads(line)
        if "outcome" in one:
            done[one.pop("number")] = one
        else:
            begun[one["number"]] += 1
    again = {number for number, one in done.items() if one["outcome"] in (given.again or [])}
    with state.open("a") as file:

        def keep(one: dict[str, Any]) -> None:
            file.write(json.dumps(one) + "\n")
            file.flush()

        for number, one in enumerate(lists):
            if (number in done and number not in again) or time.monotonic() > deadline:
                continue
            if begun[number] > 1 and number not in done:
                done[number] = {"outcome": "crashed", "cpu_seconds": 0.0}
                keep({"number": number, **done[number]})
                continue
            keep({"number": number})
            where = out / ("plans" if given.plans else "runs")
            quiet = [] if any(text.startswith("logger=") for text in one["typed"]) else ["logger=none"]
            ours = [*quiet, f"paths.output={where}", f"paths.data={world / 'data'}"]
            typed = [*one["typed"], *ours, *(["run.dry_run=true"] if given.plans else [])]
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                done[number] = try_list(typed, given.seconds, partial(answer, output=where))
            if number % EVERY == 7 and not given.plans:
                done[number]["process"] = as_process([text for text in typed if "\x00" not in text], 5 * given.seconds)
            keep({"number": number, **done[number]})
            if done[number]["outcome"] not in ("ran", "refused", "stopped"):
                print(number, done[number]["outcome"], done[number].get("line", ""), flush=True)
            shutil.rmtree(where, ignore_errors=True)
            gc.collect()
    found = json.loads(json.dumps(report(lists, done, asked)).replace(str(out), "OUT"))
    print(json.dumps(found, indent=2))
    if not given.plans and len(done) == len(lists):
        (HERE / "fuzz.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
