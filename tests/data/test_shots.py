import numpy as np
import pytest
import torch
from PIL import Image

from diffusion3d.data.shots import Placement, Shot, check_pose, depth_range, hold_out, place, read_shots
from diffusion3d.errors import UserError


def shot(folder, name, picture, c2w=None):
    Image.fromarray(picture).save(folder / name)
    height, width = picture.shape[:2]
    K = np.array([[50.0, 0, width / 2], [0, 50.0, height / 2], [0, 0, 1]])
    return Shot(folder / name, np.eye(4) if c2w is None else c2w, K, width, height)


def test_pictures_with_and_without_alpha_may_be_mixed(tmp_path):
    opaque = shot(tmp_path, "a.png", np.full((4, 6, 3), 100, np.uint8))
    half = shot(tmp_path, "b.png", np.full((4, 6, 4), 128, np.uint8))
    solid = shot(
        tmp_path, "c.png", np.concatenate([np.full((4, 6, 3), 7, np.uint8), np.full((4, 6, 1), 255, np.uint8)], 2)
    )
    assert read_shots([[opaque, half]], [["x"]]).pixels[0, :, 3, 0, 0].tolist() == [255, 128]
    assert read_shots([[opaque, solid]], [["x"]]).pixels.shape == (1, 2, 3, 4, 6), "opaque everywhere is no alpha"
    assert read_shots([[opaque, solid]], [["x"]], alpha=True).pixels.shape == (1, 2, 4, 4, 6)


def test_resizing_keeps_points_on_their_pixels(tmp_path):
    made = read_shots([[shot(tmp_path, "a.png", np.zeros((40, 100, 3), np.uint8))]], [["x"]], size=50)
    assert (made.cameras.width, made.cameras.height) == (50, 20)
    place_, _ = made.cameras.project(torch.tensor([[[0.2, 0.1, 1.0]]]))
    torch.testing.assert_close(place_[0, 0, 0], torch.tensor([(50 + 10) / 2, (20 + 5) / 2]))


def test_every_nth_view_is_held_out(tmp_path):
    shots = [shot(tmp_path, f"{i}.png", np.zeros((2, 2, 3), np.uint8)) for i in range(9)]
    train, test = hold_out(shots, 4, tmp_path)
    assert [s.image.stem for s in test] == ["0", "4", "8"] and len(train) == 6
    for few, every in ((shots[:1], 8), (shots, 1), (shots, 0)):
        with pytest.raises(UserError, match=r"leaves none to train or test on"):
            hold_out(few, every, tmp_path)


def test_placing_keeps_rotations_and_moves_points_and_cameras_alike(tmp_path):
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    placement = Placement(np.array([1.0, 2, 3]), 0.5, turn)
    np.testing.assert_allclose(placement.points(np.array([[3.0, 2, 3]])), [[0, 1, 0]])
    assert str(placement) == "0.5 [[0, -1, 0], [1, 0, 0], [0, 0, 1]] (x - [1, 2, 3])"
    assert str(Placement(np.zeros(3), 2.0, np.eye(3))) == "2 (x - [0, 0, 0])"
    c2w = np.eye(4)
    c2w[:3, 3] = (3, 2, 3)
    [moved] = placement.shots([shot(tmp_path, "a.png", np.zeros((2, 2, 3), np.uint8), c2w)])
    np.testing.assert_allclose(moved.c2w[:3], np.column_stack([turn, [0, 1, 0]]))


def test_far_points_do_not_move_a_scene(tmp_path):
    rng = np.random.default_rng(0)
    points = np.r_[rng.normal(5, 1, (200, 3)), [[1e6, 0, 0], [0, -1e6, 0]]]
    one = shot(tmp_path, "a.png", np.zeros((2, 2, 3), np.uint8))
    placement = place([one], None, None, points)
    assert np.abs(placement.center - 5).max() < 0.3 and 0.3 < placement.scale < 0.6


def test_depths_of_objects_and_of_points_are_in_range():
    c2w = np.eye(4)[None]
    c2w[0, :3, 3] = (0, 0, -4)
    assert depth_range(c2w) == pytest.approx((4 - 3**0.5, 4 + 3**0.5))
    near, far = depth_range(c2w, np.array([[0, 0, -3.0], [0, 0, 50.0], [0, 0, -90.0]]))
    assert near < 1 and far > 54


@pytest.mark.parametrize(
    "matrix", [None, "x", [[1, 2], [3]], np.ones((2, 2)), np.diag([1, 1, 1, 2.0]), np.diag([1, 1, -1, 1.0])]
)
def test_what_is_no_pose_is_refused(matrix):
    with pytest.raises(UserError, match=r"p.txt is not a 4 x 4 matrix of a rotation and a translation"):
        check_pose(matrix, "p.txt")
