"""Score distillation against a prior whose denoiser is known exactly: data N(1, 0.3²) for the prompt, N(0.4, 0.3²) without."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step, surrogate
from diffusion3d.guidance.sds import SDS
from diffusion3d.rendering.render import Render
from gaussian_prior import GaussianPrior, Unseen

PROMPT, NULL, SPREAD = 1.0, 0.4, 0.3
PARTICLES = 64


def distil(steps=1200, lr=0.05, **options):
    torch.manual_seed(0)
    prior = GaussianPrior(PROMPT, NULL, SPREAD)
    x = torch.zeros(PARTICLES, 1, 3, 1, 1, requires_grad=True)
    cameras = orbit(torch.zeros(PARTICLES, 1), torch.zeros(PARTICLES, 1), 3.0, 40.0, 1, 1)
    condition = prior.condition([""] * PARTICLES, cameras)
    guidance = SDS(prior, rescale=0.0, **options)
    tail = []
    for index in range(steps):
        one = torch.ones(PARTICLES, 1, 1, 1, 1)
        loss = guidance(Unseen(), Render(x, one, one), cameras, condition, Step(index, steps))["sds"]
        (grad,) = torch.autograd.grad(loss, x)
        with torch.no_grad():
            x -= lr * PARTICLES * grad
        if index >= steps - 400:
            tail.append(x.detach().clone())
    tail = torch.stack(tail)
    return tail.mean().item(), tail.std(1).mean().item()


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_sds_finds_the_guided_mode_and_loses_the_spread(scale):
    mean, spread = distil(scale=scale, weighting="sigma_squared")
    assert mean == pytest.approx(NULL + scale * (PROMPT - NULL), abs=0.02)
    assert spread < 0.05 < SPREAD, "SDS seeks the mode: particles do not keep the data's spread"


def test_the_x0_form_has_the_same_fixed_point():
    mean, _ = distil(scale=1.0, weighting="x0", t_max=0.6)
    assert mean == pytest.approx(PROMPT, abs=0.02)


def test_no_guidance_ignores_the_prompt():
    mean, _ = distil(scale=0.0, weighting="sigma_squared")
    assert mean == pytest.approx(NULL, abs=0.02)


def test_surrogate_has_the_gradient_it_was_given():
    x = torch.randn(2, 3, 4, requires_grad=True)
    grad = torch.randn(2, 3, 4)
    surrogate(x, grad).backward()
    assert torch.allclose(x.grad, grad / 6, atol=1e-6)


def test_the_weightings_differ_by_alpha_sigma():
    prior = GaussianPrior(PROMPT, NULL, SPREAD)
    cameras = orbit(torch.zeros(1, 1), torch.zeros(1, 1), 3.0, 40.0, 1, 1)
    condition = prior.condition([""], cameras)
    grads = {}
    for weighting in ("x0", "sigma_squared"):
        torch.manual_seed(3)
        x = torch.full((1, 1, 3, 1, 1), 0.2, requires_grad=True)
        one = torch.ones(1, 1, 1, 1, 1)
        guidance = SDS(prior, scale=3.0, rescale=0.0, weighting=weighting, t_min=0.5, t_max=0.5)
        (grads[weighting],) = torch.autograd.grad(
            guidance(Unseen(), Render(x, one, one), cameras, condition, Step(0, 1))["sds"], x
        )
    alpha, sigma = prior.schedule.signal(torch.tensor(round(0.5 * 999)), torch.zeros(()))
    assert torch.allclose(grads["sigma_squared"], alpha * sigma * grads["x0"], atol=1e-6)


def test_a_reversed_range_is_refused():
    with pytest.raises(UserError, match="t_min=0.9"):
        SDS(GaussianPrior(PROMPT, NULL, SPREAD), t_min=0.9, t_max=0.1).levels(Step(0, 10))


def test_an_unknown_weighting_is_refused():
    with pytest.raises(UserError, match="x1"):
        SDS(GaussianPrior(PROMPT, NULL, SPREAD), weighting="x1")
