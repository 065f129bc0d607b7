"""Override lists made by hypothesis from all config groups and their keys; nearly half have something wrong with them.

Of the loggers only none and TensorBoard are chosen: the others talk to a server or write outside the run directory.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

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
    "observation=photograph": ["observation.size=32"],
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
EXPERIMENTS = {
    "denoising": None,
    "latent_denoising": "latent_denoising",
    "autoencoder": "latent_autoencoder",
    "text_distillation": "latent_text",
}
"""{objective: experiment that is about it}."""
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
        for group in listed.list_groups(""):
            if group in ("hydra", "debug"):
                continue
            package = "density@representation.density" if group == "density" else group
            choices[group] = listed.get_group_options(group)
            if group in ("distillation", "field"):  # no choice of a run: parts of other choices
                choices.pop(group)
                continue
            if group in ("experiment", "logger", "paths"):
                continue
            for choice in choices[group]:
                small = [o for o in SMALL.get(f"{group}={choice}", []) if o != "debug=fast"]
                config: Any = OmegaConf.to_container(compose(app, [f"{package}={choice}", *small]), resolve=False)
                prefix = "representation.density" if group == "density" else group
                node = config["representation"]["density"] if group == "density" else config.get(group)
                found = {f"{prefix}.{key}": at(node, key) for key in leaves(node or {})}
                keys[f"{group}={choice}"] = {key: value for key, value in found.items() if settable(key, value)}
    choices["logger"] = ["none", "tensorboard"]
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
            chosen["observation"] = pick(draw, ["none", "none", "photograph"])
            if chosen["representation"] == "image" or chosen["guidance"] in EDITING:
                chosen["observation"] = "none"
            if chosen["observation"] == "photograph":
                more += [f"observation.image={world / 'photograph.png'}"]
            if chosen["guidance"] in EDITING:
                chosen |= {"representation": "gsplat"}
                more += [source, "guidance.source_prompt=a car"]
            if chosen["guidance"] == "perp_neg" and chosen["prior"] not in ("ddpm", "mvdream"):
                more += ["prior.view_prompts.blend=true"]
        if task == "distill" and draw(st.booleans()):
            splats = chosen["representation"] == "gsplat"
            fields = chosen["representation"] in FIELDS
            chosen["terms"] = pick(draw, ["none", *["default"] * splats, *["field"] * fields])
        if task == "fit":
            chosen["data"] = pick(draw, FIT_DATA)
        if task == "sample":
            chosen["sampler"] = pick(draw, choices["sampler"])
        if task == "train":
            chosen["objective"] = pick(draw, choices["objective"])
            chosen["prior"] = "ddpm" if chosen["objective"] == "denoising" else "stable_diffusion"
            chosen["data"] = pick(draw, ["toybox", "posed_folder"])
            if draw(st.booleans()) and EXPERIMENTS[chosen["objective"]]:
                chosen["experiment"] = EXPERIMENTS[chosen["objective"]]
        elif (
            task == "distill"
            and chosen["representation"] == "gsplat"
            and "density" not in chosen
            and draw(st.booleans())
        ):
            chosen["experiment"] = "text_to_3d"
        if task in ("render", "export"):
            more += [source]
        if draw(st.integers(0, 4)) == 0:
            chosen |= {"logger": pick(draw, choices["logger"]), "paths": "default"}
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
        if data.draw(st.integers(0, 4)) < 3:
            wrong, typed = spoil(data.draw, typed)
            own = typed[len(own) :]
        else:
            if "task=export" not in typed and data.draw(st.integers(0, 9)) == 5:
                typed = ["-m", *typed, "seed=0,1"]
            typed = own = [*typed, *settings_of(data.draw, typed, 3)]
        if len(found) < count:  # what is wrong is wrong in one list only
            found.setdefault(json.dumps(own), {"wrong": wrong, "typed": typed})

    collect()
    return list(found.values())
