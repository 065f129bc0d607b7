import pytest
import torch
from diffusers import DDIMScheduler

from diffusion3d.diffusion.condition import Prediction
from diffusion3d.diffusion.sampler import Clamp, Hooks, Sampler
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.errors import UserError

SCHEDULE = Schedule.cosine(1000, 64)
MEAN, SPREAD = 0.7, 0.3


def exact(x, t):
    """The perfect denoiser of data N(MEAN, SPREAD²)."""
    alpha, sigma = SCHEDULE.signal(t, x)
    gain = alpha * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)
    return Prediction(MEAN + gain * (x - alpha * MEAN))


@pytest.mark.parametrize("eta", [0.0, 1.0])
def test_gaussian_data_are_sampled_with_their_mean_and_spread(eta):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(20000, 1, generator=generator)
    sampler = Sampler(steps=200, eta=eta)
    x0 = sampler.sample(exact, SCHEDULE, x, sampler.timesteps(SCHEDULE), generator=generator).x0
    assert x0.mean().item() == pytest.approx(MEAN, abs=0.01)
    assert x0.std().item() == pytest.approx(SPREAD, abs=0.015)


@pytest.mark.parametrize("eta", [0.0, 0.7])
def test_a_step_is_diffusers_step(eta):
    scheduler = DDIMScheduler(1000, beta_schedule="squaredcos_cap_v2", clip_sample=False, prediction_type="sample")
    scheduler.alphas_cumprod = SCHEDULE.alphas_cumprod
    scheduler.set_timesteps(20)
    x = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    x0 = torch.tanh(x)
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    theirs = scheduler.step(x0, 500, x, eta=eta, variance_noise=noise).prev_sample
    t, s = torch.full((2,), 500), torch.full((2,), 450)
    ours = Sampler(eta=eta).step(SCHEDULE, x, x0, t, s, torch.Generator().manual_seed(2))
    assert torch.allclose(ours, theirs, atol=1e-5)


def test_clean_items_are_never_stepped():
    x = torch.randn(2, 4, 3)
    clean = torch.tensor([[True, False, False, False], [False, False, True, True]])
    sampler = Sampler(steps=7, eta=1.0)
    out = sampler.sample(exact, SCHEDULE, x, sampler.timesteps(SCHEDULE), clean=clean).x0
    assert torch.equal(out[clean], x[clean])
    assert not torch.isclose(out[~clean], x[~clean]).any()


def test_hooks_see_every_step_and_may_change_it():
    seen = []

    class Record(Hooks):
        def on_x(self, x, t):
            seen.append(int(t[0]))
            return x

    sampler = Sampler(steps=5)
    x = 10 * torch.randn(3, 2)
    out = sampler.sample(
        lambda x, t: Prediction(5 * x), SCHEDULE, x, [900, 300, 600, 10, -1], hooks=[Clamp(), Record()]
    )
    assert seen == [300, 600, 10, -1]
    assert out.x0.abs().max() <= 1


def test_gradients_flow_when_asked():
    x = torch.randn(3, 2, requires_grad=True)
    sampler = Sampler(steps=4)
    sampler.sample(exact, SCHEDULE, x, sampler.timesteps(SCHEDULE), grad=True).x0.sum().backward()
    assert x.grad is not None and (x.grad != 0).all()


def test_zero_steps_are_refused():
    with pytest.raises(UserError, match="steps=0"):
        Sampler(steps=0)


@pytest.mark.parametrize("start", [-1, 200])
def test_a_jump_back_adds_fresh_noise_of_the_right_variance(start):
    schedule = Schedule.cosine(1000, 64)
    torch.manual_seed(0)
    t = torch.full((20000,), start)
    x = schedule.add_noise(torch.full((20000, 1), 0.7), torch.randn(20000, 1), t)
    later = Sampler(10).sample(lambda x, t: Prediction(x), schedule, x, [start, 600]).x0
    alpha, sigma = schedule.signal(torch.tensor([600]), torch.zeros(1))
    assert later.mean().item() == pytest.approx(0.7 * alpha.item(), abs=0.02)
    assert later.std().item() == pytest.approx(sigma.item(), abs=0.02)
