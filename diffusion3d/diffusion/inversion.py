"""DDIM inversion: from a clean item up to a noise level along the prior's own trajectory."""

from __future__ import annotations

from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.sampler import Denoiser
from diffusion3d.diffusion.schedule import Schedule


def rungs(top: Int[Tensor, " B"], steps: int) -> Int[Tensor, "K B"]:
    """Levels evenly spaced from clean (not among them) up to `top`, for each of B scenes."""
    share = torch.arange(1, steps + 1, device=top.device)[:, None] / steps
    return ((top + 1) * share).round().long() - 1


def invert(denoiser: Denoiser, schedule: Schedule, x: Tensor, levels: Int[Tensor, "K B"], eta: float = 0.0) -> Tensor:
    """x at levels[-1] (Song et al. 2021, eq. 12, walked upwards); the prior is asked once for every rung.

    A clean item says nothing about its noise, so the first noise estimate is that of alpha x, taken for an item at levels[0].

    Args:
        denoiser: the prior with its conditions bound.
        x: clean, leading dimension B.
        levels: never falling; a level of -1 leaves its scene clean.
        eta: 0 is deterministic; above, a part of the noise that is drawn anew, with the spread that DDIM's eta has between the
            same two levels, from torch's global CPU generator.
    """
    first = levels[0]
    alpha, _ = schedule.signal(first, x)
    eps = schedule.eps_from_x0(alpha * x, denoiser(alpha * x, first).x0, first)
    x_t = schedule.add_noise(x, eps, first)
    for now, after in pairwise(levels):
        x0 = denoiser(x_t, now).x0
        eps = schedule.eps_from_x0(x_t, x0, now)
        x_t = _raise(schedule, x_t, x0, eps, now, after, eta)
    return x_t


def _raise(schedule: Schedule, x_t: Tensor, x0: Tensor, eps: Tensor, now: Tensor, after: Tensor, eta: float) -> Tensor:
    """One step from `now` up to `after`; from a level to itself nothing changes."""
    (alpha, sigma), (alpha_after, sigma_after) = schedule.signal(now, x_t), schedule.signal(after, x_t)
    spread = eta * sigma / sigma_after.clamp(min=1e-12) * (1 - (alpha_after / alpha) ** 2).clamp(min=0).sqrt()
    raised = alpha_after * x0 + (sigma_after**2 - spread**2).clamp(min=0).sqrt() * eps
    if eta:
        raised = raised + spread * torch.randn(x_t.shape).to(x_t.device)
    return torch.where((after > now).reshape(after.shape + (1,) * (x_t.ndim - after.ndim)), raised, x_t)
