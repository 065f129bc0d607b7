"""Override lists made by hypothesis: each runs its first step, or ends in one line that says why it cannot.

    python experiments/reliability/fuzz.py [--lists 500] [--seed 0] [--minutes M] [--out outputs/fuzz]

A list chooses from all config groups and sets some of the keys that its choices have, to values of the right type; two in
five have something wrong with them: a misspelt key, an unknown choice, a value of another type or one that makes no sense, a
combination that cannot work, an odd prompt. They run one after another in this process, through `diffusion3d.run([...])`, one
in fifty also as a process of its own. Outcomes:

- ran: to its end.
- refused, stopped: a UserError, which the command line prints in one line, with exit code 2 or 1.
- traceback: any other exception.
- slow: not done after --seconds of CPU time. crashed: it took the process with it, twice.

What is asked for depends on the seed and hypothesis' version alone. What is done is kept in OUT, where the same command goes
on, after a crash, too. Figures go to fuzz.json. Needs `pip install -e ".[test]"` and this checkout's tests folder, which makes
the data.
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

os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "OMP_WAIT_POLICY": "PASSIVE"}
HERE = Path(__file__).resolve().parent
TESTS = HERE.parent.parent / "tests"
sys.path.insert(0, str(TESTS))
EVERY = 50
"""One in so many lists also runs as a process of its own."""
MEMORY = 6 * 2**30
"""Address space that lists may add to what is loaded, bytes: what asks for more is told so."""
EXIT_CODES = {"ran": 0, "refused": 2, "stopped": 1, "traceback": 1}
PIPELINES = {"stable_diffusion": "sd", "sdxl": "sdxl", "deepfloyd": "deepfloyd", "mvdream": "mvdream"}
FIELDS = ("nerf", "nerf_frequency", "triplane", "voxels", "voxels_factorised", "ib_planes")
SIDE = 32
NETWORK = [
    f"prior.image_size={SIDE}",
    "prior.weights=null",
    "prior.network.channels=[16,16,32]",
    "prior.network.blocks=[1,1,1]",
    "prior.network.head=16",
    "prior.network.embedding=32",
]
CAMERA = ["camera.views=2", "camera.turntable_frames=2"]
OCCUPIED = ["representation.renderer.samples=16", "representation.occupancy.size=8"]
PLANES = ["representation.renderer.samples=16", "representation.sources=2", "representation.size=16"]
SMALL: dict[str, list[str]] = {
    "prior=ddpm": NETWORK,
    "camera=orbit": CAMERA,
    "camera=front": ["camera.turntable_frames=2"],
    "representation=gsplat": ["representation.count=60", "representation.scale=0.15"],
    **{f"representation={name}": OCCUPIED for name in FIELDS},
    "representation=nerf": [*OCCUPIED, "representation.encoding.levels=4", "representation.encoding.log2_entries=12"],
    "representation=ib_planes": PLANES,
    "representation=triplane": [*OCCUPIED, "representation.encoding.size=16"],
    "representation=voxels": [*OCCUPIED, "representation.encoding.size=16"],
    "representation=voxels_factorised": [*OCCUPIED, "representation.encoding.size=16"],
    "guidance=reconstruct": [
        "guidance.sampler.steps=2",
        "guidance.views=2",
        "guidance.joint=2",
        "guidance.levels=[1.0,0.5]",
    ],
    "sampler=ddim": ["sampler.steps=2"],
    "sampler=ancestral": ["sampler.steps=2"],
    "data=toybox_scenes": ["data.train_views=4", "data.test_views=2", f"data.size={SIDE}", "data.samples=1"],
    "data=meshes": ["data.train_views=4", "data.test_views=2", f"data.size={SIDE}", "data.samples=1", "data.scenes=1"],
    "data=posed_folder": [f"data.size={SIDE}", "data.views=4", "data.validation=0.4"],
    "task=distill": ["task.steps=1", f"task.video_size={SIDE}"],
    "task=fit": ["task.steps=1", f"task.video_size={SIDE}"],
    "task=train": ["task.steps=1", "task.batches=[{scenes: 2, views: 2, share: 1.0}]", "task.validation_batches=1"],
    "task=sample": ["task.count=1", "task.views=2"],
    "task=render": ["debug=fast"],
    "task=export": ["debug=fast"],
}
"""What makes a choice quick."""
EXTRA = {"objective=autoencoder": ["task.batches=[{scenes: 2, views: 1, share: 1.0}]"]}
EXTRA["objective=latent_denoising"] = EXTRA["objective=text_distillation"] = EXTRA["objective=autoencoder"]
EDITING = ("dds", "pds")
JOINT = ("mvdream", "reconstruct")
"""Guidance that judges views together, which a prior that sees cameras does."""
FIT_DATA = ("toybox_scenes", "transforms", "colmap", "srn", "meshes")
PROMPTS = (
    "castle",
    "a standing corgi dog",
    "",
    " ",
    "a, b = [c] {d: e}",
    'it\'s "so" 100 % ${HOME} \\',
    "城堡 🏰 замок",
    "line one\nline two\ttab",
    "=",
    "null",
    "~+@!-- -m",
    "../../etc",
    "x" * 5000,
    "\ud800",
    "\x00",
)
WRONG = ("text", "'1,5'", "[]", "{}", "[1,2,3,4,5]", "{a: 1}", "null", "true", "-1", "0", "nan", "inf", "-1e30", "1e-9")
LEFT_ALONE = ("_target_", "_partial_", "provides", "needs", "uses", "root", "model", "cache", "text_cache", "batches")


def table() -> tuple[dict[str, list[str]], dict[str, dict[str, Any]]]:
    """{group: choices}, and {group=choice: {key: value}} of what the choice brings, made small."""
    from omegaconf import OmegaConf

    from diffusion3d.checks import leaves
    from diffusion3d.config import compose, hydra_app

    choices, keys = {}, {}
    with hydra_app() as app:
        listed = app.config_loader
        groups = [
            name for name in listed.list_groups("") if name not in ("hydra", "debug", "experiment", "logger", "paths")
        ]
        for group in groups:
            package = "density@representation.density" if group == "density" else group
            choices[group] = listed.get_group_options(group)
            if group in ("distillation", "field"):  # no choice of a run: parts of other choices
                choices.pop(group)
                continue
            for choice in choices[group]:
                small = [o for o in SMALL.get(f"{group}={choice}", []) if o != "debug=fast"]
                config: Any = OmegaConf.to_container(compose(app, [f"{package}={choice}", *small]), resolve=False)
                prefix = "representation.density" if group == "density" else group
                node = config["representation"]["density"] if group == "density" else config.get(group)
                found = {f"{prefix}.{key}": at(node, key) for key in leaves(node or {})}
                keys[f"{group}={choice}"] = {key: value for key, value in found.items() if settable(key, value)}
    keys["seed"] = {"seed": 0, "precision": "fp32", "device": "cpu", "viewer.every": 10, "viewer.port": 8080}
    return choices, keys


def at(node: Any, dotted: str) -> Any:
    for part in dotted.split("."):
        node = node[part]
    return node


def settable(key: str, value: Any) -> bool:
    schedule = isinstance(value, dict) and {"from", "to"} <= set(value)
    inside = key.rpartition(".")[2] in ("from", "to", "start", "end") and not isinstance(value, int)
    parts = key.split(".")
    return not inside and not set(parts) & set(LEFT_ALONE) and (schedule or not isinstance(value, dict))


def text_of(value: Any) -> str:
    """A value in Hydra's grammar."""
    from diffusion3d.overrides import quote

    if isinstance(value, list):
        return f"[{','.join(map(text_of, value))}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {text_of(item)}" for key, item in value.items()) + "}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return quote(value) if isinstance(value, str) else str(value)


def make_lists(count: int, seed: int, world: Path) -> list[dict[str, Any]]:
    """So many different lists, each with the name of what is wrong with it, "nothing" where all should be well."""
    from hypothesis import HealthCheck, Phase, given, settings
    from hypothesis import seed as seeded
    from hypothesis import strategies as st

    choices, keys = table()
    source = f"run={world / 'run'}"
    roots = {name: f"data.root={world / name}" for name in ("transforms", "colmap", "srn", "posed_folder")}
    roots["meshes"] = f"data.root={world / 'meshes' / 'box.obj'}"

    def pick(draw: Any, items: Any) -> Any:
        return draw(st.sampled_from(sorted(items)))

    def choose(draw: Any) -> list[str]:
        """Choices that fit together, and what they cannot do without."""
        task = pick(draw, ["distill", "distill", "distill", "fit", "fit", "train", "sample", "render", "export"])
        chosen = {"task": task}
        more: list[str] = []
        if task in ("distill", "sample"):
            chosen["prior"] = pick(draw, choices["prior"])
        if task in ("distill", "fit"):
            chosen["representation"] = pick(draw, choices["representation"])
            chosen["camera"] = pick(draw, choices["camera"])
            if chosen["representation"] == "gsplat" and draw(st.booleans()):
                chosen["density"] = pick(draw, choices["density"])
        if task == "distill":
            joint = chosen["prior"] in ("ddpm", "mvdream")
            chosen["guidance"] = pick(draw, [name for name in choices["guidance"] if joint or name not in JOINT])
            if chosen["guidance"] in EDITING:
                chosen |= {"representation": "gsplat"}
                more += [source, "guidance.source_prompt=a car"]
            if chosen["guidance"] == "perp_neg" and chosen["prior"] not in ("ddpm", "mvdream"):
                more += ["prior.view_prompts.blend=true"]
        if task == "fit":
            chosen["data"] = pick(draw, FIT_DATA)
        if task == "sample":
            chosen["sampler"] = pick(draw, choices["sampler"])
        if task == "train":
            chosen["objective"] = pick(draw, choices["objective"])
            chosen["prior"] = "ddpm" if chosen["objective"] == "denoising" else "stable_diffusion"
            chosen["data"] = pick(draw, ["toybox", "posed_folder"])
        if task in ("render", "export"):
            more += [source]
        typed = [f"{'density@representation.density' if g == 'density' else g}={c}" for g, c in chosen.items()]
        for group, choice in chosen.items():
            more += SMALL.get(f"{group}={choice}", []) + EXTRA.get(f"{group}={choice}", [])
        prior = chosen.get("prior")
        if prior in PIPELINES:
            more += [
                f"prior.model={world / 'pipelines' / PIPELINES[prior]}",
                f"prior.image_size={SIDE}",
                "prior.text_cache=null",
            ]
        more += [roots[chosen["data"]]] if chosen.get("data") in roots else []
        more += [f"prompt={pick(draw, PROMPTS[:2])}"] if task in ("distill", "sample") else []
        more += ["debug=fast"] if task in ("distill", "fit", "sample") and draw(st.booleans()) else []
        return typed + list(dict.fromkeys(more))

    def brought(typed: list[str]) -> dict[str, Any]:
        """The keys that a list's choices have, with their values."""
        found = dict(keys["seed"])
        for override in typed:
            found |= keys.get(override.replace("density@representation.density", "density"), {})
        return found

    def value(draw: Any, now: Any, key: str) -> Any:
        """Another value of the same kind."""
        if key == "precision":
            return pick(draw, ["auto", "fp32", "bf16"])
        if isinstance(now, bool):
            return draw(st.booleans())
        if isinstance(now, int):
            return pick(draw, {now, now + 1, max(1, now // 2), 1, 2} if now else {0, 1, 2})
        if isinstance(now, float):
            return pick(draw, {now, now / 2, now * 2 if abs(now) < 1e3 else now, 0.5, 1.0})
        if isinstance(now, list) and now and all(isinstance(item, int | float) for item in now):
            factor = pick(draw, [1, 2]) if all(isinstance(item, int) for item in now) else pick(draw, [0.5, 1.0])
            return [item * factor for item in now]
        if isinstance(now, dict):
            return pick(draw, [0.5, 1.0]) if draw(st.booleans()) else {**now, "start": 0.0, "end": 1.0}
        return now

    def settings_of(draw: Any, typed: list[str], most: int) -> list[str]:
        fixed = {override.partition("=")[0] for override in typed}
        has = {key: now for key, now in brought(typed).items() if key not in fixed and key != "device"}
        picked = draw(st.lists(st.sampled_from(sorted(has)), max_size=most, unique=True))
        return [f"{key}={text_of(value(draw, has[key], key))}" for key in picked]

    def misspelt(draw: Any, key: str) -> str:
        position = draw(st.integers(0, len(key) - 1))
        how = pick(draw, ["drop", "double", "swap"])
        if how == "drop":
            return key[:position] + key[position + 1 :]
        return key[: position + 1] + (key[position] if how == "double" else "z") + key[position + 1 :]

    def spoil(draw: Any, typed: list[str]) -> tuple[str, list[str]]:
        """What is wrong, and the list with it."""
        what = pick(draw, ["key", "choice", "type", "value", "combination", "prompt", "grammar", "path"])
        has = brought(typed)
        if what == "key":
            return what, [*typed, f"{misspelt(draw, pick(draw, has))}=1"]
        if what == "choice":
            group = pick(draw, choices)
            name = misspelt(draw, pick(draw, choices[group]))
            return what, [*typed, f"{group}={draw(st.sampled_from([name, name, '', 'null', '[]', 'sds,vsd']))}"]
        if what in ("type", "value"):
            picked = draw(st.lists(st.sampled_from(sorted(has)), min_size=1, max_size=2, unique=True))
            words = WRONG[:8] if what == "type" else WRONG[6:]
            return what, [*typed, *(f"{key}={draw(st.sampled_from(words))}" for key in picked)]
        if what == "combination":
            group = pick(draw, [name for name in choices if name != "density"])
            return what, [*typed, f"{group}={pick(draw, choices[group])}"]
        if what == "prompt":
            told = draw(st.sampled_from(PROMPTS)) if draw(st.booleans()) else draw(st.text(max_size=40))
            return what, [*typed, f"prompt={told}"]
        if what == "grammar":
            odd = [
                "castle",
                "=",
                "task.steps",
                "++task.steps=1",
                "+task.steps=2",
                "~task.steps",
                "~guidance",
                "seed=1,2",
            ]
            return what, [*typed, draw(st.sampled_from([*odd, "seed=", "a b=c", "task.steps=[", "@x=1", "+new.key=3"]))]
        odd = ["run.source", "run.resume", "representation.start", "data.root", "prior.weights", "prior.model"]
        return what, [
            *typed,
            f"{draw(st.sampled_from(odd))}={draw(st.sampled_from(['nowhere', str(world), '/dev/null', '?']))}",
        ]

    found: dict[str, dict[str, Any]] = {}

    @seeded(seed)
    @settings(
        max_examples=4 * count,
        database=None,
        phases=[Phase.generate],
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(st.data())
    def collect(data: st.DataObject) -> None:
        typed = choose(data.draw)
        wrong, own = "nothing", typed
        if data.draw(st.integers(0, 4)) < 2:
            wrong, typed = spoil(data.draw, typed)
            own = typed[len(own) :]
        else:
            typed = own = [*typed, *settings_of(data.draw, typed, 3)]
        if len(found) < count:  # what is wrong is wrong in one list only
            found.setdefault(json.dumps(own), {"wrong": wrong, "typed": typed})

    collect()
    return list(found.values())


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
            where = out / "runs"
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
    if not given.plans:
        (HERE / "fuzz.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
