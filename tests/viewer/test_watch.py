"""Watching runs: what the buttons do, and that nothing of it reaches the run."""

import csv
import math
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import nullcontext

import numpy as np
import pytest
import torch

import diffusion3d
from choices import CAMERA, FIELDS, PRIOR, SCENE, composed
from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import Interrupted, UserError
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.viewer.viewer import Viewer
from diffusion3d.viewer.watch import Pace, Watcher
from pages import Clock, Page, show
from shown_scenes import splats

STEPS = 6
DENSITY = ["representation.density.start=0.34", "representation.density.rounds=2", "representation.density.cap=400"]
DISTILL = ["task=distill", "prompt=a castle", *PRIOR, *SCENE, *DENSITY]
DATA = ["data=toybox_scenes", "data.train_views=4", "data.test_views=2", "data.size=32", "data.samples=1"]
FIT = ["task=fit", "representation=nerf", *FIELDS["nerf"], *DATA, "task.pixels=40"]
SHORT = [f"task.steps={STEPS}", "task.video_size=16", "task.preview_every=3", "task.checkpoint_every=2"]
ON = ["viewer=true", "viewer.port=0", "viewer.every=1"]


def run(directory, *typed):
    return diffusion3d.run([*typed, "logger=none", "device=cpu", *CAMERA, *SHORT, f"hydra.run.dir={directory}"])


def left(directory):
    """The last checkpoint's bytes and the rows of metrics.csv without the times."""
    with (directory / "metrics.csv").open(newline="") as file:
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]
    return (directory / "checkpoints" / f"step_{STEPS:08d}.safetensors").read_bytes(), rows


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A distillation that nobody watched."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    run(directory, *DISTILL)
    return directory


@pytest.fixture
def watcher():
    representation, raw = splats()
    with Viewer(representation, lambda: raw, Orbit(32, turntable_frames=4), port=0) as viewer:
        yield Watcher(viewer, steps=100, every=10)


def test_the_pace_of_buttons():
    pace = Pace()
    for pace.done in range(3):
        assert not pace.waits
    pace.pause()
    assert pace.waits
    pace.step()
    assert not pace.waits
    pace.done += 1
    assert pace.waits
    pace.go_on()
    assert not pace.waits
    pace.step()  # while it runs: one more, then a pause
    assert not pace.waits
    pace.done += 1
    assert pace.waits


def test_steps_and_losses_are_told_and_every_tenth_is_shown(watcher):
    page, versions = Page(), []
    show(watcher.viewer, page)
    for done in range(1, 31):
        assert not watcher(done, 0.123456)
        versions.append(watcher.viewer._version)
    assert versions == [*[0] * 9, *[1] * 10, *[2] * 10, 3]
    assert "of 100, loss 0.1235" in watcher._text.content
    watcher.pace.pause()
    assert watcher(31, 0.5)
    assert watcher._text.content == "step 31 of 100, loss 0.5 (paused)"
    assert watcher.viewer._version == 4, "a pause shows the step it is at"
    assert watcher(31, 0.5) and watcher.viewer._version == 4
    watcher.pace.step()
    assert not watcher(31, 0.5)
    assert watcher(32, 0.25) and watcher.viewer._version == 5


def test_a_button_pressed_in_a_pause_ends_it_at_once(watcher):
    watcher.pace.pause()
    threading.Timer(0.2, watcher.pace.go_on).start()
    begin = time.monotonic()
    while watcher(3, 1.0):
        assert time.monotonic() - begin < 5
    assert time.monotonic() - begin > 0.1


def test_whatever_fails_is_told_once_and_the_loop_goes_on(watcher, caplog):
    broken = Page()
    broken.set_background_image = None
    show(watcher.viewer, broken)
    watcher.pace.pause()
    assert not watcher(1, 1.0) and not watcher(2, 1.0)
    assert caplog.text.count("the viewer is off, the run goes on: TypeError") == 1


@pytest.mark.parametrize("typed", [DISTILL, FIT], ids=["distill", "fit"])
def test_a_watched_run_is_the_unwatched_one_to_the_bit(typed, whole, tmp_path, monkeypatch):
    """Pages look, a page goes away, scenes are rendered and random numbers drawn; some steps are made by hand."""
    if typed is DISTILL:
        plain = whole
    else:
        plain = tmp_path / "plain"
        run(plain, *typed)
    page, calls = Page(), []
    inner = Watcher.__call__

    def look(self, done, loss):
        calls.append(done)
        show(self.viewer, *([page, Page()] if done != 4 else [page]))
        self.viewer.panel._resolution.value = 64
        if self.viewer.panel._in_browser.visible:
            self.viewer.panel._in_browser.value = done % 2 == 0
        if done == 2 and calls.count(2) == 1:
            self.pace.pause()
        elif done == 2 and calls.count(2) > 8:
            self.pace.step()
        elif done == 3 and calls.count(3) > 2:
            self.pace.go_on()
        torch.rand(7), np.random.rand(), random.random()
        return inner(self, done, loss)

    monkeypatch.setattr(Watcher, "__call__", look)
    run(tmp_path / "watched", *typed, *ON)
    assert left(tmp_path / "watched") == left(plain)
    assert sorted(set(calls)) == [1, 2, 3, 4, 5, 6] and calls.count(2) > 8 and calls.count(3) > 2
    assert len(page.pictures) > 4 and "png" in page.formats


def watched(monkeypatch, hook):
    """Every task's loop is watched by `hook` instead of by a viewer."""
    monkeypatch.setattr(Task, "watch", lambda self, *arguments: nullcontext(hook))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_pause_and_the_run_can_go_on(number, whole, tmp_path, monkeypatch):
    timer = threading.Timer(0.2, os.kill, (os.getpid(), number))

    def hook(done, loss):
        assert math.isfinite(loss)
        if done == 3 and timer.ident is None:
            timer.start()
        return done >= 3

    watched(monkeypatch, hook)
    with pytest.raises(Interrupted, match="stopped at step 3 of 6"):
        run(tmp_path / "run", *DISTILL)
    assert load_checkpoint(tmp_path / "run" / "checkpoints")[0] == 3
    monkeypatch.undo()
    diffusion3d.run([f"run.resume={tmp_path / 'run'}", *ON[:2]])
    assert left(tmp_path / "run") == left(whole)


def test_a_pause_does_not_count_as_minutes(tmp_path, monkeypatch):
    clock = Clock()

    def hook(done, loss):
        clock.now += 3600
        return False

    watched(monkeypatch, hook)
    monkeypatch.setattr("diffusion3d.tasks.loop.time", clock)
    assert run(tmp_path / "run", *DISTILL, "task.minutes=1")["steps"] == STEPS


def test_viser_is_not_imported_without_a_viewer(tmp_path):
    program = (
        "import sys, diffusion3d; diffusion3d.run(sys.argv[1:]);"
        "sys.exit(any(name.split('.')[0] == 'viser' or 'viewer' in name for name in sys.modules))"
    )
    typed = [
        *DISTILL,
        *CAMERA,
        *SHORT,
        "logger=none",
        "device=cpu",
        "task.steps=1",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    done = subprocess.run([sys.executable, "-c", program, *typed], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (
            ["task=sample", "viewer=true"],
            "which task=sample does not do; these tasks do: task=distill, task=fit",
        ),
        (["viewer=yes please"], "viewer.enabled=yes please is text; it must be true or false"),
        (["viewer.port=99999"], r"viewer.port=99999 must be a number, in 0 ... 65535"),
        (["viewer.every=0"], "viewer.every=0 must be a number, at least 1"),
        (["viewer.prot=1"], "there is no viewer.prot in the config; did you mean viewer.port"),
    ],
)
def test_settings_that_cannot_work(typed, message):
    with pytest.raises(UserError, match=message):
        composed(*typed)


def test_whether_a_run_is_watched_does_not_change_its_name(tmp_path, monkeypatch):
    from diffusion3d.config import resolved
    from diffusion3d.naming import run_name

    choices = {"task": "distill"}
    assert run_name(resolved(composed()), choices) == run_name(resolved(composed(*ON)), choices)
