"""Perp-Neg over views: its weights, and what comes of them."""

import math

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.diffusion.combine import across, composed
from diffusion3d.diffusion.condition import Prediction
from diffusion3d.errors import UserError
from diffusion3d.guidance.sds import SDS
from diffusion3d.guidance.view_weights import VIEW_WEIGHTS, away_from_front, away_from_side
from gaussian_prior import GaussianPrior


def seen(*azimuths, elevation=0.0):
    azimuth = torch.tensor([azimuths])
    return orbit(azimuth, torch.full_like(azimuth, elevation), 3.0, 40.0, 4, 4)


def test_weights_at_the_four_sides_are_those_published():
    cameras = seen(0.0, 90.0, -90.0, 180.0)
    side, back = 4 - 2.426, math.exp(0) + 0.967
    torch.testing.assert_close(away_from_front(cameras)[0], -torch.tensor([0, side, side, back]), atol=2e-3, rtol=0)
    torch.testing.assert_close(away_from_side(cameras)[0], -torch.tensor([side, 0, 0, 1 - 0.606]), atol=2e-3, rtol=0)


def test_weights_change_steadily_push_away_and_are_none_from_overhead():
    cameras = seen(*[float(a) for a in range(-179, 181)])
    for weight in VIEW_WEIGHTS.values():
        found = weight(cameras)[0]
        assert (found.diff().abs() < 0.05).all() and (found < 2e-3).all()
        torch.testing.assert_close(found[:179].flip(0), found[180:359], atol=1e-5, rtol=0)
        assert (weight(seen(0.0, 90.0, 180.0, elevation=70.0)) == 0).all()


def test_only_what_is_perpendicular_in_a_view_is_added():
    generator = torch.Generator().manual_seed(0)
    shape = (2, 3, 4, 5, 5)
    named = {name: Prediction(torch.randn(shape, generator=generator)) for name in ("cond", "null", "front")}
    weights = torch.randn(2, 3, generator=generator)
    found = composed(named, {"front": weights}, perpendicular=True)
    main, delta = named["cond"].x0 - named["null"].x0, named["front"].x0 - named["null"].x0
    for scene in range(2):
        for view in range(3):
            a, b = main[scene, view].flatten(), delta[scene, view].flatten()
            expected = named["cond"].x0[scene, view].flatten() + weights[scene, view] * (b - (a @ b) / (a @ a) * a)
            torch.testing.assert_close(found[scene, view].flatten(), expected, atol=1e-5, rtol=1e-4)
    straight = composed(named, {"front": weights})
    torch.testing.assert_close(straight, named["cond"].x0 + weights[..., None, None, None] * delta)
    assert torch.equal(across(delta, torch.zeros_like(delta), 2), delta)


def test_each_view_is_pushed_by_its_own_weight():
    """Gaussians of one width: the guided mean of a view moves by its weight times the front's own."""
    prior = GaussianPrior(1.0, 0.4, 0.3, {"front": 2.0})
    guidance = SDS(prior, scale=1.0, rescale=0.0, prompts=["front"], prompt_weights=["away_from_front"])
    cameras = seen(0.0, 90.0, 180.0)
    condition = prior.condition([""], cameras)
    x_t, t = torch.randn(1, 3, 3, 1, 1), torch.tensor([500])
    moved = guidance.guided(x_t, t, condition, 1.0) - prior.denoise(x_t, t, condition).x0
    delta = (
        prior.denoise(x_t, t, prior.condition(["front"], cameras)).x0
        - prior.denoise(x_t, t, condition.without_text()).x0
    )
    torch.testing.assert_close(moved, away_from_front(cameras)[..., None, None, None] * delta, atol=1e-5, rtol=1e-4)


def test_a_weight_that_is_neither_number_nor_known_is_refused():
    with pytest.raises(
        UserError, match=r"prompt_weights=\['away'\] must be numbers, or of away_from_front, away_from_side"
    ):
        SDS(GaussianPrior(), prompts=["a"], prompt_weights=["away"])
