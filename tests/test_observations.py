"""Photographs from files, and a scene that is held to one."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion3d
from choices import CAMERA, FIELDS, PRIOR, SCENE, chosen
from diffusion3d.errors import UserError
from diffusion3d.observations import photograph
from diffusion3d.tasks.build import build

WIDTH, HEIGHT = 24, 16
DISC = np.hypot(*np.mgrid[-7.5:8, -11.5:12]) < 6
COLOUR = np.broadcast_to(np.array([200, 100, 50], np.uint8), (HEIGHT, WIDTH, 3))


def picture(folder, name="front.png", alpha=DISC):
    pixels = COLOUR if alpha is None else np.dstack([COLOUR, alpha * np.uint8(255)])
    return saved(folder, name, pixels)


def saved(folder, name, pixels):
    Image.fromarray(np.ascontiguousarray(pixels)).save(folder / name)
    return str(folder / name)


def views(image, **settings):
    return photograph(image, {}, **{"size": WIDTH} | settings).views


def test_a_cut_out_picture_is_premultiplied_and_seen_by_its_camera(tmp_path):
    seen = views(picture(tmp_path), azimuth=30.0, elevation=20.0, distance=2.5, fov=50.0)
    disc = torch.from_numpy(DISC).float()
    assert torch.equal(seen.alpha[0, 0, 0], disc) and seen.depth is None and seen.mask is None
    for channel, value in enumerate((200, 100, 50)):
        assert torch.allclose(seen.images[0, 0, channel], disc * value / 255, atol=1e-6)
    camera = seen.cameras
    assert (camera.height, camera.width) == (HEIGHT, WIDTH), "pictures need not be square"
    assert camera.azimuth.item() == pytest.approx(30, abs=1e-3) and camera.elevation.item() == pytest.approx(
        20, abs=1e-3
    )
    assert camera.origins.norm().item() == pytest.approx(2.5, rel=1e-5)
    assert math.degrees(2 * math.atan(HEIGHT / 2 / camera.K[0, 0, 1, 1].item())) == pytest.approx(50, rel=1e-5)


def test_a_mask_cuts_an_opaque_picture_out_as_transparency_does(tmp_path):
    mask = saved(tmp_path, "mask.png", DISC * np.uint8(255))
    cut, masked = views(picture(tmp_path)), views(picture(tmp_path, "opaque.png", None), mask=mask)
    assert torch.equal(cut.alpha, masked.alpha) and torch.equal(cut.images, masked.images)
    left = saved(tmp_path, "left.png", np.tile(np.uint8(255) * (np.arange(WIDTH) < 12), (HEIGHT, 1)))
    both = views(picture(tmp_path), mask=left)
    assert torch.equal(both.alpha[..., :12], cut.alpha[..., :12]) and both.alpha[..., 12:].max() == 0


def test_pictures_are_scaled_without_their_background_bleeding_in(tmp_path):
    seen = views(picture(tmp_path), size=12)
    assert (seen.cameras.height, seen.cameras.width) == (8, 12) == seen.images.shape[-2:]
    expected = torch.from_numpy(DISC).float().view(8, 2, 12, 2).mean((1, 3))
    assert torch.allclose(seen.alpha[0, 0, 0], expected, atol=2 / 255)
    assert torch.allclose(seen.images[0, 0, 0], expected * 200 / 255, atol=2 / 255)


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_depth_is_that_of_the_object_up_to_scale_and_shift(tmp_path, kind):
    ramp = np.tile(np.arange(WIDTH) * 3 + 10, (HEIGHT, 1)).astype(kind)
    seen = views(picture(tmp_path), depth=saved(tmp_path, f"depth.{'tiff' if kind is np.float32 else 'png'}", ramp))
    inside = seen.alpha > 0.5
    columns = torch.arange(WIDTH).expand_as(inside)[inside].float()
    expected = 1 + (columns - columns.min()) / (columns.max() - columns.min())
    assert torch.allclose(seen.depth[inside], expected, atol=1e-5) and (seen.depth[~inside] == 0).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"image": "nowhere.png"}, "nowhere.png is not a readable image"),
        ({"image": "opaque.png"}, "opaque.png has no transparency.*observation.mask=FILE"),
        ({"image": "solid.png"}, "solid.png has no transparency"),
        ({"image": "gone.png"}, "gone.png leaves nothing of the object"),
        ({"mask": "black.png"}, "black.png leaves nothing of the object"),
        ({"mask": "small.png"}, "small.png has 8 x 8 pixels and .*front.png 24 x 16"),
        ({"mask": "nowhere.png"}, "nowhere.png is not a readable image"),
        ({"depth": "small.png"}, "small.png has 8 x 8 pixels and .*front.png 24 x 16"),
        ({"depth": "opaque.png"}, "opaque.png is a RGB picture; a depth map has one channel"),
        ({"depth": "black.png"}, "black.png holds the same depth"),
        ({"depth": "nowhere.png"}, "nowhere.png is not a readable image"),
        ({"elevation": 90.0}, "elevation=90.0 must"),
        ({"fov": 180.0}, "fov=180.0 in"),
        ({"distance": 0.0}, "distance=0.0 be"),
        ({"size": 4}, "size=4 at least"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line_that_names_the_file(tmp_path, settings, message):
    picture(tmp_path)
    picture(tmp_path, "opaque.png", None)
    picture(tmp_path, "solid.png", np.ones_like(DISC))
    picture(tmp_path, "gone.png", np.zeros_like(DISC))
    saved(tmp_path, "black.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    saved(tmp_path, "small.png", np.full((8, 8), 255, np.uint8))
    paths = {name: str(tmp_path / value) if isinstance(value, str) else value for name, value in settings.items()}
    with pytest.raises(UserError, match=message) as caught:
        views(**{"image": str(tmp_path / "front.png")} | paths)
    assert "\n" not in str(caught.value)


def test_the_config_holds_what_the_files_give(tmp_path):
    image, depth = (
        picture(tmp_path),
        saved(tmp_path, "depth.png", np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))),
    )
    node = chosen("observation", "photograph", f"observation.image={image}", "camera.distance=2.0")
    observation = build(node, normals=False)
    assert list(observation.terms) == ["image", "mask"]
    assert observation.views.cameras.origins.norm().item() == pytest.approx(2.0, rel=1e-5)
    typed = [f"observation.image={image}", f"observation.depth={depth}", "observation.terms.mask=null"]
    assert list(build(chosen("observation", "photograph", *typed), normals=True).terms) == ["image", "depth", "normals"]


@pytest.mark.parametrize(
    ("representation", "terms"),
    [("gsplat", {"image", "mask", "depth"}), ("nerf", {"image", "mask", "depth", "normals"})],
)
def test_a_distilled_scene_is_pulled_to_the_picture(tmp_path, representation, terms):
    image, depth = (
        picture(tmp_path),
        saved(tmp_path, "depth.png", np.tile(np.arange(WIDTH, dtype=np.uint8), (HEIGHT, 1))),
    )
    weight = "{from: 3000.0, to: 6000.0}"
    metrics = diffusion3d.run(
        [
            "prompt=a castle",
            "logger=none",
            "device=cpu",
            f"representation={representation}",
            *(SCENE if representation == "gsplat" else FIELDS[representation]),
            *PRIOR,
            *CAMERA,
            "observation=photograph",
            f"observation.image={image}",
            f"observation.depth={depth}",
            "observation.size=16",
            f"observation.terms.image.weight={weight}",
            "guidance.weight=0.0",
            "terms=none",
            "task.background={white: 1.0, grey: 0.0, colour: 0.0}",
            "task.steps=12",
            "task.video_size=16",
            f"hydra.run.dir={tmp_path / 'run'}",
        ]
    )
    rows = np.genfromtxt(tmp_path / "run" / "metrics.csv", delimiter=",", names=True, deletechars="", replace_space="")
    assert {name.removeprefix("observation/") for name in rows.dtype.names if name.startswith("observation/")} == terms
    weights = 3000 + 3000 * np.arange(12) / 12
    error = rows["observation/image"] / weights
    assert error[-1] < 0.8 * error[0]
    assert metrics["steps"] == 12


def test_a_flat_image_has_no_other_side_to_observe(tmp_path):
    with pytest.raises(UserError, match="observation=photograph needs 'geometry'.*representation=gsplat"):
        chosen("observation", "photograph", f"observation.image={picture(tmp_path)}", "representation=image")
