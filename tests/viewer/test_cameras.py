import math

import numpy as np
import pytest
import torch
from viser.transforms import SO3

from diffusion3d.camera_sampling import Orbit
from diffusion3d.viewer.cameras import View
from pages import Page

ORBIT = Orbit(64, distance=3.0, fov=40.0)


def test_the_view_from_the_front_in_closed_form():
    view = View.of(Page().camera)
    assert view == View((0.5, -0.5, -0.5, 0.5), (3.0, 0.0, 0.0), math.radians(40.0), 1.25)
    cameras = view.cameras(64)
    right, down, forward, origin = (0, 1, 0, 0), (0, 0, -1, 0), (-1, 0, 0, 0), (3, 0, 0, 1)
    assert torch.allclose(cameras.c2w[0, 0], torch.tensor([right, down, forward, origin]).float().T, atol=1e-6)
    focal = 32 / math.tan(math.radians(20))
    assert torch.allclose(cameras.K[0, 0], torch.tensor([[focal, 0, 40], [0, focal, 32], [0, 0, 1.0]]))
    assert (cameras.height, cameras.width) == (64, 80)
    assert (cameras.near, cameras.far) == (pytest.approx(3 - math.sqrt(3)), pytest.approx(3 + math.sqrt(3)))


@pytest.mark.parametrize("frame", [0, 1, 2])
def test_viser_and_the_orbit_agree(frame):
    ours = ORBIT.turntable(3, 64, (10.0, 70.0)).select(views=slice(frame, frame + 1))
    c2w = ours.c2w[0, 0].double().numpy()
    page = Page(c2w[:3, 3], SO3.from_matrix(c2w[:3, :3]).wxyz, 64, 64)
    theirs = View.of(page.camera).cameras(64)
    assert torch.allclose(theirs.c2w, ours.c2w, atol=1e-5)
    assert torch.allclose(theirs.K, ours.K, atol=1e-3)
    assert np.allclose((theirs.near, theirs.far), (ours.near, ours.far), atol=1e-5)


def test_a_page_without_an_area_has_no_view():
    assert View.of(Page(height=0).camera) is None
