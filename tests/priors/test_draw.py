"""Guidance and sampling against a prior that is known exactly."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.priors.draw import draw, guided
from gaussian_prior import GaussianPrior

SCENES = 2000


def condition_of(prior, scenes=SCENES):
    return prior.condition([""] * scenes, orbit(torch.zeros(scenes, 1), torch.zeros(scenes, 1), 3.0, 40.0, 1, 1))


@pytest.mark.parametrize("scale", [0.0, 1.0, 2.5])
def test_guidance_moves_from_the_null_estimate_through_the_conditional_one(scale):
    prior = GaussianPrior(0.7, 0.2)
    condition, x_t, t = condition_of(prior, 3), torch.randn(3, 1, 3, 1, 1), torch.tensor([10, 500, 990])
    cond, null = prior.denoise(x_t, t, condition).x0, prior.denoise(x_t, t, condition.without_text()).x0
    prior.calls = 0
    found = guided(prior, x_t, t, condition, scale, 0.0)
    torch.testing.assert_close(found, null + scale * (cond - null), atol=1e-5, rtol=1e-5)
    assert prior.calls == 1, "both conditions go through the prior together"


def test_rescaling_gives_the_conditional_spread_back():
    prior = GaussianPrior(0.7, 0.2)
    condition, x_t, t = condition_of(prior, 2), torch.randn(2, 1, 3, 1, 1), torch.tensor([300, 600])
    cond = prior.denoise(x_t, t, condition).x0
    full = guided(prior, x_t, t, condition, 5.0, 1.0)
    torch.testing.assert_close(full.std((1, 2, 3, 4)), cond.std((1, 2, 3, 4)), atol=1e-4, rtol=1e-4)
    none, half = (guided(prior, x_t, t, condition, 5.0, share) for share in (0.0, 0.5))
    torch.testing.assert_close(half, (full + none) / 2, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("eta", [0.0, 1.0])
@pytest.mark.parametrize(("scale", "mean"), [(1.0, 0.55), (0.0, 0.4)])
def test_samples_follow_the_data(eta, scale, mean):
    prior = GaussianPrior(0.55, 0.4, 0.1)
    images = draw(prior, Sampler(400, eta), condition_of(prior), scale, 0.0, torch.Generator().manual_seed(0))
    assert images.shape == (SCENES, 1, 3, 1, 1)
    assert images.mean().item() == pytest.approx(mean, abs=0.01)
    assert images.std().item() == pytest.approx(0.1, rel=0.08)


def test_samples_are_images():
    prior = GaussianPrior(1.0, 0.0, 0.3)
    images = draw(prior, Sampler(10), condition_of(prior, 50), 7.5, 0.0, torch.Generator().manual_seed(0))
    assert images.min() >= 0 and images.max() == 1


def test_the_noise_comes_from_the_generator_alone():
    prior = GaussianPrior()
    found = []
    for seed in (1, 1, 2):
        torch.rand(5)
        found.append(
            draw(prior, Sampler(5, 1.0), condition_of(prior, 4), 1.0, 0.0, torch.Generator().manual_seed(seed))
        )
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])
