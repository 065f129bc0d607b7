import pytest
import torch
from diffusers import DDIMScheduler

from diffusion3d.diffusion.schedule import Schedule

SCHEDULE = Schedule.cosine(1000, 64)


def items(t: torch.Tensor) -> torch.Tensor:
    return torch.randn(*t.shape, 3, 4, 4, generator=torch.Generator().manual_seed(0))


def test_cosine_is_diffusers_squaredcos_cap_v2():
    theirs = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2").alphas_cumprod
    assert torch.allclose(SCHEDULE.alphas_cumprod, theirs, rtol=2e-3, atol=1e-6)


def test_resolution_shifts_log_snr_by_a_constant():
    shifted = Schedule.cosine(1000, 128)
    logit = torch.logit(shifted.alphas_cumprod.double()) - torch.logit(SCHEDULE.alphas_cumprod.double())
    assert torch.allclose(logit[50:950], torch.full((900,), -2 * torch.log(torch.tensor(2.0))).double(), atol=2e-3)


def test_eps_x0_v_round_trips():
    t = torch.tensor([[0, 100, 500], [700, 900, 960]])
    x0, noise = items(t), items(t).flip(0)
    x_t = SCHEDULE.add_noise(x0, noise, t)
    assert torch.allclose(SCHEDULE.x0_from_eps(x_t, noise, t), x0, atol=1e-3)
    assert torch.allclose(SCHEDULE.eps_from_x0(x_t, x0, t), noise, atol=1e-3)
    v = SCHEDULE.v_from_x0(x_t, x0, t)
    assert torch.allclose(SCHEDULE.x0_from_v(x_t, v, t), x0, atol=1e-4)


def test_v_is_diffusers_velocity():
    scheduler = DDIMScheduler(1000, trained_betas=None, beta_schedule="squaredcos_cap_v2")
    t = torch.tensor([10, 400, 900])
    x0, noise = items(t), items(t).flip(0)
    x_t = SCHEDULE.add_noise(x0, noise, t)
    assert torch.allclose(SCHEDULE.v_from_x0(x_t, x0, t), scheduler.get_velocity(x0, noise, t), atol=2e-3)


def test_clean_items_are_untouched_bit_for_bit_and_never_divided_by():
    t = torch.tensor([[-1, 500], [3, -1]])
    x0 = items(t) * 1e3
    x_t = SCHEDULE.add_noise(x0, torch.randn_like(x0), t)
    clean = t < 0
    assert torch.equal(x_t[clean], x0[clean])
    eps = SCHEDULE.eps_from_x0(x_t, x0, t)
    assert torch.isfinite(eps).all() and (eps[clean] == 0).all()
    assert torch.isinf(SCHEDULE.snr(t)[clean]).all() and torch.isfinite(SCHEDULE.snr(t)[~clean]).all()


def test_levels_that_grow_are_refused():
    with pytest.raises(ValueError, match="decreasing"):
        Schedule(torch.tensor([0.1, 0.9]))


def test_a_last_level_without_signal_is_never_divided_by():
    """Zero terminal SNR: v says all of x0 there, noise says nothing of it."""
    scheduler = DDIMScheduler(1000, beta_schedule="scaled_linear", rescale_betas_zero_snr=True)
    schedule, t = Schedule(scheduler.alphas_cumprod), torch.tensor([999, 998])
    assert schedule.alphas_cumprod[-1] == 0
    x0, noise = items(t), items(t).flip(0)
    x_t = schedule.add_noise(x0, noise, t)
    assert torch.equal(x_t[0], noise[0])
    assert (schedule.x0_from_eps(x_t, noise, t)[0] == 0).all()
    assert torch.allclose(schedule.x0_from_eps(x_t, noise, t)[1], x0[1], atol=1e-2)
    v = schedule.v_from_x0(x_t, x0, t)
    assert torch.equal(v[0], -x0[0]) and torch.allclose(schedule.x0_from_v(x_t, v, t), x0, atol=1e-5)
    assert torch.allclose(schedule.eps_from_x0(x_t, x0, t), noise, atol=1e-5)
    assert schedule.snr(t)[0] == 0
    with pytest.raises(ValueError, match="none below 0"):
        Schedule(torch.tensor([0.9, -0.1]))
