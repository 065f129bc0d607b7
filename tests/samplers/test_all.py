"""What every sampler of the config group keeps."""

import itertools

import pytest
import torch

from choices import choices, chosen
from diffusion3d.diffusion.condition import Prediction
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.tasks.build import build

SCHEDULE = Schedule.cosine(1000, 64)
MEAN, SPREAD = 0.5, 0.2


@pytest.fixture(params=choices("sampler"))
def sampler(request):
    return build(chosen("sampler", request.param))


def exact(x, t):
    alpha, sigma = SCHEDULE.signal(t, x)
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    return Prediction(MEAN + gain * (x - alpha * MEAN))


def sample(sampler, seed=0, count=4000):
    x = torch.randn(count, 1, generator=torch.Generator().manual_seed(1))
    levels = sampler.timesteps(SCHEDULE)
    return sampler.sample(exact, SCHEDULE, x, levels, generator=torch.Generator().manual_seed(seed)).x0


def test_levels_go_from_noise_to_clean(sampler):
    levels = sampler.timesteps(SCHEDULE)
    assert levels[0] == 999 and levels[-1] == -1
    assert all(a > b for a, b in itertools.pairwise(levels))
    assert sampler.timesteps(SCHEDULE, 300)[0] == 300


def test_samples_have_the_mean_and_about_the_spread_of_the_data(sampler):
    x0 = sample(sampler)
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.02)
    assert x0.std().item() == pytest.approx(SPREAD, rel=0.15)


def test_equal_generators_give_equal_samples(sampler):
    assert torch.equal(sample(sampler), sample(sampler))


def test_only_the_samplers_with_noise_use_the_generator(sampler):
    assert torch.equal(sample(sampler, 0), sample(sampler, 1)) == (sampler.eta == 0)


def test_the_choices_are_what_they_are_called():
    assert build(chosen("sampler", "ddim")).eta == 0
    assert build(chosen("sampler", "ancestral")).eta == 1
