"""Every scheme against what follows from its equation for Gaussian data, where the exact denoiser is known."""

import pytest
import torch

from choices import cameras, chosen
from choices import make_prior as make_network
from diffusion3d.diffusion.condition import Prediction
from diffusion3d.diffusion.inversion import rungs
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step, surrogate
from diffusion3d.guidance.csd import CSD
from diffusion3d.guidance.hifa import HiFA
from diffusion3d.guidance.ism import ISM
from diffusion3d.guidance.nfsd import NFSD
from diffusion3d.guidance.sdi import SDI
from diffusion3d.guidance.sds import SDS
from diffusion3d.guidance.sjc import SJC
from diffusion3d.guidance.vsd import VSD
from diffusion3d.tasks.build import build
from gaussian_prior import GaussianPrior
from particles import (
    LAST,
    NEGATIVE,
    NULL,
    OTHER,
    PROMPT,
    SPREAD,
    Still,
    distil,
    gradient,
    line,
    losses,
    make,
    make_prior,
    rest,
    signal,
)

DELTA = PROMPT - NULL
MANY = 2048
"""Particles, where the mean over noise is wanted."""


def spread_of(t):
    alpha, sigma, _ = signal(t)
    return (alpha**2 * SPREAD**2 + sigma**2) ** 0.5


# SDS and its kin


@pytest.mark.parametrize("scheme", [SDS, SJC])
@pytest.mark.parametrize("scale", [0.0, 1.0, 7.5])
def test_the_mean_gradient_vanishes_at_the_guided_mean(scheme, scale):
    assert rest(make(scheme, t=0.3, scale=scale), MANY) == pytest.approx(NULL + scale * DELTA, abs=0.03)


@pytest.mark.parametrize("step", [Step(0, 10), Step(9, 10)])
@pytest.mark.parametrize("choice", ["sds", "mvdream", "dreamtime", "hifa", "sjc", "perp_neg"])
def test_with_the_settings_that_ship_it_vanishes_there_too(choice, step):
    """Rescaling changes nothing where both estimates have one spread, nor do prompts that say the same in other words."""
    guidance = build(chosen("guidance", choice), prior=make_prior())
    assert guidance.scale > 1 and (guidance.rescale > 0) == (choice in ("sds", "mvdream", "perp_neg"))
    assert rest(guidance, MANY, step) == pytest.approx(NULL + guidance.scale * DELTA, abs=0.05)


@pytest.mark.parametrize("weighting", ["x0", "sigma_squared", "one", "fantasia3d"])
def test_weightings_are_factors_on_the_difference_of_noise(weighting):
    t, x, n = 0.4, 0.2, 50
    guidance = make(SDS, t=t, scale=3.0, weighting=weighting)
    alpha, sigma, _ = signal(t)
    w = {"x0": sigma / alpha, "sigma_squared": sigma**2, "one": 1.0, "fantasia3d": alpha * sigma**2}[weighting]
    found = gradient(guidance, line(x, n), seed=1)
    torch.manual_seed(1)
    torch.randint(round(t * LAST), round(t * LAST) + 1, (n,))  # the level's draw comes before the noise's
    noise = torch.randn(n, 1, 3, 1, 1)
    x_t = alpha * x + sigma * noise
    mean = NULL + 3 * DELTA
    eps_hat = sigma * (x_t - alpha * mean) / spread_of(t) ** 2
    assert torch.allclose(found, w * (eps_hat - noise), atol=2e-5)


def test_sds_seeks_the_guided_mode_and_loses_the_spread():
    mean, spread = distil(make(SDS, scale=7.5, weighting="sigma_squared"), 400, 0.1)
    assert mean == pytest.approx(NULL + 7.5 * DELTA, abs=0.05)
    assert spread < SPREAD / 3


def test_the_surrogate_has_the_gradient_it_was_given():
    x, grad = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4)
    surrogate(x, grad).backward()
    assert torch.allclose(x.grad, grad / 6, atol=1e-6)


def test_the_x0_loss_is_half_the_squared_distance_to_x0_over_scenes_and_views():
    prior, x = make_prior(), torch.rand(3, 2, 3, 4, 4, requires_grad=True)
    guidance = make(SDS, t=0.5, scale=2.0, prior=prior)
    torch.manual_seed(3)
    (found,) = torch.autograd.grad(losses(guidance, x, Step(0, 1))["sds"], x)
    torch.manual_seed(3)
    level = torch.randint(round(0.5 * LAST), round(0.5 * LAST) + 1, (3,))
    x_t = prior.schedule.add_noise(x, torch.randn(x.shape), level)
    alpha, _, gain = signal(0.5)
    mean = NULL + 2 * DELTA
    x0 = (mean + gain / alpha * (x_t - alpha * mean)).detach()
    (expected,) = torch.autograd.grad(0.5 * (x - x0).square().sum() / 6, x)
    assert torch.allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("scheme", [CSD, SDS])
def test_the_gradient_of_a_pixel_knows_nothing_of_the_number_of_pixels(scheme):
    """Sums over pixels, means over scenes and views."""
    guidance = make(scheme, t=0.5, scale=2.0)
    sizes = [(1, 1, 1), (1, 1, 8), (2, 1, 8), (1, 4, 8)]
    raw = []
    for scenes, views, side in sizes:
        torch.manual_seed(0)
        x = torch.zeros(scenes, views, 3, side, side, requires_grad=True)
        (grad,) = torch.autograd.grad(sum(losses(guidance, x, Step(0, 1)).values()), x)
        raw.append(grad.abs().mean().item() * scenes * views)
    tolerance = 1e-4 if scheme is CSD else 0.5
    assert raw == pytest.approx([raw[-1]] * len(sizes), rel=tolerance)


@pytest.mark.parametrize("weighting", ["x0", "sigma_squared"])
def test_sds_is_csd_and_what_pulls_to_the_null_text(weighting):
    """SDS(s) = s CSD + (eps_null - eps), and the latter is SDS(0)."""
    x = torch.rand(8, 1, 3, 1, 1)

    def of(scheme, scale):
        return gradient(make(scheme, scale=scale, weighting=weighting, t_min=0.1, t_max=0.9), x, seed=5)

    assert torch.allclose(of(SDS, 7.5), 7.5 * of(CSD, 1.0) + of(SDS, 0.0), atol=1e-4)


def test_the_identity_holds_for_a_network():
    prior, views = make_network(), cameras()
    condition = prior.condition(["a castle"], views, torch.full((1, 3), 0.5))
    x = torch.rand(1, 2, 3, 32, 32)

    def of(scheme, scale):
        guidance = make(scheme, scale=scale, t_min=0.1, t_max=0.9, prior=prior)
        torch.manual_seed(5)
        image = x.clone().requires_grad_()
        scene = Still(image)
        loss = guidance(scene, scene.render(views), views, condition, Step(0, 1))
        return torch.autograd.grad(sum(loss.values()), image)[0]

    assert torch.allclose(of(SDS, 7.5), 7.5 * of(CSD, 1.0) + of(SDS, 0.0), atol=1e-5)


def test_sjc_is_its_formula_in_karras_variables():
    prior, t, x, n = make_prior(), 0.4, 0.2, 20
    alpha, sigma, _ = signal(t)
    s = sigma / alpha
    torch.manual_seed(2)
    torch.randint(0, 2, (n,))
    noise = torch.randn(n, 1, 3, 1, 1)
    z = x + s * noise
    mean = NULL + 2 * DELTA
    D = (s**2 * mean + SPREAD**2 * z) / (s**2 + SPREAD**2)  # the posterior mean of N(mean, spread²) given z
    for centred, expected in ((True, -(D - x) / s), (False, -(D - z) / s)):
        guidance = make(SJC, t=t, scale=2.0, weighting="one", centred=centred, prior=prior)
        assert torch.allclose(gradient(guidance, line(x, n), seed=2), expected, atol=2e-5)


@pytest.mark.parametrize("t", [0.1, 0.6])
def test_centring_sjc_keeps_the_mean_and_swaps_the_noise_that_is_left(t):
    """x - x0_hat holds what the denoiser keeps of the noise, z - x0_hat the rest."""
    found = {centred: gradient(make(SJC, t=t, centred=centred), line(1.0, MANY)) for centred in (True, False)}
    alpha, sigma, kept = signal(t)
    for centred, left in ((True, kept), (False, 1 - kept)):
        assert found[centred].std().item() == pytest.approx(left * sigma / alpha, rel=0.05)
        assert found[centred].mean().item() == pytest.approx(0.0, abs=0.05 * sigma / alpha)
    assert (found[True].std() < found[False].std()) == (t == 0.6)


# Negative and several prompts


def test_a_negative_prompt_takes_the_place_of_the_null_text():
    guidance = make(SDS, t=0.3, scale=3.0, negative_prompt="bad")
    assert rest(guidance, MANY) == pytest.approx(NEGATIVE + 3 * (PROMPT - NEGATIVE), abs=0.03)


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_weighted_prompts_add_up(scale):
    guidance = make(SDS, t=0.3, scale=scale, prompts=["other", "bad"], prompt_weights=[0.5, -0.25])
    told = DELTA + 0.5 * (OTHER - NULL) - 0.25 * (NEGATIVE - NULL)
    assert rest(guidance, MANY) == pytest.approx(NULL + scale * told, abs=0.03)


def test_a_prompt_of_weight_one_is_the_prompt():
    alone = gradient(make(SDS, t=0.5, scale=3.0), line(0.0, 4))
    split = make(SDS, t=0.5, scale=3.0, prompts=["", ""], prompt_weights=[0.5, -0.5])
    assert torch.allclose(gradient(split, line(0.0, 4)), alone, atol=1e-5)


# CSD


def test_csd_has_no_fixed_point():
    """For equal variances its gradient is the same everywhere: w alpha / sigma (1 - alpha gain) (m_null - m_cond)."""
    guidance = make(CSD, t=0.5, scale=1.0)
    found = [gradient(guidance, line(x)).mean().item() for x in (-5.0, 0.0, 1.0, 20.0)]
    _, _, kept = signal(0.5)
    assert found == pytest.approx([-(1 - kept) * DELTA] * 4, rel=1e-3)
    mean, _ = distil(make(CSD, scale=1.0, weighting="sigma_squared"), 100, 2.0, particles=4)
    assert mean > 3 * PROMPT, "it walks through the data and on"


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_csd_moves_on_from_the_null_text_to_the_negative_prompt(share):
    guidance = make(CSD, t=0.5, negative={"from": 0.0, "to": 1.0}, negative_prompt="bad")
    away = NULL + share * (NEGATIVE - NULL)
    _, _, kept = signal(0.5)
    found = gradient(guidance, line(0.0), step=Step(int(10 * share), 10)).mean().item()
    assert found == pytest.approx((1 - kept) * (away - PROMPT), rel=1e-3)


# NFSD


@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_nfsd_rests_at_the_guided_mean_at_low_levels(scale):
    guidance = make(NFSD, t=0.15, scale=scale, negative_prompt="bad")
    assert rest(guidance, MANY) == pytest.approx(NULL + scale * DELTA, abs=0.05)


def test_nfsd_is_the_same_everywhere_at_high_levels():
    guidance = make(NFSD, t=0.6, scale=2.0, negative_prompt="bad")
    _, _, kept = signal(0.6)
    expected = (1 - kept) * ((NEGATIVE - NULL) - 2 * DELTA)
    found = [gradient(guidance, line(x)).mean().item() for x in (-5.0, 0.0, 5.0)]
    assert found == pytest.approx([expected] * 3, rel=1e-3)


# Inversion


@pytest.mark.parametrize(("t", "interval"), [(0.3, 0.1), (0.5, 0.1), (0.5, 0.05)])
def test_ism_rests_where_its_interval_says(t, interval):
    s = (round(t * LAST) - round(interval * 1000)) / LAST
    (alpha, sigma, _), (alpha_s, sigma_s, _) = signal(t), signal(s)
    r, r_s = sigma / alpha, sigma_s / alpha_s
    shift = r / (r - r_s) * (SPREAD**2 + r_s**2) ** 0.5 / SPREAD
    for scale in (1.0, 2.0):
        found = rest(make(ISM, t=t, scale=scale, interval=interval, jump=0.005), near=NULL)
        assert found - NULL == pytest.approx(scale * DELTA * shift, rel=0.02)
    assert shift > 1, "beyond the mean of the prompt"


def test_ism_becomes_csd_as_its_interval_closes():
    x, t = line(0.3), 0.5
    csd = gradient(make(CSD, t=t, scale=2.0), x).mean().item()
    apart = [
        abs(gradient(make(ISM, t=t, scale=2.0, interval=i, jump=0.02), x).mean().item() - csd)
        for i in (0.2, 0.05, 0.001)
    ]
    assert apart[0] > 2 * apart[1] > 4 * apart[2] and apart[2] < 0.01 * abs(csd)


def test_ism_has_no_noise():
    guidance = make(ISM, t=0.5)
    assert torch.equal(gradient(guidance, line(0.2), seed=1), gradient(guidance, line(0.2), seed=2))


@pytest.mark.parametrize("t", [0.2, 0.5, 0.8])
@pytest.mark.parametrize(("scale", "inversion_scale"), [(1.0, 1.0), (3.0, 3.0), (2.0, -2.0), (7.5, 0.0)])
def test_sdi_rests_at_the_mean_and_beyond_it_where_the_inversion_is_guided_less(t, scale, inversion_scale):
    mean, other = NULL + scale * DELTA, NULL + inversion_scale * DELTA
    a = signal(t)[2] ** 0.5
    guidance = make(SDI, t=t, scale=scale, inversion_scale=inversion_scale, inversion_steps=50, eta=0.0)
    assert rest(guidance) == pytest.approx(mean + a * (mean - other), abs=0.03 * abs(mean - other) + 1e-3)


def test_sdi_draws_as_much_noise_as_eta_says():
    x = line(1.0, MANY)
    options = {"t": 0.5, "inversion_scale": 1.0, "inversion_steps": 4}
    calm, little, much = (gradient(make(SDI, eta=eta, **options), x) for eta in (0.0, 0.3, 1.0))
    assert calm.std() < 1e-5 and calm.abs().max() < 1e-4, "the mean is its own inversion's fixed point"
    assert 0.01 < little.std() < 0.5 * much.std()
    assert abs(much.mean().item()) < 0.01
    # two rungs draw noise once, with the spread of DDIM's eta between them; the denoiser keeps its gain of it
    low, high = rungs(torch.tensor([round(0.5 * LAST)]), 2).flatten().tolist()
    (alpha, sigma, _), (alpha_t, sigma_t, kept) = signal(low / LAST), signal(high / LAST)
    once = gradient(make(SDI, eta=0.3, **(options | {"inversion_steps": 2})), x)
    spread = 0.3 * sigma / sigma_t * (1 - (alpha_t / alpha) ** 2) ** 0.5
    assert once.std().item() == pytest.approx(kept / alpha_t * spread, rel=0.05)


def test_sdi_finds_one_point_without_noise():
    guidance = make(SDI, scale=1.0, inversion_scale=1.0, eta=0.0, t_min=0.3, t_max=0.6)
    mean, spread = distil(guidance, 60, 0.5, particles=4, start=0.0)
    assert mean == pytest.approx(PROMPT, abs=0.01) and spread < 0.01


# HiFA


class Doubled(GaussianPrior):
    """Diffuses 2 x - 1."""

    def encode(self, images):
        return images * 2 - 1

    def decode(self, x):
        return (x + 1) / 2


def test_hifa_judges_twice_in_the_priors_space_and_in_images():
    x = torch.rand(4, 1, 3, 1, 1)
    prior = Doubled(PROMPT, NULL, SPREAD)
    sds = gradient(make(SDS, t=0.4, scale=2.0, prior=prior), x)
    for weight in (0.0, 0.5):
        found = gradient(make(HiFA, t=0.4, scale=2.0, image_weight=weight, prior=prior), x)
        # d encode / d image is 2, and an image differs by half of what its encoding does
        assert torch.allclose(found, sds * (1 + weight / 4), atol=1e-5)


# VSD


class Itself(torch.nn.Module):
    """phi = the prior."""

    def __init__(self, prior):
        super().__init__()
        self.frozen = (prior,)

    def denoise(self, x_t, t, condition):
        return self.frozen[0].denoise(x_t, t, condition)

    def learn(self, x, condition):
        pass


class Moments(torch.nn.Module):
    """phi = the exact denoiser of a Gaussian with the moments of the particles."""

    def __init__(self, prior):
        super().__init__()
        self.schedule, self.mean, self.spread = prior.schedule, torch.zeros(()), torch.tensor(0.01)

    def denoise(self, x_t, t, condition):
        alpha, sigma = self.schedule.signal(t, x_t)
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        return Prediction(self.mean + gain * (x_t - alpha * self.mean))

    def learn(self, x, condition):
        self.mean, self.spread = x.mean(), x.std().clamp(min=0.01)


def test_vsd_with_the_prior_as_phi_does_not_drift_at_scale_one():
    x = torch.rand(8, 1, 3, 1, 1)
    assert (gradient(make(VSD, learner=Itself, scale=1.0), x) == 0).all()
    csd = gradient(make(CSD, scale=1.0), x)
    assert torch.allclose(gradient(make(VSD, learner=Itself, scale=3.0), x), 2 * csd, atol=1e-5)


def test_vsd_keeps_the_spread_that_sds_loses():
    options = {"weighting": "sigma_squared"}
    mean, spread = distil(make(VSD, learner=Moments, **options), 900, 0.1)
    assert mean == pytest.approx(PROMPT, abs=0.03)
    assert spread == pytest.approx(SPREAD, abs=0.05)
    mean, spread = distil(make(SDS, **options), 300, 0.1)
    assert mean == pytest.approx(PROMPT, abs=0.03)
    assert spread < SPREAD / 3


# What cannot be


@pytest.mark.parametrize(
    ("scheme", "options", "message"),
    [
        (SDS, {"scale": -1.0}, "scale=-1 must not be negative"),
        (SDS, {"scale": {"from": 7.5, "to": -2.0}}, "scale=-2 must not be negative"),
        (SDS, {"t_min": 0.9, "t_max": 0.1}, "t_min=0.9 and t_max=0.1"),
        (SDS, {"t_min": 0.5, "t_max": 1.2}, "t_max=1.2"),
        (SDS, {"timesteps": "random"}, "timesteps='random' is not one of uniform, sqrt_anneal, dreamtime"),
        (SDS, {"weighting": "x1"}, "weighting='x1' is not one of x0"),
        (SDS, {"prompts": ["a", "b"], "prompt_weights": [1.0]}, "2 prompts and 1 prompt_weights"),
        (CSD, {"negative": 1.0}, "needs a guidance.negative_prompt"),
        (CSD, {"negative": 1.5, "negative_prompt": "bad"}, "must lie in 0 ... 1"),
        (NFSD, {}, "negative_prompt must say"),
        (NFSD, {"low": 1.5, "negative_prompt": "bad"}, "low=1.5 must be a share"),
        (SDS, {"rescale": -0.5}, "rescale=-0.5 must lie in 0 ... 1"),
        (ISM, {"interval": 0.0}, "must be positive"),
        (SDI, {"inversion_steps": 0}, "inversion_steps=0"),
        (SDI, {"eta": 2.0}, "eta=2"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(scheme, options, message):
    with pytest.raises(UserError, match=message) as refusal:
        make(scheme, **options)
    assert "\n" not in str(refusal.value)
