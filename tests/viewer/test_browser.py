"""The pages in headless Chromium: what they show and what their controls do. `pytest -m browser` runs these alone."""

import io
import re
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import imageio.v3 as imageio
import numpy as np
import pytest

import diffusion3d
from choices import CAMERA, FIELDS, PRIOR, SCENE
from chromium import browser  # noqa: F401
from diffusion3d.tasks.checkpoint import load_checkpoint, save_checkpoint
from shown_scenes import splats

pytestmark = pytest.mark.browser

WIDTH, HEIGHT = 900, 600
DATA = ["data=toybox_scenes", "data.train_views=2", "data.test_views=1", "data.size=32", "data.samples=1"]
COMMON = ["logger=none", "device=cpu", *CAMERA, "camera.turntable_frames=40", "task.video_size=16"]
PATIENCE = 90.0
CLEAR = np.s_[200:, :450]
"""Where neither panel nor notices are."""
WHITE, BLACK, BLUE = (255, 255, 255), (0, 0, 0), (0, 0, 255)


@pytest.fixture
def page(browser):  # noqa: F811
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    yield page
    page.close()


@contextmanager
def served(*command):
    """A process of the package that serves a page: (process, url)."""
    process = subprocess.Popen(
        [sys.executable, "-m", *command], stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    patience = threading.Timer(4 * PATIENCE, process.kill)
    patience.start()
    try:
        lines = []
        for line in process.stderr:
            lines.append(line)
            if found := re.search(r" at (http://127\.0\.0\.1:\d+)", line):
                yield process, found[1]
                break
        else:
            raise AssertionError("".join(lines))
    finally:
        patience.cancel()
        process.kill()
        process.communicate()


def fitted(directory, *typed):
    """The directory of a fit of one step."""
    diffusion3d.run(["task=fit", "task.steps=1", *typed, *COMMON, *DATA, f"hydra.run.dir={directory}"])
    return directory


@pytest.fixture(scope="module")
def reds(tmp_path_factory):
    """A run whose splats are a red cloud."""
    directory = fitted(tmp_path_factory.mktemp("reds") / "run", *SCENE, "representation.density=null")
    step, content = load_checkpoint(directory / "checkpoints")
    _, content["task"]["raw"] = splats(200)
    save_checkpoint(directory / "checkpoints", step + 1, content)
    return directory


def shot(page, tmp_path, name):
    """A screenshot [HEIGHT, WIDTH, 3], kept as a file to be looked at."""
    png = page.screenshot()
    (tmp_path / f"{name}.png").write_bytes(png)
    return imageio.imread(io.BytesIO(png), extension=".png")[..., :3].astype(int)


def middle(picture):
    """The mean colour around the middle."""
    return picture[HEIGHT // 2 - 10 : HEIGHT // 2 + 10, WIDTH // 2 - 10 : WIDTH // 2 + 10].mean((0, 1))


def corners(picture):
    """The colours near the corners on the left, where neither panel nor notices are."""
    return np.stack([picture[100, 12], picture[-12, 12]])


def see(page, tmp_path, name, seen):
    """The first screenshot of which `seen` is true."""
    end = time.monotonic() + PATIENCE
    while True:
        picture = shot(page, tmp_path, name)
        if seen(picture):
            return picture
        assert time.monotonic() < end, f"middle {middle(picture)}, corners {corners(picture)}: {tmp_path / name}.png"
        time.sleep(0.2)


def close(colours, to):
    return bool((np.abs(colours - np.array(to)) < 12).all())


def is_red(picture):
    red, green, blue = middle(picture)
    return red > 200 and green < 120 and blue < 120


def is_grey(picture):
    colour = middle(picture)
    return np.ptp(colour) < 40 and 60 < colour.mean() < 200


def choose(page, shown):
    page.get_by_role("combobox", name="Show", exact=True).click()
    page.get_by_role("option", name=shown, exact=True).click()


def paint(page, colour):
    field = page.locator("input.mantine-ColorInput-input")
    field.fill("rgb({}, {}, {})".format(*colour))
    field.press("Enter")


def test_splats_are_seen_and_controls_work(reds, page, tmp_path):
    with served("diffusion3d.view", str(reds), "--port", "0", "--device", "cpu") as (_, url):
        page.goto(url)
        see(page, tmp_path, "splats", lambda p: is_red(p) and close(corners(p), WHITE))
        paint(page, BLUE)
        see(page, tmp_path, "blue", lambda p: is_red(p) and close(corners(p), BLUE))
        choose(page, "depth")
        see(page, tmp_path, "depth", lambda p: (close(corners(p), BLACK) and is_grey(p)) or middle(p).min() > 200)
        choose(page, "normals")
        see(page, tmp_path, "normals", lambda p: close(corners(p), BLUE) and not is_red(p) and not is_grey(p))
        choose(page, "colour")
        paint(page, WHITE)
        native = see(page, tmp_path, "native", lambda p: is_red(p) and close(corners(p), WHITE))
        page.get_by_label("Drawn by the browser").uncheck()
        time.sleep(2)
        rendered = see(page, tmp_path, "rendered", lambda p: is_red(p) and close(corners(p), WHITE))
        assert np.abs(native - rendered)[CLEAR].mean() < 4, "the browser's splats are ours"


def test_the_turntable_plays_and_records_and_the_camera_comes_back(reds, page, tmp_path):
    with served("diffusion3d.view", str(reds), "--port", "0", "--device", "cpu") as (_, url):
        page.goto(url)
        first = see(page, tmp_path, "front", is_red)
        page.get_by_label("Play").check()
        see(page, tmp_path, "turned", lambda p: np.abs(p - first)[CLEAR].mean() > 2)
        page.get_by_label("Play").uncheck()
        page.get_by_role("button", name="Reset camera").click()
        see(page, tmp_path, "back", lambda p: np.abs(p - first)[CLEAR].mean() < 0.5)
        page.get_by_role("button", name="Record").click()
        page.get_by_text("viewer_colour_1.mp4").wait_for(timeout=1000 * PATIENCE)
        assert imageio.imread(reds / "videos" / "viewer_colour_1.mp4").shape == (40, 512, 512, 3)


def test_a_field_is_streamed_and_follows_the_mouse(page, tmp_path):
    run = fitted(tmp_path / "run", "representation=nerf", *FIELDS["nerf"], "task.pixels=50")
    with served("diffusion3d.view", str(run), "--port", "0", "--device", "cpu") as (_, url):
        page.goto(url)
        front = see(page, tmp_path, "field", lambda p: is_grey(p) and close(corners(p), WHITE))
        page.mouse.move(300, 300)
        page.mouse.wheel(0, -600)
        near = see(page, tmp_path, "near", lambda p: np.abs(p - front)[CLEAR].mean() > 3)
        assert (near[CLEAR] < 200).sum() > (front[CLEAR] < 200).sum()


def test_a_run_is_paused_stepped_and_finished(page, tmp_path):
    directory = tmp_path / "run"
    typed = ["task=distill", "prompt=a castle", *PRIOR, *SCENE, *COMMON, "task.steps=4000", "task.preview_every=4000"]
    with served("diffusion3d.run", *typed, "viewer=true", "viewer.port=0", f"hydra.run.dir={directory}") as (
        process,
        url,
    ):
        page.goto(url)
        page.get_by_text(re.compile(r"step \d+ of 4000, loss \d")).wait_for(timeout=1000 * PATIENCE)
        see(page, tmp_path, "running", lambda p: close(corners(p), WHITE) and middle(p).max() < 250)
        page.get_by_role("button", name="Pause").click()
        page.get_by_text("(paused)").wait_for(timeout=1000 * PATIENCE)
        paused = step(page)
        time.sleep(1)
        assert step(page) == paused
        for after in (1, 2):
            page.get_by_role("button", name="Step").click()
            page.get_by_text(f"step {paused + after} of 4000").wait_for(timeout=1000 * PATIENCE)
        shot(page, tmp_path, "paused")
        page.close()  # a page that goes away changes nothing
        time.sleep(0.5)
        assert process.poll() is None
        process.terminate()
        assert process.wait(PATIENCE) == 143
    assert load_checkpoint(directory / "checkpoints")[0] == paused + 2


def step(page):
    return int(re.search(r"step (\d+) of", page.get_by_text(re.compile(r"step \d+ of")).inner_text())[1])
