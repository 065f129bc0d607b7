"""How steps choose noise levels."""

import pytest
import torch

from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.sds import SDS
from diffusion3d.guidance.timesteps import TIMESTEPS
from gaussian_prior import GaussianPrior

SCHEDULE = Schedule.cosine(1000, 64)


def run(name, low=20, high=980, steps=400, scenes=2):
    torch.manual_seed(0)
    return torch.stack([TIMESTEPS[name](SCHEDULE, low, high, i / steps, scenes) for i in range(steps)])


@pytest.mark.parametrize("name", TIMESTEPS)
def test_levels_stay_in_their_range(name):
    levels = run(name)
    assert levels.shape == (400, 2) and levels.dtype == torch.int64
    assert levels.min() >= 20 and levels.max() <= 980
    assert (run(name, 500, 500, 5) == 500).all()


def test_uniform_levels_reach_both_ends_evenly():
    levels = run("uniform", 3, 6, 2000).flatten()
    assert torch.bincount(levels, minlength=7)[3:].float().div(len(levels)).sub(0.25).abs().max() < 0.03


@pytest.mark.parametrize("name", ["sqrt_anneal", "dreamtime"])
def test_annealed_levels_never_rise_and_use_no_chance(name):
    before = torch.get_rng_state()
    levels = run(name)[:, 0]
    torch.manual_seed(0)
    assert (levels.diff() <= 0).all() and levels[0] >= 975 and levels[-1] < 350
    assert torch.equal(run(name)[:, 0], levels)
    torch.set_rng_state(before)
    TIMESTEPS[name](SCHEDULE, 20, 980, 0.5, 1)
    assert torch.equal(torch.get_rng_state(), before)


def test_hifa_anneals_as_a_square_root():
    assert run("sqrt_anneal", 300, 980, 4)[:, 0].tolist() == [980, 640, round(980 - 680 * 0.5**0.5), 391]


def test_dreamtime_spends_as_much_of_the_run_above_a_level_as_its_weight_says():
    levels = run("dreamtime", steps=2000)[:, 0]
    t = torch.arange(20, 981).double()
    prior = torch.where(t > 800, torch.exp(-((t - 800) ** 2) / (2 * 300**2)), torch.ones(()))
    prior = torch.where(t < 500, torch.exp(-((t - 500) ** 2) / (2 * 100**2)), prior)
    weight = prior * ((1 - SCHEDULE.alphas_cumprod) / SCHEDULE.alphas_cumprod).sqrt()[20:981]
    for level in (300, 500, 700, 900):
        share = weight[t >= level].sum() / weight.sum()
        assert (levels >= level).double().mean().item() == pytest.approx(share.item(), abs=0.01)


def test_a_scheme_anneals_its_range_over_the_run():
    guidance = SDS(GaussianPrior(), t_min={"from": 0.5, "to": 0.1}, t_max=0.9)
    assert [guidance.levels(Step(i, 10)) for i in (0, 5, 10)] == [(500, 899), (300, 899), (100, 899)]
