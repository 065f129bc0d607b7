"""What every camera sampler of the config group keeps."""

import pytest
import torch

from choices import choices, chosen
from diffusion3d.tasks.build import build


@pytest.fixture(params=choices("camera"))
def camera(request):
    return build(chosen("camera", request.param))


def test_cameras_have_the_size_and_number_that_were_asked_for(camera):
    torch.manual_seed(0)
    views = camera.sample(3)
    assert views.shape == (3, camera.views) and (views.height, views.width) == (camera.size, camera.size)
    assert 0 < views.near < views.far


def test_equal_seeds_give_equal_cameras(camera):
    found = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        found.append(camera.sample(1).c2w)
    assert torch.equal(found[0], found[1])
    moves = camera.azimuth is None or camera.low < camera.high
    assert torch.equal(found[0], found[2]) != moves


def test_cameras_look_at_the_object(camera):
    torch.manual_seed(0)
    for views in (camera.sample(2), camera.turntable(5)):
        pixels, depth = views.project(torch.zeros(views.shape[0], 1, 3))
        assert torch.allclose(pixels, torch.full_like(pixels, camera.size / 2), atol=1e-3)
        assert (depth > views.near).all() and (depth < views.far).all()
        corners = torch.cartesian_prod(*[torch.tensor([-1.0, 1.0])] * 3).expand(views.shape[0], 8, 3)
        depth = views.project(corners)[1]
        assert (depth >= views.near - 1e-4).all() and (depth <= views.far + 1e-4).all(), "nothing is clipped"


def test_the_turntable_starts_at_the_front_and_comes_round(camera):
    views = camera.turntable(8, size=20)
    assert views.shape == (1, 8) and views.height == 20
    assert torch.allclose(views.azimuth[0] % 360, torch.arange(8) * 45.0, atol=1e-3)
