"""Distillation of a small prior from scratch."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
from PIL import Image
from plyfile import PlyData

import diffusion3d
from choices import CAMERA, FIELDS, PRIOR, SCENE
from diffusion3d.errors import Interrupted, RunError, UserError
from diffusion3d.tasks.checkpoint import load_checkpoint
from signals import signalled

ROOT = Path(__file__).parent.parent.parent
SIZE = 32
TYPED = [
    "task=distill",
    "prompt=a castle",
    "logger=none",
    "device=cpu",
    *PRIOR,
    *SCENE,
    *CAMERA,
    "camera.distance=3.5",
    "representation.density.start=0.04",
    "representation.density.stop=1.0",
    "representation.density.rounds=15",
    "representation.density.cap=400",
    f"task.video_size={SIZE}",
    "task.preview_every=3",
    "task.checkpoint_every=2",
]
STEPS = 6


LIT = [
    *(part for part in TYPED if not part.startswith("representation.")),
    "representation=nerf",
    *FIELDS["nerf"],
    "representation.renderer.samples=8",
    "representation.renderer.chunk=1000",  # so small that training computes again in the backward pass
    "camera.size=16",
    "task.shading={_target_: diffusion3d.shading.Shadings, albedo: 3, lambertian: 1, textureless: 1, normal: 1}",
    "terms.orientation.weight=1.0",
]


def distill(directory, *overrides, steps=STEPS):
    return diffusion3d.run([*TYPED, f"task.steps={steps}", f"hydra.run.dir={directory}", *overrides])


def start(directory, *overrides, code=ROOT):
    """The same as a process of its own, with the package in `code`."""
    environment = {**os.environ, "PYTHONPATH": str(code)}
    command = [sys.executable, "-m", "diffusion3d.run", *TYPED, f"hydra.run.dir={directory}", *overrides]
    return subprocess.Popen(
        command, cwd=directory.parent, env=environment, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE
    )


def table(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def scene(directory):
    return (directory / "export" / "scene.ply").read_bytes()


def video(path):
    with imageio.get_reader(path) as reader:
        return np.stack([frame for frame in reader])  # noqa: C416, list() asks for a length


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run."""
    directory = tmp_path_factory.mktemp("distill") / "run"
    distill(directory)
    return directory


@pytest.fixture(scope="module")
def long(tmp_path_factory):
    """An undisturbed run that takes longer than it takes to kill one."""
    directory = tmp_path_factory.mktemp("long") / "run"
    distill(directory, steps=60)
    return directory


def test_a_run_leaves_everything_behind(whole):
    assert {path.name for path in whole.iterdir()} == {
        ".lock",
        "config.yaml",
        "overrides.yaml",
        "versions.json",
        "metrics.csv",
        "metrics.json",
        "run.log",
        "checkpoints",
        "previews",
        "videos",
        "contact_sheet.png",
        "export",
    }
    rows = table(whole)
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    terms = ("sds", *(f"terms/{name}" for name in ("opacity", "entropy", "sparsity", "size")))
    for row in rows:
        assert float(row["loss"]) == pytest.approx(sum(float(row[name]) for name in terms), rel=1e-4)
    assert json.loads((whole / "versions.json").read_text())["renderer"]
    metrics = json.loads((whole / "metrics.json").read_text())
    assert metrics["steps"] == STEPS and metrics["seconds"] > 0
    assert metrics["loss"] == pytest.approx(float(rows[-1]["loss"]))
    step, _ = load_checkpoint(whole / "checkpoints")
    assert step == STEPS
    for done in (3, 6):
        with Image.open(whole / "previews" / f"step_{done:05d}.png") as preview:
            assert preview.size == (4 * SIZE, SIZE)
    for name in ("rgb", "depth"):
        frames = video(whole / "videos" / f"{name}.mp4")
        assert frames.shape == (4, SIZE, SIZE, 3) and frames.std() > 1, name
    with Image.open(whole / "contact_sheet.png") as sheet:
        assert sheet.size == (8 * SIZE, 2 * SIZE)
    elements = PlyData.read(str(whole / "export" / "scene.ply"))["vertex"].count
    assert elements == metrics["parameters"] / 14 > 60, "density control has added some"
    assert "outputs in" in (whole / "run.log").read_text()


def test_equal_runs_have_equal_bits_and_other_seeds_others(whole, tmp_path):
    distill(tmp_path / "same")
    assert scene(tmp_path / "same") == scene(whole)
    assert table(tmp_path / "same") == table(whole)
    distill(tmp_path / "other", "seed=1")
    assert scene(tmp_path / "other") != scene(whole)


def test_every_raw_tensor_has_moved(whole, tmp_path):
    distill(tmp_path / "short", "representation.density=null", steps=2)
    distill(tmp_path / "none", "representation.density=null", "task.lr=0", steps=1)
    before, after = (load_checkpoint(tmp_path / name / "checkpoints")[1]["task"]["raw"] for name in ("none", "short"))
    for name, value in before.items():
        assert (after[name] != value).any(), name


def test_a_lit_run_pulls_at_the_normals_and_resumes_to_the_same_bits(tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    diffusion3d.run([*LIT, f"hydra.run.dir={whole}", f"task.steps={STEPS}"])
    facing_away = [float(row["terms/orientation"]) for row in table(whole)]
    assert 0 < sum(value > 0 for value in facing_away) < STEPS, "some steps are lit, and some are not"
    with pytest.raises(Interrupted), signalled(cut, signal.SIGINT):
        diffusion3d.run([*LIT, f"hydra.run.dir={cut}", f"task.steps={STEPS}"])
    assert 0 < len(table(cut)) < STEPS
    diffusion3d.run([f"run.resume={cut}"])
    assert table(cut) == table(whole)
    one, other = (load_checkpoint(run / "checkpoints")[1]["task"]["raw"] for run in (whole, cut))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_a_term_that_needs_light_is_refused_where_there_is_none(tmp_path):
    dark = [part for part in LIT if not part.startswith("task.shading")]
    with pytest.raises(
        UserError, match=r"terms\.orientation needs lit views, and task\.shading=.*lambertian"
    ) as caught:
        diffusion3d.run([*dark, f"hydra.run.dir={tmp_path / 'run'}", "prior.weights=nowhere.safetensors"])
    assert "\n" not in str(caught.value) and "terms.orientation=null" in str(caught.value)
    for mended in ("terms.orientation=null", "task.shading.lambertian=1.0"):
        diffusion3d.run([*dark, mended, "task.steps=1", f"hydra.run.dir={tmp_path / mended[:5]}"])


def test_lit_views_are_not_compared_with_pictures_that_are_not(tmp_path):
    typed = [*LIT, "guidance=reconstruct", f"hydra.run.dir={tmp_path / 'run'}"]
    with pytest.raises(UserError, match=r"task\.shading=.* lights the views, and this guidance .* only albedo"):
        diffusion3d.run(typed)


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_same_bits(long, tmp_path):
    killed = tmp_path / "killed"
    process = start(killed, "task.steps=60")
    while not list(killed.glob("checkpoints/step_000000[1-5]*.safetensors")):
        assert process.poll() is None, process.stderr.read().decode()
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert 10 <= load_checkpoint(killed / "checkpoints")[0] < 60
    assert not (killed / "metrics.json").exists()
    diffusion3d.run([f"run.resume={killed}"])
    assert table(killed) == table(long)
    assert scene(killed) == scene(long)
    final = "checkpoints/step_00000060.safetensors"
    assert (killed / final).read_bytes() == (long / final).read_bytes()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_the_resumed_run_is_bit_identical(number, long, tmp_path):
    stopped = tmp_path / "stopped"
    with pytest.raises(Interrupted, match="run.resume=") as caught, signalled(stopped, number):
        distill(stopped, steps=60)
    assert caught.value.exit_code == 128 + number
    step, _ = load_checkpoint(stopped / "checkpoints")
    assert len(table(stopped)) == step < 60
    assert not (stopped / "export").exists()
    diffusion3d.run([f"run.resume={stopped}"])
    assert scene(stopped) == scene(long) and table(stopped) == table(long)


@pytest.mark.slow
def test_it_knows_nothing_of_toybox(whole, tmp_path):
    """The package without its toybox makes the same scene, bit for bit."""
    shutil.copytree(ROOT / "diffusion3d", tmp_path / "code" / "diffusion3d", ignore=shutil.ignore_patterns("toybox"))
    shutil.copytree(ROOT / "conf", tmp_path / "code" / "conf")
    process = start(tmp_path / "run", f"task.steps={STEPS}", code=tmp_path / "code")
    _, err = process.communicate(timeout=300)
    assert process.returncode == 0, err.decode()
    assert scene(tmp_path / "run") == scene(whole)


@pytest.mark.parametrize("name", ["sds", "size"])
def test_nan_stops_the_run_and_names_the_term(name, tmp_path):
    weight = "guidance.weight" if name == "sds" else f"terms.{name}.weight"
    late = "{from: 1.0, to: inf, start: 0.5, end: 1.0}"
    term = name if name == "sds" else f"terms/{name}"
    with pytest.raises(RunError, match=rf"loss term '{term}' is nan at step \d; ") as caught:
        distill(tmp_path / "run", f"{weight}={late}")
    assert caught.value.exit_code == 1 and "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "metrics.json").exists()


def test_a_run_can_be_rendered_again(whole, tmp_path):
    again = tmp_path / "again"
    typed = ["task=render", f"run={whole}", "logger=none", f"hydra.run.dir={again}", "task.background=[0,0,1]"]
    metrics = diffusion3d.run([*typed, "task.size=48", "task.frames=3", "task.elevation=[0,60]"])
    assert metrics["frames"] == 3
    for name in ("rgb", "depth"):
        assert video(again / "videos" / f"{name}.mp4").shape == (3, 48, 48, 3)
    with Image.open(again / "contact_sheet.png") as sheet:
        corner = np.asarray(sheet)[0, 0]
    assert corner[2] == 255 and corner[:2].max() < 60, "before the background that was asked for"


def test_a_run_whose_density_control_an_older_version_set_can_be_rendered(whole, tmp_path):
    old, config = tmp_path / "old", (whole / "config.yaml").read_text()
    assert "rounds: 15" in config
    shutil.copytree(whole, old)
    (old / "config.yaml").write_text(config.replace("rounds: 15", "every: 4"))
    typed = ["task=render", f"run={old}", "logger=none", f"hydra.run.dir={tmp_path / 'again'}", "task.size=16"]
    assert diffusion3d.run([*typed, "task.frames=2"])["frames"] == 2


def test_renders_at_the_same_views_are_those_of_the_run(whole, tmp_path):
    again = tmp_path / "again"
    typed = ["task=render", f"run={whole}", "logger=none", f"hydra.run.dir={again}"]
    diffusion3d.run([*typed, f"task.size={SIZE}", "task.frames=4"])
    for name in ("rgb.mp4", "depth.mp4"):
        assert np.array_equal(video(again / "videos" / name), video(whole / "videos" / name))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "task=render needs a finished run: add run=DIR"),
        ("nowhere", "not a run directory"),
        ("empty", "holds no scene"),
    ],
)
def test_render_refuses_what_is_no_finished_run(source, message, whole, tmp_path):
    if source == "empty":
        (tmp_path / "empty").mkdir()
        shutil.copy(whole / "config.yaml", tmp_path / "empty")
    given = [f"run={tmp_path / source}"] if source else []
    with pytest.raises(UserError, match=message):
        diffusion3d.run(["task=render", "logger=none", f"hydra.run.dir={tmp_path / 'out'}", *given])


def test_a_longer_run_adds_its_steps(whole, tmp_path):
    copy = shutil.copytree(whole, tmp_path / "run")
    diffusion3d.run([f"run.resume={copy}", f"task.steps={STEPS + 2}"])
    assert table(copy)[:STEPS] == table(whole) and len(table(copy)) == STEPS + 2


def test_minutes_end_a_run_with_its_files(tmp_path):
    metrics = distill(tmp_path / "run", "task.minutes=0.001", steps=100_000)
    assert metrics["steps"] < 100_000 and scene(tmp_path / "run")
