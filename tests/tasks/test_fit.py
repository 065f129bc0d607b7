"""Fitting every representation to views of a toybox object."""

import csv
import json
import signal

import numpy as np
import pytest
import torch

import diffusion3d
from choices import CAMERA, FIELDS, SCENE, choices
from diffusion3d.data.base import InMemory
from diffusion3d.errors import Interrupted, UserError
from diffusion3d.metrics.images import psnr, ssim
from diffusion3d.metrics.st_lpips import st_lpips, weights
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.fit import CHUNK, baselines, judge, judge_drawn, perceptual, whole
from diffusion3d.views import PosedViews
from signals import signalled

SIZE = 32
DATA = ["data=toybox_scenes", "data.train_views=12", "data.test_views=4", f"data.size={SIZE}", "data.samples=2"]
TYPED = ["task=fit", "prompt=", "logger=none", "device=cpu", *DATA, *CAMERA, f"task.video_size={SIZE}"]
TINY = {"gsplat": [*SCENE, "representation.density=null"], **FIELDS}
TINY["nerf_frequency"] = [*FIELDS["nerf_frequency"], "representation.learning_rates.head=1e-2"]
STEPS = 40


def fit(directory, *overrides):
    return diffusion3d.run([*TYPED, f"hydra.run.dir={directory}", *overrides])


def table(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


@pytest.mark.parametrize("name", choices("representation"))
def test_every_representation_learns_an_object(name, tmp_path):
    typed = [f"representation={name}", *TINY.get(name, []), f"task.steps={STEPS}", "task.preview_every=20"]
    typed += ["task.lr=2"] if name != "image" else []
    metrics = fit(tmp_path, *typed, *(["task.pixels=100"] if name not in ("gsplat", "image") else []))
    assert metrics["steps"] == STEPS and metrics["parameters"] > 0
    rows = [float(row["test/psnr"]) for row in table(tmp_path) if row["test/psnr"]]
    assert len(rows) == 2 and rows[-1] == pytest.approx(metrics["test/psnr"], abs=1e-4)
    assert rows[1] > rows[0]
    if name != "image":  # one picture cannot show all sides
        assert rows[1] > max(metrics["test/psnr_mean_image"], metrics["test/psnr_nearest_view"]) + 0.3
    for file in ("videos/rgb.mp4", "videos/depth.mp4", "contact_sheet.png", f"previews/step_{STEPS:05d}.png"):
        assert (tmp_path / file).stat().st_size > 0
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert {"test/psnr", "test/ssim", "test/psnr_masked", "test/psnr_mean_image", "test/ssim_nearest_view"} <= set(
        record
    )


@pytest.mark.parametrize("density", choices("density"))
def test_every_control_of_the_number_of_splats_works(density, tmp_path):
    typed = [f"density@representation.density={density}", *SCENE, "task.steps=12", "task.preview_every=12"]
    early = {"adaptive": ["refine_start_iter=1", "refine_every=4"], "mcmc": ["start=2", "every=4"]}.get(density, [])
    metrics = fit(tmp_path, *typed, *(f"representation.density.{setting}" for setting in early))
    count = load_checkpoint(tmp_path / "checkpoints")[1]["task"]["raw"]["means"].shape[1]
    assert metrics["steps"] == 12 and count != 60


@pytest.mark.parametrize("name", ["gsplat", "mcmc", "adaptive", "nerf"])
def test_a_resumed_fit_is_the_undisturbed_one(name, tmp_path):
    typed = [*TINY.get(name, SCENE), "task.checkpoint_every=2", "task.preview_every=3"]
    if name in choices("density"):
        early = {"adaptive": ["refine_start_iter=1", "refine_every=2"], "mcmc": ["start=1", "every=2"]}[name]
        typed += [f"density@representation.density={name}", *(f"representation.density.{setting}" for setting in early)]
    if name == "nerf":
        typed += ["representation=nerf"]
        typed += ["representation.occupancy.every=2", "representation.occupancy.warmup=2", "task.pixels=50"]
    fit(tmp_path / "whole", *typed, "task.steps=6")
    with pytest.raises(Interrupted), signalled(tmp_path / "cut", signal.SIGINT):
        fit(tmp_path / "cut", *typed, "task.steps=6")
    assert 0 < len(table(tmp_path / "cut")) < 6
    diffusion3d.run([f"run.resume={tmp_path / 'cut'}", "task.video_size=16"])
    one, other = (load_checkpoint(tmp_path / d / "checkpoints")[1]["task"] for d in ("whole", "cut"))
    assert all(torch.equal(one["raw"][key], other["raw"][key]) for key in one["raw"])
    assert table(tmp_path / "whole") == table(tmp_path / "cut")


def test_views_can_be_fitted_without_their_own_maps(tmp_path):
    typed = ["representation=ib_planes", *TINY["ib_planes"], "task.pixels=50", "task.steps=1", "task.views=1"]
    maps = {}
    for name, setting in (("start", "task.lr=0"), ("others", "task.own_maps=false"), ("all", "task.own_maps=true")):
        fit(tmp_path / name, *typed, "data.train_views=3", setting)
        maps[name] = load_checkpoint(tmp_path / name / "checkpoints")[1]["task"]["raw"]["maps"]
    learnt = {name: (maps[name] != maps["start"]).flatten(2).any(2).sum().item() for name in ("others", "all")}
    assert learnt == {"others": 2, "all": 3}, "a step looks at one of three views, each with maps of its own"
    with pytest.raises(UserError, match="own_maps=false is for representations with source views"):
        fit(tmp_path / "splats", *SCENE, "task.own_maps=false")


@pytest.mark.parametrize("name", choices("representation"))
def test_several_scenes_are_fitted_at_once(name, tmp_path):
    typed = [f"representation={name}", *TINY.get(name, []), "data.scenes=2", "task.scenes=2"]
    typed += ["task.pixels=50"] if name not in ("gsplat", "image") else []
    metrics = fit(tmp_path, *typed, "task.steps=3")
    raw = load_checkpoint(tmp_path / "checkpoints")[1]["task"]["raw"]
    assert all(value.shape[0] == 2 for value in raw.values())
    assert metrics["test/psnr_worst"] <= metrics["test/psnr"]


def test_the_number_of_splats_is_controlled_for_one_scene_alone_and_said_before_the_data_are_read(tmp_path):
    typed = ["task=fit", "logger=none", "data=transforms", f"data.root={tmp_path / 'none'}", "task.scenes=2"]
    with pytest.raises(UserError, match=r"one scene, not for 2: set representation.density=null"):
        diffusion3d.run([*typed, f"hydra.run.dir={tmp_path / 'run'}"])


def test_a_rendered_run_shows_one_of_its_scenes(tmp_path):
    typed = ["representation=voxels", *TINY["voxels"], "data.scenes=2", "task.scenes=2", "task.pixels=20"]
    fit(tmp_path / "fit", *typed, "task.steps=1")
    again = ["task=render", "logger=none", f"run={tmp_path / 'fit'}", "task.size=16", "task.frames=2"]
    diffusion3d.run([*again, "task.scene=1", f"hydra.run.dir={tmp_path / 'one'}"])
    with pytest.raises(UserError, match="task.scene=2: .* has scenes 0 to 1"):
        diffusion3d.run([*again, "task.scene=2", f"hydra.run.dir={tmp_path / 'two'}"])


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["task.scenes=2", "representation.density=null"], "task.scenes=2, and the data hold 1"),
        (["task.loss={l1: 0.0, l2: 0.0, dssim: 0.0, alpha: 0.0}"], "weights must be >= 0, and one above"),
        (["task.loss.l2=-1.0"], "weights must be >= 0, and one above"),
        (["data.size=8"], "judges images of 11 x 11 pixels and more"),
        (["task.pixels=0"], "task.pixels=0 must be a number, at least 1"),
        (["representation=nerf", "representation.renderer.samples=0"], "samples=0 and chunk=131072 must be positive"),
        (
            [
                "representation=nerf",
                "representation.background={_target_: diffusion3d.representations.background.LearnedBackground}",
            ],
            "representation.background is for opaque images",
        ),
    ],
)
def test_what_cannot_work_is_one_line_before_the_first_step(typed, message, tmp_path):
    with pytest.raises(UserError, match=message):
        fit(tmp_path, *(SCENE if "representation=nerf" not in typed else []), *typed)


def test_losses_that_single_pixels_cannot_give_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"task\.pixels=9 picks single pixels, which have no SSIM"):
        fit(tmp_path, *SCENE, "task.pixels=9", "task.steps=1")


def test_data_without_test_views_are_refused_before_anything_is_loaded(tmp_path):
    with pytest.raises(UserError, match="task=fit needs 'test_views'.*data=toybox_scenes"):
        diffusion3d.run(["task=fit", "logger=none", "data=toybox", f"hydra.run.dir={tmp_path}"])


def posed(count=3):
    """Views whose cameras look from places 0, 1, 2 … along a line, each of one grey."""
    from choices import cameras

    some = cameras(1, count)
    c2w = some.c2w.clone()
    c2w[0, :, :3, 3] = torch.arange(count)[:, None].float()
    greys = torch.linspace(0, 1, count)[None, :, None, None, None]
    images = greys.expand(1, count, 3, some.height, some.width).clone()
    return PosedViews(type(some)(c2w, some.K, some.height, some.width), images, torch.ones_like(images[:, :, :1]))


def test_the_guesses_are_the_mean_and_the_nearest_view():
    known = posed(3)
    held = known.select(views=torch.tensor([1]))
    found = baselines(known, held)
    assert found["test/psnr_mean_image"] > 100 and found["test/psnr_nearest_view"] > 100, "both are the middle grey"
    far = known.select(views=torch.tensor([2]))
    found = baselines(known.select(views=torch.tensor([0, 1])), far)
    assert found["test/psnr_nearest_view"] == pytest.approx(-10 * np.log10(0.5**2), abs=1e-3)
    assert found["test/psnr_mean_image"] == pytest.approx(-10 * np.log10(0.75**2), abs=1e-3)


def test_masked_scores_are_of_the_object_alone():
    held = posed(1)
    alpha = torch.zeros_like(held.alpha)
    alpha[..., :10, :10] = 1
    held = PosedViews(held.cameras, held.images * alpha, alpha)
    images = held.over(torch.ones(1, 3))
    images[..., 20, 20] = 0.0
    scores = judge(images, held)
    assert scores["test/psnr_masked"] > 100 > scores["test/psnr"]
    assert scores["test/psnr"] == pytest.approx(float(psnr(images[0], held.over(torch.ones(1, 3))[0])))


def test_views_are_drawn_and_judged_a_few_at_a_time():
    held = posed(2 * CHUNK + 3)
    images = torch.rand(held.images.shape, generator=torch.Generator().manual_seed(0))
    asked = []

    def draw(views):
        asked.append(images[:, views].shape[1])
        return images[:, views]

    scores = judge_drawn(draw, held)
    assert asked == [CHUNK, CHUNK, 3]
    truth = held.over(torch.ones(1, 3))
    assert scores["test/psnr"] == pytest.approx(float(psnr(images[0], truth[0]).mean()))
    assert scores["test/ssim"] == pytest.approx(float(ssim(images[0], truth[0]).mean()), abs=1e-6)
    distance = perceptual(draw, held)
    if weights() is not None:
        assert asked[3:] == [CHUNK, CHUNK, 3]
        expected = torch.cat([st_lpips(images[0, [view]], truth[0, [view]]) for view in range(2 * CHUNK + 3)])
        assert distance["test/st_lpips"] == pytest.approx(float(expected.mean()), rel=1e-5)


def test_all_views_are_taken_in_order():
    views = posed(4)
    data = InMemory(views.cameras, (views.images * 255).to(torch.uint8), [["x"]])
    assert torch.equal(whole(data, 1).cameras.c2w, views.cameras.c2w)
