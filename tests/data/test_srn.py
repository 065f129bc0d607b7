"""SRN's folders, from their format's own text."""

import numpy as np
import pytest
import torch
from PIL import Image

from captures import CAR_FOCAL, CAR_POINTS, srn_instance
from diffusion3d.data.srn import srn
from diffusion3d.errors import UserError
from dots import dots, everything, ring


@pytest.fixture
def cars(tmp_path):
    root = tmp_path / "srn_cars"
    for part, names in (("cars_train", "bca"), ("cars_test", "z")):
        for name in names:
            srn_instance(root / part / name)
    return root


def test_known_points_are_projected_onto_their_dots(cars):
    splits = srn(str(cars), holdout=3, scale=2.0)
    assert (len(splits.train), splits.train.views, len(splits.test), splits.test.views) == (3, 4, 3, 2)
    for data in (splits.train, splits.test):
        batch = everything(data)
        assert batch.captions == ("a car",) * 3 and batch.alpha is None
        expected, depth = batch.cameras.project(torch.from_numpy(2 * CAR_POINTS).float().expand(3, -1, -1))
        assert (depth > batch.cameras.near).all() and (depth < batch.cameras.far).all()
        torch.testing.assert_close(dots(batch.images), expected, atol=0.1, rtol=0)


def test_the_ball_that_cameras_see_becomes_the_unit_ball(cars):
    distances = np.linalg.norm(ring(6, 1.3, 0.3)[0], axis=1)
    expected = distances[1:] / (np.median(distances) * np.sin(np.arctan(64 / CAR_FOCAL)))
    origins = srn(str(cars)).train.cameras.origins
    torch.testing.assert_close(origins[0].norm(dim=-1), torch.from_numpy(expected).float())


@pytest.mark.parametrize("nested", ["", "chairs_2.0_train"])
def test_folders_may_be_nested_bare_or_a_single_instance(tmp_path, nested):
    srn_instance(tmp_path / "chairs_train" / nested / "one")
    for root in (tmp_path, tmp_path / "chairs_train", tmp_path / "chairs_train" / nested / "one"):
        assert len(srn(str(root)).train) == 1
    assert srn(str(tmp_path)).train.vocabulary == ("a chair",)


def test_split_and_number_of_scenes_choose_instances(cars):
    assert len(srn(str(cars), split="test").train) == 1
    assert len(srn(str(cars), scenes=2).train) == 2 and len(srn(str(cars), scenes=None).train) == 3


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda a: (a / "rgb" / "000002.png").unlink(), r"rgb/000002.png is missing, whose pose is .*000002.txt"),
        (lambda a: (a / "pose" / "000002.txt").write_text("1 2 3"), r"000002.txt does not hold 16 numbers"),
        (lambda a: (a / "pose" / "000002.txt").write_text("nan " * 16), r"000002.txt holds a NaN"),
        (
            lambda a: (a / "pose" / "000002.txt").write_text("2 " * 16),
            r"000002.txt is not a 4 x 4 matrix of a rotation",
        ),
        (lambda a: (a / "intrinsics.txt").write_text("131 64\n"), r"intrinsics.txt does not begin with focal length"),
        (lambda a: (a / "intrinsics.txt").write_text("nan 64 64\n128 128\n"), r"intrinsics.txt gives no sound"),
        (
            lambda a: Image.new("RGB", (64, 32)).save(a / "rgb" / "000002.png"),
            r"000002.png is 64 x 32 .*not the shape of",
        ),
        (lambda a: [path.unlink() for path in (a / "pose").iterdir()], r"pose holds no poses"),
        (
            lambda a: [(a / folder).unlink() for folder in ("pose/000005.txt", "rgb/000005.png")],
            r"has 4 views and .* 5",
        ),
    ],
)
def test_bad_instances_are_refused_in_one_line(spoil, message, cars):
    spoil(cars / "cars_train" / "b")
    with pytest.raises(UserError, match=message) as caught:
        srn(str(cars))
    assert "\n" not in str(caught.value)


def test_folders_without_instances_and_useless_numbers_are_refused(tmp_path, cars):
    for wrong in ({"scenes": 0}, {"size": 0}):
        with pytest.raises(UserError, match=r"=0 must be at least 1"):
            srn(str(cars), **wrong)
    with pytest.raises(UserError, match=r"holds no folders with an intrinsics.txt"):
        srn(str(cars / "cars_train" / "a" / "rgb"))
