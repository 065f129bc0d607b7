"""Splat scenes against closed forms."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.representations.gsplat import SplatScene


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
