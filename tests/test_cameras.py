import math

import pytest
import torch

from diffusion3d.cameras import Cameras, look_at, orbit


def ring(size: int = 32) -> Cameras:
    azimuth = torch.tensor([[0.0, 90.0, 200.0, -45.0]])
    elevation = torch.tensor([[0.0, 20.0, -10.0, 50.0]])
    return orbit(azimuth, elevation, 3.0, 40.0, size, size)


def test_azimuth_zero_sees_the_front_and_grows_counter_clockwise_from_above():
    cameras = orbit(torch.tensor([[0.0, 90.0]]), torch.zeros(1, 2), 2.0, 40.0, 8, 8)
    assert torch.allclose(cameras.origins[0], torch.tensor([[2.0, 0, 0], [0, 2.0, 0]]), atol=1e-6)


def test_axes_are_opencv():
    cameras = orbit(torch.zeros(1, 1), torch.zeros(1, 1), 3.0, 40.0, 64, 64)
    points = torch.tensor([[[0.0, 0, 0], [0, 0.5, 0], [0, 0, 0.5], [1.0, 0, 0]]])
    pixels, depth = cameras.project(points)
    centre, left_of_object, above, _nearer = pixels[0, 0]
    assert torch.allclose(centre, torch.tensor([32.0, 32.0]))
    assert left_of_object[0] > 32, "from the front, the object's left (+y) is on the right of the picture"
    assert above[1] < 32, "up is towards row 0"
    assert torch.allclose(depth[0, 0], torch.tensor([3.0, 3.0, 3.0, 2.0]))


def test_angles_come_back():
    cameras = ring()
    assert torch.allclose(cameras.azimuth, torch.tensor([[0.0, 90.0, -160.0, -45.0]]), atol=1e-4)
    assert torch.allclose(cameras.elevation, torch.tensor([[0.0, 20.0, -10.0, 50.0]]), atol=1e-4)


def test_rays_hit_the_pixels_they_come_from_at_the_depth_they_say():
    cameras = ring(16)
    rays_o, rays_d = cameras.rays()
    for view in range(4):
        points = (rays_o + 2.5 * rays_d)[:, view].reshape(1, -1, 3)
        pixels, depth = cameras.project(points)
        i, j = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
        expected = torch.stack([j, i], -1).reshape(-1, 2) + 0.5
        assert torch.allclose(pixels[0, view], expected, atol=1e-3)
        assert torch.allclose(depth[0, view], torch.full((256,), 2.5), atol=1e-5)


def test_field_of_view_is_vertical():
    cameras = orbit(torch.zeros(1, 1), torch.zeros(1, 1), 3.0, 40.0, 20, 60)
    top = torch.tensor([[[0.0, 0, 3 * math.tan(math.radians(20))]]])
    assert torch.allclose(cameras.project(top)[0][0, 0, 0], torch.tensor([30.0, 0.0]), atol=1e-4)


def test_resize_keeps_the_picture():
    cameras = ring(32)
    small = cameras.resize(8, 8)
    points = torch.rand(1, 10, 3) - 0.5
    assert torch.allclose(cameras.project(points)[0] / 4, small.project(points)[0], atol=1e-4)


def test_viewmats_invert_c2w():
    cameras = ring()
    assert torch.allclose(cameras.viewmats @ cameras.c2w, torch.eye(4).expand(1, 4, 4, 4), atol=1e-5)


def test_select_keeps_order():
    picked = ring().select(views=torch.tensor([2, 0]))
    assert picked.shape == (1, 2)
    assert torch.allclose(picked.azimuth, torch.tensor([[-160.0, 0.0]]), atol=1e-4)


def test_looking_straight_down_is_refused():
    with pytest.raises(ValueError, match="up direction"):
        look_at(torch.tensor([[0.0, 0.0, 2.0]]), torch.zeros(1, 3))
