"""Models that COLMAP itself writes, pictures painted where COLMAP itself projects."""

import struct

import numpy as np
import pytest
import torch

from captures import HEIGHT, MODELS, WIDTH, colmap_scene
from diffusion3d.data.colmap import colmap
from diffusion3d.errors import UserError
from dots import dots, everything


def marked(points):
    """The red, green and blue points, in this order."""
    return torch.stack([points.points[(points.colors == colour).all(1)][0] for colour in torch.eye(3)])


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("binary", [True, False])
def test_known_points_are_projected_onto_their_dots(tmp_path, model, binary):
    colmap_scene(tmp_path, model, binary=binary)
    splits = colmap(str(tmp_path), holdout=4)
    assert (splits.train.views, splits.test.views) == (6, 2)
    for data in (splits.train, splits.test):
        batch = everything(data)
        expected, depth = batch.cameras.project(marked(splits.points)[None])
        inside = ((expected > 6) & (expected < torch.tensor([WIDTH - 6.0, HEIGHT - 6.0]))).all(-1)
        assert inside.float().mean() > 0.5 and (depth > batch.cameras.near).all() and (depth < batch.cameras.far).all()
        torch.testing.assert_close(dots(batch.images)[inside], expected[inside], atol=0.1, rtol=0)


def test_text_and_binary_are_the_same(tmp_path):
    made = colmap_scene(tmp_path / "a")
    colmap_scene(tmp_path / "b", binary=False)
    first, second = colmap(str(tmp_path / "a")), colmap(str(tmp_path / "b"))
    torch.testing.assert_close(first.train.cameras.c2w, second.train.cameras.c2w)
    torch.testing.assert_close(first.points.points, second.points.points)
    assert len(first.points.points) == len(made.points3D)


def test_a_scene_is_upright_and_as_large_as_its_points(tmp_path):
    made = colmap_scene(tmp_path)
    splits = colmap(str(tmp_path))
    up = -torch.cat([splits.train.cameras.c2w, splits.test.cameras.c2w], 1)[0, :, :3, 1].mean(0)
    torch.testing.assert_close(up / up.norm(), torch.tensor([0.0, 0.0, 1.0]), atol=1e-4, rtol=0)
    points = np.stack([point.xyz for point in made.points3D.values()])
    distance = np.linalg.norm(points - np.median(points, 0), axis=1)
    torch.testing.assert_close(
        splits.points.points.norm(dim=1).sort().values,
        torch.from_numpy(np.sort(distance / np.percentile(distance, 90))).float(),
        atol=1e-4,
        rtol=0,
    )
    known = colmap(str(tmp_path), center=[0, 0, 0], scale=2.0)
    distances = torch.from_numpy(np.sort(2 * np.linalg.norm(points, axis=1))).float()
    torch.testing.assert_close(known.points.points.norm(dim=1).sort().values, distances)


def test_images_without_observations_and_models_without_points_are_read(tmp_path):
    colmap_scene(tmp_path, binary=False)
    where = tmp_path / "sparse" / "0"
    lines = (where / "images.txt").read_text().splitlines()
    heads = [line for line in lines if line.endswith(".png")]
    (where / "images.txt").write_text("# comment\n" + "".join(f"{line}\n\n" for line in heads))
    (where / "points3D.txt").write_text("")
    splits = colmap(str(tmp_path))
    assert splits.train.views + splits.test.views == 8 and splits.points is None


def replace(name, before, after):
    def spoil(where):
        text = (where / name).read_text()
        assert before in text
        (where / name).write_text(text.replace(before, after, 1))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            replace("cameras.txt", "PINHOLE 96", "SIMPLE_RADIAL 96"),
            r"cameras.txt: camera 1 is a distorted SIMPLE_RADIAL",
        ),
        (replace("cameras.txt", "PINHOLE 96", "FOV 96"), r"cameras.txt: camera 1 is a distorted FOV"),
        (replace("cameras.txt", " 85 ", " nan "), r"camera 1 \(PINHOLE, 96 x 64\) has no sound focal lengths"),
        (replace("cameras.txt", " 85 ", " x "), r"cameras.txt is damaged: could not convert"),
        (replace("cameras.txt", " 90 85 50 30", ""), r"camera 1 \(PINHOLE, 96 x 64\) has no sound"),
        (replace("images.txt", "frame000002", "other"), r"names the image .*other.png', which is not in .*images"),
        (replace("images.txt", "\n1 ", "\n1 nan"), r"(no unit quaternion|is damaged)"),
        (replace("images.txt", "\n1 0.", "\n1 9."), r"images.txt: the rotation of '.*' is no unit quaternion"),
        (replace("images.txt", " 1 camera", " 7 camera"), r"images.txt names camera 7, which is not in .*cameras.txt"),
        (replace("images.txt", " 1 camera", " 1 ../../../etc/"), r"which leads out of"),
        (replace("points3D.txt", "\n1 ", "\n1 inf"), r"(points3D.txt holds a NaN|points3D.txt is damaged)"),
        (lambda where: (where / "points3D.txt").unlink(), r"cannot read .*points3D.txt: No such file"),
        (lambda where: (where / "images.txt").write_text("#\n"), r"images.txt holds no images"),
    ],
)
def test_bad_text_models_are_refused_in_one_line(spoil, message, tmp_path):
    colmap_scene(tmp_path, binary=False)
    spoil(tmp_path / "sparse" / "0")
    with pytest.raises(UserError, match=message) as caught:
        colmap(str(tmp_path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D"])
def test_binary_models_that_are_cut_off_or_lie_are_refused(name, tmp_path):
    colmap_scene(tmp_path)
    path = tmp_path / "sparse" / "0" / f"{name}.bin"
    whole = path.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-3], b"", struct.pack("<Q", 2**40) + whole[8:]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=f"{name}.bin is damaged"):
            colmap(str(tmp_path))


def test_models_that_are_links_out_of_the_folder_are_not_read(tmp_path):
    colmap_scene(tmp_path / "scene")
    inner = tmp_path / "scene" / "sparse" / "0" / "cameras.bin"
    inner.rename(tmp_path / "cameras.bin")
    inner.symlink_to(tmp_path / "cameras.bin")
    with pytest.raises(UserError, match=r"cameras.bin is a link that leads out of"):
        colmap(str(tmp_path / "scene"))


def test_distorted_binary_cameras_and_missing_models_are_refused(tmp_path):
    colmap_scene(tmp_path, "SIMPLE_RADIAL", [90.0, 48.0, 32.0, 0.1])
    with pytest.raises(UserError, match=r"cameras.bin: camera 1 is a distorted SIMPLE_RADIAL; undistort"):
        colmap(str(tmp_path))
    with pytest.raises(UserError, match=r"holds no cameras.bin or cameras.txt"):
        colmap(str(tmp_path / "images"))
