"""Override lists made by hypothesis: each runs its first step, or ends in one line that says why it cannot.

    python experiments/reliability/fuzz.py [--lists 500] [--seed 0] [--minutes M] [--out outputs/fuzz]

A list chooses from all config groups and sets some of the keys that its choices have, to values of the right type; nearly
half of them have something wrong with them: a misspelt key, an unknown choice, a value of another type or one that makes no
sense, a combination that cannot work, an odd prompt. They run one after another in this process, through
`diffusion3d.run([...])`, one in fifty also as a process of its own. Outcomes:

- ran: to its end.
- refused, stopped: a UserError, which the command line prints in one line, with exit code 2 or 1.
- traceback: any other exception.
- slow: not done after --seconds of CPU time. crashed: it took the process with it, twice.

What is asked for depends on the seed and hypothesis' version alone. What is done is kept in OUT, where the same command goes
on, after a crash, too. When all is done, figures go to fuzz.json. Needs `pip install -e ".[test]"` and this checkout's tests
folder, which makes the data.
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import json
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

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
        found |= {"outcome": "refused" if error.exit_code == 2 else "stopped", "line": summary(error)}
    except Exception as error:
        found |= {"outcome": "traceback", "line": summary(error), "traceback": traceback.format_exc()[-4000:]}
    except Slow:
        found |= {"outcome": "slow", "traceback": traceback.format_exc()[-4000:]}
    return {**found, "cpu_seconds": round(time.process_time() - begin, 2)}


def as_process(typed: list[str]) -> dict[str, Any]:
    """Exit code of a list as a process, and whether anything like a traceback was printed."""
    done = subprocess.run(
        [sys.executable, "-m", "diffusion3d.run", *typed], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    *_, last = [*done.stderr.splitlines(), ""][:-1] or [""]
    return {
        "exit code": done.returncode,
        "traceback": "Traceback (most recent call last)" in done.stderr,
        "last line": last,
    }


def limit_memory() -> None:
    import resource

    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, resource.RLIM_INFINITY))


def report(out: Path, lists: list[dict[str, Any]], done: dict[int, dict[str, Any]], seed: int) -> dict[str, Any]:
    import hypothesis

    from diffusion3d.tasks.facts import versions

    facts = versions()
    wrong = {name: Counter() for name in sorted({one["wrong"] for one in lists})}
    for number, one in done.items():
        wrong[lists[number]["wrong"]][one["outcome"]] += 1
    outcomes = Counter(one["outcome"] for one in done.values())
    processes = [one for one in done.values() if "process" in one]
    agree = [
        one["process"]["exit code"] == EXIT_CODES.get(one["outcome"]) and not one["process"]["traceback"]
        for one in processes
    ]
    bad = [
        {"typed": lists[number]["typed"], **one}
        for number, one in sorted(done.items())
        if one["outcome"] in ("traceback", "slow", "crashed")
    ]
    return {
        "machine": {key: facts[key] for key in ("cpu", "cores", "platform", "python", "diffusion3d", "git")},
        "packages": facts["packages"] | {"hypothesis": hypothesis.__version__},
        "seed": seed,
        "lists": len(lists),
        "done": len(done),
        "outcomes": dict(outcomes),
        "valid share": round(outcomes["ran"] / max(1, len(done)), 3),
        "by what is wrong": {name: dict(count) for name, count in wrong.items()},
        "also as a process": len(processes),
        "of these with the exit code expected and no traceback": sum(agree),
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
    asked = {"lists": given.lists, "seed": given.seed}
    content = json.loads(kept.read_text()) if kept.exists() else {}
    if content.get("asked") != asked:
        content = {"asked": asked, "content": make_lists(given.lists, given.seed, world)}
        kept.write_text(json.dumps(content))
        state.unlink(missing_ok=True)
    lists = content["content"]
    logging.getLogger().addHandler(logging.NullHandler())
    warnings.simplefilter("ignore")
    from diffusion3d.run import run

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
            ours = ["logger=none", f"paths.output={where}", f"paths.data={world / 'data'}"]
            typed = [*one["typed"], *ours, *(["run.dry_run=true"] if given.plans else [])]
            with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
                random.seed(0)
                done[number] = try_list(typed, given.seconds, run)
            if number % EVERY == 7 and not given.plans:
                done[number]["process"] = as_process([text for text in typed if "\x00" not in text])
            keep({"number": number, **done[number]})
            if done[number]["outcome"] not in ("ran", "refused", "stopped"):
                print(number, done[number]["outcome"], done[number].get("line", ""), flush=True)
            shutil.rmtree(where, ignore_errors=True)
            gc.collect()
    found = json.loads(json.dumps(report(out, lists, done, given.seed)).replace(str(out), "OUT"))
    print(json.dumps(found, indent=2))
    if not given.plans and len(done) == len(lists):
        (HERE / "fuzz.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
