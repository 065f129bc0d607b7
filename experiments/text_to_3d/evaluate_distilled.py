"""Distil every subject with the shipped defaults and judge the 3D from 24 views of the turntable.

    python experiments/text_to_3d/evaluate_distilled.py [--judges ab] [prior.weights=FILE ...]

- Right subject: the share of views that the judge calls the prompted subject.
- Janus: among views of asymmetric subjects from more than 90° beside the front, the share whose azimuth the regressor reads
  within 90° of the front and more than 90° off the camera's (`diffusion3d.metrics.azimuth.janus_share`).
- KID: unbiased, cubic kernel, on the judge's features, of the renders and of the prior's own samples (groups of four views
  that cover the same 24 cameras), each against toybox objects with the same caption from these cameras.
- Controls, ten subjects: each scene judged as the next subject (what a shuffled prompt would give: the run is the same), and
  runs with guidance.scale=0, where the prompt has no effect. Both must fail.
- Geometry, against six toybox objects of the caption: silhouette IoU with own and other subjects; sides of the bounding box
  (surface points of all views) over the subject's mean; RMS distance of every view's points to their best plane.

Runs and samples are kept in the state directory: finished ones are skipped, interrupted ones go on.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    REFERENCE_SEED,
    Drawer,
    arguments,
    cached,
    chosen_subjects,
    drawer,
    machine,
    mean,
    run_key,
    slug,
    toybox_folder,
    write_result,
)
from networks import NAMES, Reading, Recogniser
from pictures import SIZE
from recogniser import load
from torch import Tensor

from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.data.raycast import render
from diffusion3d.data.toybox import generate
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.data.toybox.subjects import ASYMMETRIC
from diffusion3d.export.pictures import write_grid
from diffusion3d.metrics.azimuth import janus_share
from diffusion3d.metrics.features import kid
from diffusion3d.metrics.geometry import bounding_box, plane_residual, silhouette_iou, unproject
from diffusion3d.rendering.render import composite
from diffusion3d.run import run
from diffusion3d.tasks.render import load_scene

VIEWS, GROUP = 24, 4
OBJECTS = 6
CONTROLS = 10
SHOWN = 8
BOX = (0.6, 1.6)
FLAT = 0.03
"""Views whose points lie closer to a plane than this count as planar; a ball has 0.118."""


@dataclass(frozen=True)
class Views:
    """24 views of one or more objects: pictures on white [..., V, 3, H, W], masks [..., V, H, W], box sides [..., 3], and the
    mean plane residual [...]."""

    pictures: Tensor
    masks: Tensor
    box: Tensor
    residual: Tensor


def turntable(size: int) -> Cameras:
    return Orbit(size).turntable(VIEWS)


def measures(depth: Tensor, alpha: Tensor, cameras: Cameras) -> tuple[Tensor, Tensor]:
    """Box sides and mean plane residual of one scene; NaN where hardly anything is opaque."""
    points = unproject(depth, alpha, cameras)
    seen = [p for p in points if len(p) >= 16]
    if not seen:
        return torch.full((3,), torch.nan), torch.tensor(torch.nan)
    return bounding_box(torch.cat(seen)), torch.tensor(mean([plane_residual(p) for p in seen]))


def references(subject: str, state: Path) -> Views:
    """Toybox objects of the bare caption from the turntable's cameras."""
    path = toybox_folder(state) / "turntable" / f"{slug(subject)}.npz"
    if not path.exists():
        made = []
        for index in range(OBJECTS):
            cameras = turntable(SIZE)
            views = render(generate.draw(REFERENCE_SEED, 1000 + index, "test", subject).mesh, cameras, samples=4)
            assert views.alpha is not None and views.depth is not None
            hit = (views.depth > 0).float()
            made.append(
                (views.over(torch.ones(1, 3))[0], views.alpha[0, :, 0] > 0.5, *measures(views.depth, hit, cameras))
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        pictures, *rest = (torch.stack([m[i] for m in made]) for i in range(4))
        temporary = path.with_suffix(".tmp.npz")
        np.savez_compressed(temporary, (pictures * 255).byte().numpy(), *(x.numpy() for x in rest))
        temporary.replace(path)
    with np.load(path) as file:
        pictures, masks, box, residual = (torch.from_numpy(file[f"arr_{i}"]) for i in range(4))
    return Views(pictures.float() / 255, masks, box, residual)


def distilled(directory: Path, prompt: str, overrides: Sequence[str]) -> Views:
    """The scene of the main job, which runs where it has not finished yet."""
    if not (directory / "metrics.json").exists():
        if any(directory.glob("checkpoints/step_*.safetensors")):
            run([f"run.resume={directory}"])
        else:
            shutil.rmtree(directory, ignore_errors=True)
            run(["logger=none", f"hydra.run.dir={directory}", *overrides, f"prompt={prompt}"])
    representation, raw, _ = load_scene(str(directory), [], torch.device("cpu"))
    cameras = turntable(2 * SIZE)
    views = representation.scene(raw).render(cameras)
    picture = composite(views, torch.ones(1, 3))[0].clamp(0, 1)
    small = torch.nn.functional.interpolate(views.alpha[0], size=(SIZE, SIZE), mode="area")[:, 0]
    return Views(picture, small > 0.5, *measures(views.depth, views.alpha, cameras))


def prior_views(subject: str, state: Path, draw: Drawer) -> Tensor:
    """The prior's own samples [24, 3, H, W] from the turntable's cameras, four evenly spaced ones a sample."""
    pictures: dict[int, Tensor] = {}
    for start in range(VIEWS // GROUP):
        places = torch.arange(start, VIEWS, VIEWS // GROUP)
        cameras = turntable(SIZE).select(views=places)
        path = state / draw.key / "turntable" / slug(subject) / f"{start}.npy"
        seed = 900_000 + 10 * NAMES.index(subject) + start
        views = cached(path, lambda c=cameras, s=seed: draw(with_article(subject), c, s))
        pictures.update(zip(places.tolist(), views, strict=True))
    return torch.stack([pictures[i] for i in range(VIEWS)])


def right(reading: Reading, subject: str) -> float:
    return float((reading.subject.argmax(1) == NAMES.index(subject)).float().mean())


def next_subject(subject: str) -> str:
    """Another one, for the shuffled control; a castle's next is the house, not the castle on a hill."""
    after = {"castle": "house"}
    return after.get(subject, NAMES[(NAMES.index(subject) + 1) % (len(NAMES) - 1)])


def geometry(subject: str, scene: Views, toybox: dict[str, Views]) -> dict[str, Any]:
    overlap = {name: float(silhouette_iou(scene.masks[None], views.masks).mean()) for name, views in toybox.items()}
    own = overlap.pop(subject)
    ratio = (scene.box / toybox[subject].box.mean(0)).tolist()
    return {
        "iou": own,
        "iou_others": mean(list(overlap.values())),
        "iou_best_other": max(overlap.values(), default=float("nan")),
        "box_ratio": ratio,
        "box_ok": all(BOX[0] <= value <= BOX[1] for value in ratio),
        "plane_residual": float(scene.residual),
        "plane_residual_toybox": float(toybox[subject].residual.mean()),
        "planar": not float(scene.residual) > FLAT,
    }


def judged(
    judge: Recogniser, scenes: dict[str, Views], samples: dict[str, Tensor], toybox: dict[str, Views]
) -> dict[str, Any]:
    """Everything a judge says of renders, of the prior's samples and of toybox objects from the same cameras."""
    true = turntable(SIZE).azimuth[0]
    pictures = {
        "distilled": {name: views.pictures for name, views in scenes.items()},
        "prior": samples,
        "toybox": {name: toybox[name].pictures.flatten(0, 1) for name in scenes},
    }
    readings = {kind: {name: judge.read(x) for name, x in of.items()} for kind, of in pictures.items()}
    result: dict[str, Any] = {}
    for kind, of in readings.items():
        azimuth = [reading.azimuth for name, reading in of.items() if name in ASYMMETRIC]
        result[kind] = {"right_subject": mean([right(reading, name) for name, reading in of.items()])}
        if azimuth:
            read = torch.cat(azimuth)
            result[kind]["janus"] = janus_share(read, true.repeat(len(read) // VIEWS))
    real = torch.cat([reading.features for reading in readings["toybox"].values()])
    for kind in ("distilled", "prior"):
        result[kind]["kid"] = kid(torch.cat([reading.features for reading in readings[kind].values()]), real)
    result["kid_ratio"] = result["distilled"]["kid"] / result["prior"]["kid"]
    result["per_subject"] = {
        name: {
            "right_subject": right(reading, name),
            "prior_right_subject": right(readings["prior"][name], name),
            "janus": janus_share(reading.azimuth, true) if name in ASYMMETRIC else None,
        }
        for name, reading in readings["distilled"].items()
    }
    return result


def main() -> None:
    parser = arguments(__doc__)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    judges = {kind: load(given.state, kind) for kind in given.judges}
    subjects = chosen_subjects(given.subjects)
    key = run_key(given.overrides)
    with torch.no_grad():
        toybox = {name: references(name, given.state) for name in NAMES[:-1]}
    runs = given.state.resolve() / key / "runs"
    folder = given.results.parent / "pictures"
    folder.mkdir(parents=True, exist_ok=True)
    scenes = {}
    draw = drawer(given.overrides)
    samples = {}
    shown = torch.arange(0, VIEWS, VIEWS // SHOWN)
    for subject in subjects:
        print(subject, flush=True)
        scenes[subject] = distilled(runs / slug(subject), with_article(subject), given.overrides)
        samples[subject] = prior_views(subject, given.state, draw)
        prior = torch.nn.functional.interpolate(samples[subject], size=(2 * SIZE, 2 * SIZE), mode="bilinear")
        labels = [f"{with_article(subject)}: distilled", "the prior's own samples"]
        write_grid(folder / f"{slug(subject)}.png", [scenes[subject].pictures[shown], prior[shown]], labels)
    unguided = {
        name: distilled(
            runs / f"{slug(name)}_unguided", with_article(name), [*given.overrides, "guidance.scale=0", f"seed={i}"]
        )
        for i, name in enumerate(subjects[:CONTROLS])
    }
    result: dict[str, Any] = {
        "key": key,
        "overrides": given.overrides,
        "subjects": len(subjects),
        "views": VIEWS,
        "judges": {},
    }
    for kind, judge in judges.items():
        found = judged(judge, scenes, samples, toybox)
        controls = subjects[:CONTROLS]
        found["controls"] = {
            "subjects": len(controls),
            "shuffled_prompt": mean(
                [right(judge.read(scenes[name].pictures), next_subject(name)) for name in controls]
            ),
            "unguided": mean([right(judge.read(views.pictures), name) for name, views in unguided.items()]),
        }
        result["judges"][kind] = found
    shapes = {name: geometry(name, scene, toybox) for name, scene in scenes.items()}
    result["geometry"] = {
        "iou_above_others": sum(g["iou"] > g["iou_others"] for g in shapes.values()),
        "iou_above_best_other": sum(g["iou"] > g["iou_best_other"] for g in shapes.values()),
        "box_ok": sum(g["box_ok"] for g in shapes.values()),
        "planar": sum(g["planar"] for g in shapes.values()),
        "per_subject": shapes,
    }
    write_result(given.results, "distilled", {**result, **machine()})
    for kind, found in result["judges"].items():
        print(kind, {k: v for k, v in found.items() if k != "per_subject"})
    print({k: v for k, v in result["geometry"].items() if k != "per_subject"})


if __name__ == "__main__":
    main()
