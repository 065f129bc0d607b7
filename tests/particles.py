"""One-pixel scenes under a guidance scheme, and a prior for them whose denoiser is known: N(1, 0.3²) told, N(0.4, 0.3²) not."""

import torch

from diffusion3d.cameras import orbit
from diffusion3d.guidance.base import Step
from diffusion3d.rendering.render import Render
from gaussian_prior import GaussianPrior, Unseen

PROMPT, NULL, SPREAD = 1.0, 0.4, 0.3
NEGATIVE, OTHER, SOURCE = -0.5, 2.0, 0.7
MEANS = {"bad": NEGATIVE, "other": OTHER, "source": SOURCE}
LAST = 999


def make_prior():
    return GaussianPrior(PROMPT, NULL, SPREAD, MEANS)


def make(scheme, *, t=None, scale=1.0, rescale=0.0, prior=None, **options):
    """A scheme without CFG rescale; `t` fixes the level, a share of T."""
    if t is not None:
        options |= {"t_min": t, "t_max": t}
    return scheme(prior or make_prior(), scale=scale, rescale=rescale, **options)


def signal(t):
    """alpha, sigma and alpha times the gain of the exact denoiser at a share t of T: x0 = m + gain (x_t - alpha m)."""
    alpha, sigma = (float(v) for v in make_prior().schedule.signal(torch.tensor(round(t * LAST)), torch.zeros(())))
    return alpha, sigma, alpha**2 * SPREAD**2 / (alpha**2 * SPREAD**2 + sigma**2)


class Still:
    """A scene of one-pixel particles that stays as it is."""

    def __init__(self, x):
        self.x = x

    def render(self, cameras, pixels=None, sources=None, shading=None):
        one = torch.ones_like(self.x[:, :, :1])
        return Render(self.x, one, one)


def losses(guidance, x, step):
    """For renders x [B, V, 3, H, W], which cover everything."""
    scenes, views, _, height, width = x.shape
    cameras = orbit(torch.zeros(scenes, views), torch.zeros(scenes, views), 3.0, 40.0, height, width)
    condition = guidance.prior.condition([""] * scenes, cameras)
    return guidance(Unseen(), Still(x).render(cameras), cameras, condition, step)


def gradient(guidance, x, seed=0, step=Step(0, 1)):  # noqa: B008, a frozen one
    """d(sum of the losses) / dx times B V: what the scheme's formula says."""
    torch.manual_seed(seed)
    x = x.clone().requires_grad_()
    (grad,) = torch.autograd.grad(sum(losses(guidance, x, step).values()), x)
    return grad * x.shape[0] * x.shape[1]


def line(value, particles=1):
    return torch.full((particles, 1, 3, 1, 1), float(value))


def rest(guidance, particles=1, step=Step(0, 1), near=1.0):  # noqa: B008
    """Where the mean gradient vanishes, which is an affine function of x for Gaussian data. Noise is the same at both ends."""
    at = [gradient(guidance, line(v, particles), step=step).double().mean().item() for v in (near - 1, near + 1)]
    return near - 1 - 2 * at[0] / (at[1] - at[0])


def distil(guidance, steps, lr, particles=64, start=0.0):
    """Mean and spread of particles under gradient descent, over the last quarter."""
    torch.manual_seed(0)
    x = line(start, particles).requires_grad_()
    tail = []
    for index in range(steps):
        step = Step(index, steps)
        (grad,) = torch.autograd.grad(sum(losses(guidance, x, step).values()), x)
        with torch.no_grad():
            x -= lr * particles * grad
        guidance.update(step)
        if 4 * index >= 3 * steps:
            tail.append(x.detach().clone())
    tail = torch.stack(tail)
    return tail.mean().item(), tail.std(1).mean().item()
