"""Splat scenes against closed forms."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.representations.base import SceneParameters
from diffusion3d.representations.density import RankedDensification
from diffusion3d.representations.gsplat import GaussianSplats, SplatScene


def test_depth_and_its_variance_of_two_gaussians_on_a_ray():
    means = torch.tensor([[[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]]])
    opacities = torch.tensor([[0.6, 0.9]])
    scene = SplatScene(
        means, torch.tensor([[[1.0, 0, 0, 0]] * 2]), torch.full((1, 2, 3), 0.2), opacities, torch.ones(1, 2, 3)
    )
    cameras = orbit(torch.zeros(1, 1), torch.zeros(1, 1), 3.0, 40.0, 33, 33)
    with torch.no_grad():
        render = scene.render(cameras)
    assert scene.render(cameras).depth_variance is None, "training does not pay for it"
    near, far = 0.6, 0.4 * 0.9
    mean = (2.5 * near + 3.5 * far) / (near + far)
    variance = (2.5**2 * near + 3.5**2 * far) / (near + far) - mean**2
    assert render.depth[0, 0, 0, 16, 16].item() == pytest.approx(mean, rel=1e-4)
    assert render.depth_variance[0, 0, 0, 16, 16].item() == pytest.approx(variance, rel=1e-3)


def test_what_lies_far_behind_the_origin_is_drawn():
    scene = SplatScene(
        torch.tensor([[[-4.0, 0.0, 0.0]]]),
        torch.tensor([[[1.0, 0, 0, 0]]]),
        torch.full((1, 1, 3), 0.5),
        torch.tensor([[0.8]]),
        torch.ones(1, 1, 3),
    )
    cameras = orbit(torch.zeros(1, 1), torch.zeros(1, 1), 3.0, 40.0, 33, 33)
    assert cameras.far < 7
    with torch.no_grad():
        render = scene.render(cameras)
    assert render.alpha[0, 0, 0, 16, 16].item() == pytest.approx(0.8, rel=1e-3)
    assert render.depth[0, 0, 0, 16, 16].item() == pytest.approx(7.0, rel=1e-4)


def test_density_is_controlled_for_one_scene_alone():
    rates = dict.fromkeys(("means", "quats", "scales", "opacities", "colors"), 0.01)
    splats = GaussianSplats(rates, count=5, density=RankedDensification(0, 1, 9, cap=9, growth=0.1, min_opacity=0.02))
    owner = SceneParameters(splats, splats.init(2))
    render = owner.scene().render(orbit(torch.zeros(2, 1), torch.zeros(2, 1), 3.0, 40.0, 16, 16))
    optimizer = torch.optim.Adam(owner.param_groups())
    with pytest.raises(ValueError, match="for one scene, not for 2; set density to None"):
        splats.density_control(owner, optimizer, render, 0, 9)
