import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

import diffusion3d
from choices import PRIOR
from diffusion3d.data.base import BatchShape, draw_batch
from diffusion3d.data.posed_folder import posed_folder
from diffusion3d.errors import UserError
from posed_scenes import SIZE, training, write_scene, write_scenes


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    folder = tmp_path_factory.mktemp("posed")
    write_scenes(folder)
    return folder


@pytest.fixture
def two(tmp_path):
    """Two scenes to spoil."""
    write_scene(tmp_path / "a")
    write_scene(tmp_path / "b", 1)
    return tmp_path


def edit(folder, **values):
    path = folder / "transforms.json"
    content = json.loads(path.read_text())
    for key, value in values.items():
        content["frames"][0].update(value) if key == "frame" else content.update({key: value})
    path.write_text(json.dumps(content))


def first(data, views=4):
    return data.batch(np.array([0]), np.arange(views)[None], np.random.default_rng(0))


def test_pictures_alpha_and_cameras_are_those_that_were_drawn(tmp_path):
    [drawn, _, last] = write_scenes(tmp_path)
    splits = posed_folder(str(tmp_path), SIZE, 4, 0.3)
    assert (len(splits.train), len(splits.validation)) == (2, 1)
    for data, expected in ((splits.train, drawn), (splits.validation, last)):
        batch = first(data)
        torch.testing.assert_close(batch.cameras.c2w, expected.cameras.c2w, atol=1e-6, rtol=0)
        torch.testing.assert_close(batch.cameras.K, expected.cameras.K, atol=1e-4, rtol=0)
        assert (batch.alpha - expected.alpha).abs().max() < 0.51 / 255
        assert (batch.images - expected.images).abs().max() < 1.6 / 255, "premultiplied by alpha"
        assert ((expected.alpha > 0.1) & (expected.alpha < 0.9)).any()


def test_a_known_point_is_drawn_where_its_camera_projects_it(tmp_path):
    """A red dot is painted by the formulas of Blender's own axes; our cameras must point at it."""
    point, size, focal = np.array([0.3, -0.4, 0.25]), 64, 70.0
    for scene in ("a", "b"):
        folder = tmp_path / scene
        folder.mkdir()
        frames = []
        for view, angle in enumerate((0.2, 1.9, 4.0)):
            right = np.array([-math.sin(angle), math.cos(angle), 0])
            back = np.array([0.8 * math.cos(angle), 0.8 * math.sin(angle), 0.6])
            up = np.cross(back, right)
            matrix = np.eye(4)
            matrix[:3] = np.stack([right, up, back, 2.5 * back], 1)
            local = np.linalg.inv(matrix) @ [*point, 1]  # x right, y up, z towards the viewer
            x, y = 30 + focal * local[0] / -local[2], 33 - focal * local[1] / -local[2]
            rows, columns = np.mgrid[:size, :size] + 0.5
            dot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / 8)
            Image.fromarray((255 * dot).round().astype(np.uint8)).convert("RGB").save(folder / f"{view}.png")
            frames.append({"file_path": f"{view}.png", "transform_matrix": matrix.tolist()})
        content = {"fl_x": focal, "fl_y": focal, "cx": 30, "cy": 33, "w": size, "h": size, "frames": frames}
        (folder / "transforms.json").write_text(json.dumps({**content, "camera_model": "OPENCV", "k1": 0.0}))
        (folder / "caption.txt").write_text("a dot")
    batch = first(posed_folder(str(tmp_path), 32, 3).train, 3)
    assert (batch.alpha == 1).all()
    weight = batch.images[0, :, 0]
    place = torch.arange(32) + 0.5
    seen = (
        torch.stack([(weight.sum(1) * place).sum(1), (weight.sum(2) * place).sum(1)], -1) / weight.sum((1, 2))[:, None]
    )
    expected, depth = batch.cameras.project(torch.tensor(point).float().view(1, 1, 3))
    torch.testing.assert_close(seen, expected[0, :, 0], atol=0.05, rtol=0)
    assert (depth > 1).all()


def test_images_are_averaged_after_premultiplying(tmp_path):
    for scene in ("a", "b"):
        write_scene(tmp_path / scene, views=1)
        pixels = np.zeros((4, 4, 4), np.uint8)
        pixels[::2] = (255, 0, 0, 255)
        pixels[1::2] = (0, 255, 0, 0)
        Image.fromarray(pixels).save(tmp_path / scene / "r_0.png")
    batch = first(posed_folder(str(tmp_path), 2, 1).train, 1)
    expected = torch.tensor([0.5, 0.0, 0.0, 0.5]).view(4, 1, 1).expand(4, 2, 2)
    torch.testing.assert_close(torch.cat([batch.images, batch.alpha], 2)[0, 0], expected, atol=0.51 / 255, rtol=0)


def test_evenly_spaced_views_are_used(tmp_path):
    drawn = [write_scene(tmp_path / name, views=6) for name in ("a", "b")]
    batch = first(posed_folder(str(tmp_path), SIZE, 3).train, 3)
    torch.testing.assert_close(batch.cameras.c2w[0], drawn[0].cameras.c2w[0, ::2])


def test_every_caption_is_used_and_listed(root):
    data = posed_folder(str(root), SIZE, 4).train
    rng = np.random.default_rng(0)
    seen = {data.batch(np.array([0]), np.array([[0]]), rng).captions[0] for _ in range(20)}
    assert seen == set(data.captions[0]) and len(seen) == 2
    assert data.vocabulary == tuple(dict.fromkeys(c for texts in data.captions for c in texts))


def test_the_vocabulary_is_short(tmp_path):
    write_scene(tmp_path / "a")
    write_scene(tmp_path / "b")
    (tmp_path / "a" / "caption.txt").write_text("\n".join(f"caption {i}" for i in range(300)))
    assert len(posed_folder(str(tmp_path), 8, 4).train.vocabulary) == 200


def test_batches_mix_scenes(root):
    data = posed_folder(str(root), SIZE, 4).train
    batch = draw_batch(data, [BatchShape(5, 3)], 0.5, np.random.default_rng(0))
    assert batch.images.shape == (5, 3, 3, SIZE, SIZE) and len(batch.captions) == 5
    assert batch.cameras.near < batch.cameras.origins.norm(dim=-1).min() < batch.cameras.far


def remove(name):
    return lambda root: (root / "a" / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (remove("transforms.json"), r"cannot read .*transforms.json: No such file"),
        (remove("caption.txt"), r"cannot read .*caption.txt"),
        (remove("r_0.png"), r"names the image './r_0', which is not in"),
        (lambda root: (root / "a" / "caption.txt").write_text(" \n\n"), r"caption.txt is empty"),
        (lambda root: (root / "a" / "transforms.json").write_text("{"), r"not valid JSON"),
        (lambda root: (root / "a" / "transforms.json").write_text("[1]"), r"no list of frames"),
        (lambda root: (root / "a" / "transforms.json").write_bytes(b"\xff\xfe"), r"not UTF-8"),
        (lambda root: (root / "a" / "r_0.png").write_text("no picture"), r"r_0.png is not a readable image"),
        (
            lambda root: Image.new("RGB", (32, 20)).save(root / "a" / "r_0.png"),
            r"is 32 x 20 pixels, not square; crop or pad",
        ),
        (
            lambda root: edit(root / "a", w=64, h=48),
            r"is 32 x 32 pixels, .* not the shape of 64 x 48 in .*transforms.json",
        ),
        (lambda root: edit(root / "a", k1=0.1, p2=-0.2), r"distorted camera \(k1=0.1, p2=-0.2\); undistort"),
        (
            lambda root: edit(root / "a", camera_model="OPENCV_FISHEYE"),
            r"distorted camera \(camera_model=OPENCV_FISHEYE",
        ),
        (lambda root: edit(root / "a", frame={"k2": 0.01}), r"distorted camera \(k2=0.01"),
        (lambda root: edit(root / "a", camera_angle_x="wide"), r"'./r_0' lacks a number or holds a wrong one: .*wide"),
        (lambda root: edit(root / "a", camera_angle_x=0), r"'./r_0' lacks a number or holds a wrong one"),
        (lambda root: edit(root / "a", frame={"transform_matrix": [[1]]}), r"transform_matrix of './r_0'"),
        (lambda root: edit(root / "a", frame={"transform_matrix": (2 * np.eye(4)).tolist()}), r"transform_matrix"),
        (lambda root: edit(root / "a", frames=[{}]), r"has 1 frames, fewer than data.views=4"),
        (lambda root: (root / "b").rename(root / ".b"), r"holds 1 scene folders"),
    ],
)
def test_bad_folders_are_refused_in_one_line(spoil, message, two):
    spoil(two)
    with pytest.raises(UserError, match=message) as caught:
        posed_folder(str(two), SIZE, 4)
    assert "\n" not in str(caught.value)


def test_missing_folders_and_odd_numbers_are_refused(tmp_path, root):
    with pytest.raises(UserError, match="is not a folder"):
        posed_folder(str(tmp_path / "nowhere"))
    for wrong in ({"size": 0}, {"views": 0}, {"validation": 1.0}, {"validation": 0.0}):
        with pytest.raises(UserError, match="must be positive, validation=.* between 0 and 1"):
            posed_folder(str(root), **wrong)


def test_a_prior_trains_on_it(root, tmp_path):
    more = [*PRIOR, "task.steps=2", "task.batches=[{scenes: 2, views: 2, share: 1.0}]"]
    metrics = diffusion3d.run(training(root, *more, f"hydra.run.dir={tmp_path / 'run'}"))
    assert all(0 < metrics[f"validation/x0_error_t{level}"] < 10 for level in (100, 300, 500, 700, 900))
    facts = json.loads((tmp_path / "run" / "export" / "weights.json").read_text())
    assert facts["vocabulary"] == list(posed_folder(str(root), SIZE, 4).train.vocabulary)
    assert facts["scenes"] == 2


def test_the_root_must_be_given():
    with pytest.raises(UserError, match="data.root must be given: data.root="):
        diffusion3d.run(["task=train", "data=posed_folder", "logger=none"])
