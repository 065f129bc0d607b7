"""The page in headless Chromium, opened from disk: what it shows and what its controls do. `pytest -m browser` runs these."""

import io
import re
import shutil
import time

import imageio.v3 as imageio
import numpy as np
import pytest
import torch
import trimesh

from chromium import browser  # noqa: F401
from compared_runs import FRAMES, config, make_run
from diffusion3d.camera_sampling import Orbit
from diffusion3d.compare import compare
from diffusion3d.export.meshes import Y_UP
from diffusion3d.rendering.render import composite
from diffusion3d.representations.ply import write_ply
from diffusion3d.representations.splats import splats_of
from shown_scenes import splats

pytestmark = pytest.mark.browser

DESKTOP, PHONE = (1280, 800), (390, 844)
PATIENCE = 60_000.0
EVIL = "<img src=x onerror=\"document.title='bad'\"></script><script>document.title='bad'</script>"
FILMED = 6
RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """Three prompts × two scales, a mesh, one that failed and one whose prompt is code."""
    folder = tmp_path_factory.mktemp("compared") / "outputs"
    for number, prompt in enumerate(("castle", "race car", "a standing corgi dog")):
        for scale in (5.0, 10.0):
            metrics = {"loss": scale * (number + 1), "seconds": 30.0}
            typed = [f"prompt={prompt}", f"guidance.scale={scale}"]
            make_run(folder / f"{prompt[:6].strip()}_{scale:g}", config(prompt, scale), typed, metrics)
    mesh = make_run(folder / "mesh", config("box", 5.0), metrics={"loss": 99.0}, videos=(), scene=False)
    (mesh / "export").mkdir()
    boxes = trimesh.Scene()
    for colour, place in ((RED, (0, 0, 0)), (GREEN, (0, 0.7, 0)), (BLUE, (0, 0, 0.7))):
        box = trimesh.creation.box(extents=(0.4, 0.4, 0.4))
        box.visual.vertex_colors = np.tile([*colour, 255], (len(box.vertices), 1))
        boxes.add_geometry(box, transform=Y_UP @ trimesh.transformations.translation_matrix(place))
    (mesh / "export" / "mesh.glb").write_bytes(boxes.export(file_type="glb"))
    make_run(folder / "failed", config("box", 10.0), error="ValueError: no such thing", videos=(), scene=False)
    make_run(folder / "evil", config(EVIL, 5.0), [f"prompt={EVIL}"], {"loss": 1.0}, videos=("rgb",), scene=False)
    return folder


@pytest.fixture(scope="module")
def index(outputs, tmp_path_factory):
    out = tmp_path_factory.mktemp("page") / "compare"
    compare([outputs], out)
    return out / "index.html"


@pytest.fixture
def opened(browser):  # noqa: F811
    """opened(index, size, more of a browser context) -> a page; at the end none may have had an error or asked the network."""
    contexts, wrong = [], []

    def opened(index, size=DESKTOP, **more):
        context = browser.new_context(viewport={"width": size[0], "height": size[1]}, **more)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda message: message.type == "error" and wrong.append(message.text))
        page.on("request", lambda request: request.url.startswith(("file:", "blob:")) or wrong.append(request.url))
        page.goto(index.as_uri())
        page.set_default_timeout(PATIENCE)
        return page

    opened.wrong = wrong
    yield opened
    for context in contexts:
        context.close()
    assert wrong == []


def pixels(png):
    return imageio.imread(io.BytesIO(png), extension=".png")[..., :3].astype(int)


def shot(page, tmp_path, name, locator=None):
    """A screenshot [H, W, 3], kept as a file to be looked at."""
    png = (page if locator is None else page.locator(locator)).screenshot()
    (tmp_path / f"{name}.png").write_bytes(png)
    return pixels(png)


def until(page, condition):
    """Wait; Playwright's own way evaluates text, which the page forbids."""
    end = time.monotonic() + PATIENCE / 1000
    while not page.evaluate(condition):
        assert time.monotonic() < end, condition
        page.wait_for_timeout(50)


def ready(page, count=FILMED):
    """Wait until so many videos can show a picture."""
    until(page, f"[...document.querySelectorAll('video')].filter((v) => v.readyState >= 2).length >= {count}")


def titles(page):
    return page.locator("#grid .card strong").all_inner_texts()


def names(page):
    return [name.rpartition("/")[2] for name in page.locator("#grid .card .name").all_inner_texts()]


def arrange(page, **chosen):
    if not page.locator("#sort").is_visible():
        page.locator("#arrange > summary").click()
    for field, value in chosen.items():
        page.select_option(f"#{field.replace('_', '-')}", value)


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_grid_fits_and_follows_the_scheme(index, opened, tmp_path, size, scheme):
    touch = {"has_touch": True, "device_scale_factor": 2} if size == PHONE else {}
    page = opened(index, size, color_scheme=scheme, **touch)
    ready(page, 3)
    for name, rows in (("table", "prompt"), ("cards", "")):
        arrange(page, rows=rows, columns="guidance.scale" if rows else "")
        page.locator("#arrange > summary").click()
        picture = shot(page, tmp_path, f"{name}_{scheme}")
        assert page.evaluate("document.scrollingElement.scrollWidth <= innerWidth")
        assert (picture[-2:, :4].mean() > 128) == (scheme == "light")
    page.locator("#curves > summary").click()
    page.wait_for_selector("#plot canvas")
    shot(page, tmp_path, f"curves_{scheme}")
    page.locator(".card").first.click()
    page.wait_for_selector("#view[data-drawn]")
    shot(page, tmp_path, f"detail_{scheme}")
    box = page.locator("#detail").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= size[0]


def test_prompts_and_variants_make_a_table_by_themselves(index, outputs, opened, tmp_path):
    page = opened(index)
    assert page.locator("thead th").all_inner_texts() == ["guidance.scale 5", "guidance.scale 10"]
    assert page.locator("tbody th").count() == 5
    row = page.locator("tbody tr", has_text="castle")
    assert row.locator("td").nth(1).locator(".name").inner_text() == "castle_10"


def test_sorting(index, opened):
    page = opened(index)
    arrange(page, rows="", columns="", sort="metric loss")
    ascending = ["evil", "castle_5", "castle_10", "failed", "race c_5", "a stan_5", "race c_10", "a stan_10", "mesh"]
    assert names(page) == ascending
    page.locator("#descending").check()
    assert names(page)[0] == "mesh" and names(page)[-1] == "evil"
    arrange(page, sort="metric seconds")
    assert names(page)[-3:] == ["evil", "failed", "mesh"], "those without the figure come last"
    arrange(page, sort="prompt")
    assert titles(page)[0] == "race car"


def test_filtering(index, opened, tmp_path):
    page = opened(index)
    arrange(page, rows="", columns="", add_filter="prompt")
    page.locator("#filters").get_by_label("castle").uncheck()
    assert "castle" not in titles(page) and len(titles(page)) == 7
    arrange(page, add_filter="metric loss")
    page.get_by_label("metric loss at most").fill("20")
    assert set(names(page)) == {"race c_5", "race c_10", "a stan_5", "evil", "failed"}
    shot(page, tmp_path, "filtered")
    assert page.locator("#count").inner_text() == "5 of 9 runs"
    page.get_by_label("metric loss at most").fill("-1")
    assert page.locator("#nothing").is_visible()
    page.get_by_role("button", name="Remove the filter of metric loss").click()
    page.get_by_role("button", name="Remove the filter of prompt").click()
    assert len(titles(page)) == 9
    arrange(page, add_filter="name")
    page.get_by_label("name contains").fill("RACE")
    assert len(titles(page)) == 2
    arrange(page, add_filter="status")
    page.locator("#filters").get_by_label("finished").uncheck()
    assert titles(page) == []


def test_videos_play_in_step_and_stop_at_one_frame(index, opened, tmp_path):
    page = opened(index)
    arrange(page, rows="", columns="")
    ready(page)
    until(page, "clock.playing && clock.phase > 0")
    spreads = page.evaluate(
        """async () => {
            const spreads = [], start = performance.now();
            while (performance.now() - start < 7000) {
                await new Promise(requestAnimationFrame);
                const at = [...clock.videos].map((video) => video.currentTime / video.duration);
                spreads.push(Math.max(...at) - Math.min(...at));
            }
            return spreads;
        }"""
    )
    in_step = np.mean(np.array(spreads) * FRAMES <= 1)
    assert len(spreads) > 20 and in_step > 0.95, f"{in_step:.0%} of {len(spreads)} moments within one frame"
    page.get_by_role("button", name="Pause").click()
    for phase in (0.25, 0.8):
        page.locator("#seek").evaluate(f"(e) => {{ e.value = {phase}; e.dispatchEvent(new Event('input')); }}")
        until(page, "[...clock.videos].every((video) => video.paused && !video.seeking)")
        page.wait_for_timeout(500)
        greys = greys_of(page, tmp_path, f"paused_{phase}")
        assert np.ptp(greys) <= 2 and abs(greys[0] - (20 + 200 * phase)) < 12
    page.get_by_label("Depth").check()
    ready(page)
    until(page, "[...clock.videos].every((video) => !video.seeking)")
    page.wait_for_timeout(500)
    greys = greys_of(page, tmp_path, "depth")
    assert np.ptp(greys) <= 2 and abs(greys[0] - (255 - 20 - 200 * 0.8)) < 12
    assert page.locator(".media", has_text="no depth").count() == 1


def greys_of(page, tmp_path, name):
    """The colour in the middle of every video."""
    picture = shot(page, tmp_path, name)
    boxes = [video.bounding_box() for video in page.locator("#grid video").all()]
    return [picture[int(b["y"] + b["height"] / 2), int(b["x"] + b["width"] / 2)].mean() for b in boxes]


def test_stillness_is_kept_where_it_is_wanted(index, opened):
    page = opened(index, reduced_motion="reduce")
    ready(page, 3)
    assert page.locator("#play").inner_text() == "Play"
    assert page.evaluate("[...clock.videos].every((video) => video.paused && video.currentTime === 0)")
    page.locator("#play").click()
    until(page, "clock.phase > 0.05")


def test_curves_are_drawn_and_named(index, opened, tmp_path):
    page = opened(index)
    page.locator("#curves > summary").click()
    page.wait_for_selector("#plot canvas")
    page.wait_for_timeout(300)
    linear = shot(page, tmp_path, "linear", "#plot")
    assert (np.ptp(linear, -1) > 60).sum() > 300, "curves have colours"
    page.locator("#log").check()
    page.wait_for_timeout(300)
    logarithmic = shot(page, tmp_path, "logarithmic", "#plot")
    assert (np.abs(linear - logarithmic).max(-1) > 60).sum() > 300
    coloured = np.argwhere(np.ptp(logarithmic, -1) > 60)
    y, x = coloured[len(coloured) // 2]
    box = page.locator("#plot").bounding_box()
    page.mouse.move(box["x"] + float(x), box["y"] + float(y))
    page.mouse.move(box["x"] + float(x) + 1, box["y"] + float(y))
    until(page, "/castle|race|corgi|box|img/.test(document.getElementById('nearest').textContent)")
    page.select_option("#figure", "terms/size")
    page.wait_for_timeout(500)
    assert (np.abs(logarithmic - shot(page, tmp_path, "size", "#plot")).max(-1) > 60).sum() > 300


def test_splats_open_from_disk_and_turn(index, opened, tmp_path):
    page = opened(index)
    page.locator(".card", has_text="castle_5").click()
    page.wait_for_selector("#view[data-drawn]")
    page.wait_for_timeout(300)
    front = shot(page, tmp_path, "splats", "#view")
    red = (front[..., 0] > front[..., 1] + 60).mean()
    assert red > 0.02, f"{red:.1%} of the pixels are red"
    assert "splats" in page.locator("#note").inner_text()
    page.locator("#view").focus()
    for _ in range(12):
        page.keyboard.press("ArrowRight")
    page.wait_for_timeout(500)
    turned = shot(page, tmp_path, "turned", "#view")
    assert (np.abs(turned - front).max(-1) > 20).mean() > 0.01
    page.keyboard.press("0")
    page.wait_for_timeout(500)
    assert np.abs(shot(page, tmp_path, "reset", "#view") - front).mean() < 0.1
    box = page.locator("#view").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 200)
    page.mouse.wheel(0, -800)
    page.wait_for_timeout(500)
    near = shot(page, tmp_path, "near", "#view")
    assert (near[..., 0] > near[..., 1] + 60).mean() > 1.5 * red
    page.keyboard.press("0")
    page.mouse.down()
    page.mouse.move(box["x"] + 300, box["y"] + 240)
    page.mouse.up()
    page.wait_for_timeout(500)
    assert (np.abs(shot(page, tmp_path, "dragged", "#view") - front).max(-1) > 20).mean() > 0.01


def test_splats_look_as_our_renderer_sees_them(browser, opened, tmp_path):  # noqa: F811
    representation, raw = splats(400)
    generator = torch.Generator().manual_seed(1)
    raw = {name: value + torch.randn(value.shape, generator=generator) * spread(name) for name, value in raw.items()}
    run = make_run(tmp_path / "run", videos=(), scene=False, steps=1)
    (run / "export").mkdir()
    (run / "export" / "scene.ply").write_bytes(write_ply(splats_of(raw)))
    compare([run], tmp_path / "compare")
    page = opened(tmp_path / "compare" / "index.html", color_scheme="dark")
    page.locator(".card").click()
    page.wait_for_selector("#view[data-drawn]")
    page.wait_for_timeout(500)
    seen = shot(page, tmp_path, "seen", "#view")[2:-2]
    side = seen.shape[0]
    left = (seen.shape[1] - side) // 2
    ground = torch.tensor([[0x16, 0x16, 0x18]]) / 255
    with torch.no_grad():
        render = representation.scene(raw).render(Orbit(64).turntable(1, size=side))
        expected = 255 * composite(render, ground)[0, 0].movedim(0, -1).numpy()
    imageio.imwrite(tmp_path / "expected.png", expected.clip(0, 255).astype(np.uint8))
    assert expected.std() > 20
    assert np.abs(seen[:, left : left + side] - expected).mean() < 4


def spread(name):
    return {"scales": 0.6, "quats": 1.0, "colors": 4.0}.get(name, 0.0)


def test_a_mesh_opens_and_the_next_run_follows(index, opened, tmp_path):
    page = opened(index)
    page.locator(".card", has_text="mesh").click()
    page.wait_for_selector("#view[data-drawn]")
    page.wait_for_timeout(300)
    picture = shot(page, tmp_path, "mesh", "#view")
    red, green, blue = ([*np.argwhere(np.abs(picture - colour).max(-1) < 40).mean(0)] for colour in (RED, GREEN, BLUE))
    middle = np.array(picture.shape[:2]) / 2
    assert np.abs(red - middle).max() < 30 and green[1] > red[1] + 100 and blue[0] < red[0] - 100, "y is right, z is up"
    title = page.locator("#detail-title").inner_text()
    page.get_by_role("button", name="Next").click()
    until(page, f"document.getElementById('detail-title').textContent !== '{title}'")
    page.get_by_role("button", name="Previous").click()
    page.wait_for_selector("#view[data-drawn]")
    page.wait_for_timeout(300)
    assert np.abs(shot(page, tmp_path, "again", "#view") - picture).mean() < 0.1
    page.go_back()
    assert page.locator("#detail").is_hidden()


def test_the_keyboard_is_enough(index, opened, tmp_path):
    page = opened(index)
    arrange(page, rows="", columns="")
    ready(page)
    page.locator("#arrange > summary").focus()
    for _ in range(30):
        page.keyboard.press("Tab")
        if focused(page):
            break
    first = focused(page)
    assert first
    shot(page, tmp_path, "focus")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("ArrowRight")
    second = focused(page)
    assert second not in (None, first)
    page.keyboard.press("ArrowLeft")
    assert focused(page) == first
    page.keyboard.press("End")
    last = focused(page)
    page.keyboard.press("ArrowUp")
    assert focused(page) not in (None, last)
    page.keyboard.press("Home")
    assert focused(page) == first
    scrolled = page.evaluate("scrollY")
    for playing in (False, True):
        page.keyboard.press("Space")
        assert page.evaluate("clock.playing") == playing
    assert page.evaluate("scrollY") == scrolled
    page.keyboard.press("Enter")
    page.wait_for_selector("#detail[open]")
    page.keyboard.press("Escape")
    page.wait_for_selector("#detail", state="hidden")
    assert focused(page) == first


def focused(page):
    return page.evaluate("document.activeElement.closest('.card')?.getAttribute('href') ?? null")


def test_a_failed_run_says_why_and_code_is_only_text(index, opened, tmp_path):
    page = opened(index)
    failed = page.locator(".card", has_text="failed: ValueError: no such thing")
    assert failed.count() == 1
    failed.click()
    page.wait_for_selector("#detail[open]")
    assert "failed: ValueError: no such thing" in page.locator("#facts").inner_text()
    shot(page, tmp_path, "failed")
    page.keyboard.press("Escape")
    assert EVIL in page.locator("#grid .card strong").all_inner_texts()
    page.locator(".card", has_text="evil").click()
    assert page.locator("#detail-title").inner_text() == EVIL
    page.locator("#detail video").wait_for()
    assert page.title() == "Comparison of runs"
    assert page.evaluate("document.querySelectorAll('img').length") == 0


def test_injected_code_does_not_run(index, opened):
    page = opened(index)
    page.evaluate(
        """() => {
            const box = document.createElement('div');
            box.innerHTML = '<img src="data:," onerror="document.title=1"><a href="javascript:document.title=2">x</a>';
            document.body.append(box);
            box.querySelector('a').click();
            const script = document.createElement('script');
            script.textContent = 'document.title = 3';
            document.body.append(script);
        }"""
    )
    page.wait_for_timeout(500)
    assert page.title() == "Comparison of runs"
    assert opened.wrong and all("Content Security Policy" in one or one.startswith("data:") for one in opened.wrong)
    opened.wrong.clear()


def test_a_single_file_works_alone(outputs, opened, tmp_path):
    compare([outputs], tmp_path / "compare", single_file=True)
    alone = shutil.move(tmp_path / "compare" / "index.html", tmp_path / "alone.html")
    page = opened(alone)
    ready(page, 3)
    page.locator("#curves > summary").click()
    page.wait_for_selector("#plot canvas")
    page.locator(".card", has_text="castle_5").click()
    page.wait_for_selector("#view[data-drawn]")
    page.wait_for_timeout(300)
    picture = shot(page, tmp_path, "alone", "#view")
    assert (picture[..., 0] > picture[..., 1] + 60).mean() > 0.02


def test_media_that_went_missing_are_told_of(index, opened, tmp_path):
    copy = shutil.copytree(index.parent, tmp_path / "compare")
    shutil.rmtree(copy / "media")
    page = opened(copy / "index.html")
    page.get_by_text("This video cannot be played.").first.wait_for()
    page.locator("#curves > summary").click()
    until(page, "/media.*cannot be loaded/.test(document.getElementById('nearest').textContent)")
    page.locator(".card", has_text="castle_5").click()
    until(page, "/media.*cannot be loaded/.test(document.getElementById('note').textContent)")
    assert all(re.search("ERR_FILE_NOT_FOUND", one) for one in opened.wrong)
    opened.wrong.clear()
