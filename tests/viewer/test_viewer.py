"""What the viewer sends, to pages that are not there."""

import imageio.v2 as imageio
import numpy as np
import pytest
import torch

from diffusion3d.camera_sampling import Orbit
from diffusion3d.export.pictures import to_uint8
from diffusion3d.rendering.render import composite
from diffusion3d.viewer import viewer as module
from diffusion3d.viewer.cameras import View
from diffusion3d.viewer.viewer import Viewer
from pages import Clock, Page, show
from shown_scenes import ball, splats

CAMERA = Orbit(64, distance=3.0, fov=40.0, turntable_frames=4)


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


@pytest.fixture
def opened():
    """Opens viewers and closes them."""
    viewers = []

    def opened(representation, raw, **given):
        viewers.append(Viewer(representation, lambda: raw, CAMERA, port=0, **given))
        return viewers[-1]

    yield opened
    for viewer in viewers:
        viewer.__exit__(None, None, None)


def pictured(representation, raw, page, rows):
    """Scene 0 as the page should see it on white."""
    render = representation.scene(raw).render(View.of(page.camera).cameras(rows))
    return to_uint8(composite(render, torch.ones(1, 3))[0, 0].movedim(0, -1))


def test_pictures_are_small_while_the_camera_moves_and_exact_when_it_rests(opened, clock):
    page, (representation, raw) = Page(), ball()
    viewer = opened(representation, raw)
    viewer.panel._resolution.value = 256
    show(viewer, page)
    viewer.pump()
    assert page.formats == ["jpeg"]
    assert np.array_equal(page.pictures[-1], pictured(representation, raw, page, 64))
    viewer.pump()
    assert len(page.pictures) == 1, "nothing has changed"
    clock.now += 0.4
    viewer.pump()
    assert page.formats == ["jpeg", "png"]
    assert np.array_equal(page.pictures[-1], pictured(representation, raw, page, 256))
    viewer.pump()
    assert len(page.pictures) == 2
    page.camera.position = np.array([0.0, 3.0, 0.0])
    viewer.pump()
    assert page.formats[-1] == "jpeg", "small again, or as large as its renders were fast"
    assert page.pictures[-1].shape[0] < 256 or viewer._speed > 1e6


def test_rows_follow_the_speed_of_rendering(opened):
    viewer = opened(*ball())
    viewer._speed = 0.0
    assert viewer._rows(512, 1.0) == 64
    viewer._speed = 1e6  # 100,000 pixels in a tenth of a second
    assert viewer._rows(512, 1.0) == 316 and viewer._rows(512, 4.0) == 158
    assert viewer._rows(128, 1.0) == 128 and viewer._rows(32, 1.0) == 32


def test_a_scene_that_changes_is_shown_anew_but_never_at_full_resolution(opened, clock):
    page, (representation, raw) = Page(), ball()
    viewer = opened(representation, raw)
    show(viewer, page)
    viewer.pump(rests=False)
    clock.now += 10
    viewer.pump(rests=False)
    assert len(page.pictures) == 1
    raw["center"] += 0.3
    viewer.changed()
    viewer.pump(rests=False)
    assert page.formats == ["jpeg", "jpeg"]
    assert not np.array_equal(page.pictures[0], page.pictures[1][: page.pictures[0].shape[0]])
    viewer.pump(rests=True)
    assert page.formats[-1] == "png" and page.pictures[-1].shape[0] == 512


def test_splats_are_drawn_by_the_browser_over_a_plain_background(opened):
    page, (representation, raw) = Page(), splats(sh_degree=1)
    viewer = opened(representation, raw)
    show(viewer, page)
    viewer.pump()
    viewer.pump()
    assert [picture.tolist() for picture in page.pictures] == [[[[255, 255, 255]]]]
    scene, drawn = representation.scene(raw), viewer._splats
    assert np.array_equal(drawn.centers, scene.means[0].numpy())
    assert np.allclose(drawn.rgbs / 255, scene.colors[0], atol=0.51 / 255)
    assert np.allclose(drawn.opacities / 255, scene.opacities[0, :, None], atol=0.51 / 255)
    assert np.allclose(np.linalg.eigvalsh(drawn.covariances).max(1), 0.15**2, rtol=2e-3)

    viewer.panel._opacity.value = 0.8
    viewer.panel._background.value = (1, 2, 3)
    raw["means"] += 1
    viewer.changed()
    viewer.pump()
    assert page.pictures[-1].tolist() == [[[1, 2, 3]]]
    assert np.array_equal(drawn.opacities[:, 0] > 0, (scene.opacities[0] >= 0.8).numpy())
    assert np.array_equal(drawn.centers, raw["means"][0].numpy())


@pytest.mark.parametrize("shown", ["depth", "normals", "rendered"])
def test_what_browsers_cannot_draw_of_splats_is_rendered(shown, opened, clock):
    page, (representation, raw) = Page(), splats()
    viewer = opened(representation, raw)
    show(viewer, page)
    viewer.pump()
    assert viewer._splats.visible
    if shown == "rendered":
        viewer.panel._in_browser.value = False
    else:
        viewer.panel._shown.value = shown
    clock.now += 1
    viewer.pump()
    assert not viewer._splats.visible
    assert page.pictures[-1].shape == (512, 640, 3)
    if shown == "rendered":
        assert np.array_equal(page.pictures[-1], pictured(representation, raw, page, 512))
    viewer.panel._shown.value, viewer.panel._in_browser.value = "colour", True
    viewer.pump()
    assert viewer._splats.visible and page.pictures[-1].shape == (1, 1, 3)


def test_every_page_has_its_own_camera_and_pages_come_and_go(opened, clock):
    viewer = opened(*ball())
    near, far = Page(), Page((8.0, 0.0, 0.0))
    show(viewer, near, far)
    viewer.pump()
    coverage = [(page.pictures[0].mean(-1) < 255).mean() for page in (near, far)]
    assert coverage[0] > 2 * coverage[1] > 0
    show(viewer)
    viewer.pump()
    assert not viewer._clients
    show(viewer, Page(width=0), near)
    viewer.pump()
    assert len(near.pictures) == 2, "a page that comes back is a new one"


def test_a_scene_of_several_is_chosen(opened, clock):
    representation, raw = splats(scenes=2)
    viewer = opened(representation, raw)
    show(viewer, Page())
    viewer.panel._scene.value = 1
    viewer.pump()
    assert np.array_equal(viewer._splats.centers, raw["means"][1].numpy())


def test_the_cameras_go_round_from_the_front_and_back(opened, clock):
    viewer = opened(*ball())
    page = Page((0.0, 0.0, 5.0))
    show(viewer, page)
    path = CAMERA.turntable().origins[0].numpy()
    viewer.panel._play.value = True
    for i, frame in enumerate((0, 1, 2, 3, 0)):
        clock.now = 100.0 + 1.01 * i / 20
        viewer.pump()
        assert np.allclose(page.camera.position, path[frame])
        assert page.camera.look_at == (0, 0, 0) and page.camera.up_direction == (0, 0, 1)
    viewer.panel._play.value = False
    page.camera.position, page.camera.fov = np.array([0.0, 0.0, 5.0]), 1.0
    viewer.pump()
    assert page.camera.position[2] == 5
    viewer._wanted.put(viewer._reset)
    viewer.pump()
    assert np.allclose(page.camera.position, path[0]) and page.camera.fov == pytest.approx(np.radians(40))
    assert np.allclose(path[0], (3 * np.cos(np.radians(15)), 0, 3 * np.sin(np.radians(15))), atol=1e-6)


def test_recordings_go_into_the_runs_videos(opened, tmp_path):
    viewer = opened(*ball(), videos=tmp_path / "videos")
    page = Page()
    show(viewer, page)
    viewer.panel._resolution.value = 64
    for _ in range(2):
        viewer._wanted.put(viewer._record)
        viewer.pump()
    assert sorted(path.name for path in (tmp_path / "videos").iterdir()) == [
        "viewer_colour_1.mp4",
        "viewer_colour_2.mp4",
    ]
    with imageio.get_reader(tmp_path / "videos" / "viewer_colour_1.mp4") as reader:
        recorded = np.stack([frame for frame in reader])  # noqa: C416, list() asks for a length
    assert recorded.shape == (4, 64, 64, 3)
    assert recorded[0, 0, 0].min() > 245 and recorded[0, 32, 32].min() < 200
    assert [title for title, _ in page.told] == ["Recording", "Recorded"] * 2


def test_a_recording_that_cannot_be_written_is_told_of(opened, tmp_path):
    (tmp_path / "videos").write_text("in the way")
    viewer = opened(*ball(), videos=tmp_path / "videos")
    page = Page()
    show(viewer, page)
    viewer._wanted.put(viewer._record)
    viewer.pump()
    assert page.told[-1][0] == "Not recorded" and "File exists" in page.told[-1][1]
