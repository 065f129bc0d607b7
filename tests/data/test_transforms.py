"""transforms.json as Blender's and nerfstudio's writers make it, by the formulas of their own axes."""

import json
import math
import shutil

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from captures import CENTER, HEIGHT, POINTS, WIDTH, blender, matrices, seen
from diffusion3d.data.transforms import transforms
from diffusion3d.errors import UserError
from dots import dots, everything, paint, ring


def nerfstudio(root, views=9, **more):
    """Per-frame intrinsics, a PLY of points by trimesh."""
    frames = []
    for view, matrix in enumerate(matrices(views)):
        fx, fy, cx, cy = 100.0 + view, 90.0 + view, 50.0, 30.0 + 0.5 * view
        paint(root / "images" / f"{view:03d}.png", seen(matrix, fx, fy, cx, cy), WIDTH, HEIGHT)
        frames.append(
            {
                "file_path": f"images/{view:03d}.png",
                "transform_matrix": matrix.tolist(),
                **{"fl_x": fx, "fl_y": fy, "cx": cx, "cy": cy, "k1": 0.0},
            }
        )
    colors = np.array([[255, 0, 0, 255], [0, 255, 0, 255], [0, 0, 255, 255]], np.uint8)
    trimesh.PointCloud(POINTS + CENTER, colors=colors).export(root / "sparse_pc.ply")
    content = {"camera_model": "OPENCV", "w": WIDTH, "h": HEIGHT, "ply_file_path": "sparse_pc.ply", "frames": frames}
    content["applied_transform"] = [[0, 1, 0, 0], [1, 0, 0, 0], [0, 0, -1, 0]]
    (root / "transforms.json").write_text(json.dumps({**content, **more}))
    return root


def check(data, points, tolerance=0.1):
    """The dots of every view lie where its camera projects the points."""
    batch = everything(data)
    expected, depth = batch.cameras.project(torch.as_tensor(points).float()[None])
    assert (depth > batch.cameras.near).all() and (depth < batch.cameras.far).all()
    torch.testing.assert_close(dots(batch.images), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("size", [None, 48])
def test_blender_projects_known_points_onto_their_dots(tmp_path, size):
    splits = transforms(str(blender(tmp_path)), size, center=CENTER.tolist(), scale=0.5)
    for data in (splits.train, splits.test):
        assert (len(data), data.views) == (1, 5)
        check(data, 0.5 * POINTS, 0.1 if size is None else 0.06)
        assert everything(data).alpha is None
    width = size or WIDTH
    assert (splits.train.cameras.width, splits.train.cameras.height) == (width, width * HEIGHT // WIDTH)
    assert not torch.isclose(splits.train.cameras.c2w, splits.test.cameras.c2w).all(-1).all(-1).any()


def test_nerfstudio_projects_known_points_onto_their_dots(tmp_path):
    splits = transforms(str(nerfstudio(tmp_path)), holdout=4)
    assert (splits.train.views, splits.test.views) == (6, 3)
    for data in (splits.train, splits.test):
        check(data, splits.points.points)
    assert splits.points.colors.tolist() == torch.eye(3).tolist()
    assert splits.train.vocabulary == (tmp_path.name.replace("_", " "),)


def test_a_scene_is_centred_where_the_cameras_look_and_fills_their_view(tmp_path):
    splits = transforms(str(blender(tmp_path)))
    eyes, *_ = ring(10)
    radius = np.median(np.linalg.norm(eyes, axis=1)) * math.sin(math.atan(math.tan(0.45) * HEIGHT / WIDTH))
    for data, number in ((splits.train, 0), (splits.test, 1)):
        origins = torch.from_numpy(eyes[number::2] / radius).float()
        torch.testing.assert_close(data.cameras.origins[0], origins, atol=1e-4, rtol=0)


def test_alpha_is_premultiplied_and_validation_views_serve_as_test_views(tmp_path):
    splits = transforms(str(blender(tmp_path, ("train", "val"), alpha=True)))
    batch = everything(splits.test)
    torch.testing.assert_close(batch.alpha, torch.full_like(batch.alpha, 128 / 255))
    assert abs(float(batch.images.max()) - 128 / 255) < 0.02


def test_lists_of_file_names_decide(tmp_path):
    names = [f"images/{view:03d}.png" for view in range(9)]
    splits = transforms(str(nerfstudio(tmp_path, train_filenames=names[:4], test_filenames=names[6:])))
    assert (splits.train.views, splits.test.views) == (4, 3)
    check(splits.test, splits.points.points)


def test_smaller_copies_of_the_images_scale_the_intrinsics(tmp_path):
    nerfstudio(tmp_path)
    for image in (tmp_path / "images").iterdir():
        Image.open(image).resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BOX).save(image)
    splits = transforms(str(tmp_path))
    assert splits.train.cameras.width == WIDTH // 2
    check(splits.train, splits.points.points)


def edit(root, frame=None, **values):
    path = root / "transforms.json"
    content = json.loads(path.read_text())
    content.update(values)
    content["frames"][2].update(frame or {})
    path.write_text(json.dumps(content))


def spoil_pose(row, column, value):
    def spoil(root):
        content = json.loads((root / "transforms.json").read_text())
        content["frames"][2]["transform_matrix"][row][column] = value
        (root / "transforms.json").write_text(json.dumps(content))

    return spoil


def mirror(root):
    matrix = matrices(9)[2] @ np.diag([-1, 1, 1, 1])
    edit(root, {"transform_matrix": matrix.tolist()})


def write_points(root, count):
    """Three points, and so many in the header."""
    fields = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex {count}\n{fields}end_header\n"
    (root / "sparse_pc.ply").write_text(head + "0 0 0\n1 0 0\n0 1 0\n")


def link_out(root):
    outside = root.parent / f"{root.name}_outside.png"
    shutil.copy(root / "images" / "002.png", outside)
    (root / "images" / "002.png").unlink()
    (root / "images" / "002.png").symlink_to(outside)


def link_in_circles(root):
    (root / "images" / "002.png").unlink()
    (root / "images" / "002.png").symlink_to(root / "images" / "002.png")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (link_in_circles, r"names (the image )?'images/002.png', which is no"),
        (lambda root: (root / "images" / "002.png").unlink(), r"names the image 'images/002.png', which is not in"),
        (
            lambda root: Image.new("RGB", (64, 64)).save(root / "images" / "002.png"),
            r"002.png is 64 x 64 .* not the shape",
        ),
        (spoil_pose(0, 3, float("nan")), r"transform_matrix of 'images/002.png' holds a NaN"),
        (spoil_pose(0, 0, 2.0), r"transform_matrix of 'images/002.png' is not a 4 x 4 matrix of a rotation"),
        (spoil_pose(3, 0, 1.0), r"transform_matrix of 'images/002.png' is not a 4 x 4 matrix of a rotation"),
        (mirror, r"transform_matrix of 'images/002.png' is not a 4 x 4 matrix of a rotation"),
        (lambda root: edit(root, {"file_path": "../elsewhere.png"}), r"'../elsewhere.png', which leads out of"),
        (link_out, r"names 'images/002.png', which leads out of"),
        (lambda root: edit(root, {"k1": 0.2}), r"distorted camera \(k1=0.2\)"),
        (lambda root: edit(root, camera_model="OPENCV_FISHEYE"), r"distorted camera \(camera_model=OPENCV_FISHEYE\)"),
        (lambda root: edit(root, {"fl_x": None}), r"'images/002.png' lacks a number"),
        (lambda root: edit(root, w=0), r"not the shape of 0 x 64"),
        (lambda root: edit(root, frames=[{}, {}, {}]), r"names the image ''"),
        (
            lambda root: (root / "sparse_pc.ply").write_bytes(b"ply\nformat ascii 1.0\n"),
            r"sparse_pc.ply is no whole PLY",
        ),
        (lambda root: write_points(root, 5), r"sparse_pc.ply has 3 lines of data, but its header says 5"),
        (lambda root: write_points(root, 2), r"sparse_pc.ply has 3 lines of data, but its header says 2"),
        (lambda root: edit(root, {"file_path": "a\0b"}), r"'a\\x00b', which is no file"),
        (lambda root: (root / "transforms.json").write_text("["), r"transforms.json is not valid JSON"),
        (lambda root: (root / "transforms.json").write_text("[" * 10**5), r"transforms.json is not valid JSON"),
        (lambda root: (root / "transforms.json").write_text("9" * 5000), r"transforms.json is not valid JSON"),
        (lambda root: edit(root, test_filenames=["images/999.png"]), r"its lists of file names leave no view"),
    ],
)
def test_bad_files_are_refused_in_one_line(spoil, message, tmp_path):
    nerfstudio(tmp_path)
    spoil(tmp_path)
    with pytest.raises(UserError, match=message) as caught:
        transforms(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_pictures_of_other_shapes_and_useless_numbers_are_refused(tmp_path):
    blender(tmp_path)
    for wrong, message in (
        ({"center": [1, 2]}, "three numbers"),
        ({"scale": 0.0}, "data.scale=0.0 must be positive"),
        ({"center": [float("nan"), 0, 0]}, "three numbers"),
    ):
        with pytest.raises(UserError, match=message):
            transforms(str(tmp_path), **wrong)
    Image.new("RGB", (64, 64)).save(tmp_path / "train" / "r_3.png")
    with pytest.raises(UserError, match=r"r_3.png is 64 x 64 pixels and .*r_0.png 96 x 64"):
        transforms(str(tmp_path))
    (tmp_path / "transforms_test.json").unlink()
    with pytest.raises(UserError, match=r"data.holdout=1 of the 5 views"):
        transforms(str(tmp_path), holdout=1)


def test_cameras_that_look_at_nothing_in_common_need_a_centre(tmp_path):
    nerfstudio(tmp_path, ply_file_path=None)
    content = json.loads((tmp_path / "transforms.json").read_text())
    for view, frame in enumerate(content["frames"]):
        matrix = np.array(frame["transform_matrix"])
        matrix[:3, :3], matrix[:3, 3] = np.eye(3), (view, 0, 0)
        frame["transform_matrix"] = matrix.tolist()
    (tmp_path / "transforms.json").write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"look at no common point; set data.center and data.scale"):
        transforms(str(tmp_path))
    splits = transforms(str(tmp_path), center=[0, 0, 0], scale=1.0)
    torch.testing.assert_close(splits.test.cameras.origins[0], torch.tensor([[0.0, 0, 0], [8.0, 0, 0]]))
