"""How a step chooses its noise level: functions (schedule, low, high, progress, scenes) -> one level per scene [B], on the CPU.

`low` and `high` are the levels between which this step may choose, `progress` is the share of the run that is done.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.schedule import Schedule

PLATEAU, TAILS = (0.5, 0.8), (0.1, 0.3)
"""Where DreamTime's prior weight is 1, and the standard deviations of what falls off below and above; shares of T."""


def uniform(schedule: Schedule, low: int, high: int, progress: float, scenes: int) -> Int[Tensor, " B"]:
    """Uniform in low … high, drawn from torch's global CPU generator."""
    return torch.randint(low, high + 1, (scenes,))


def sqrt_anneal(schedule: Schedule, low: int, high: int, progress: float, scenes: int) -> Int[Tensor, " B"]:
    """high - (high - low) sqrt(progress), without chance (HiFA, Zhu et al. 2024)."""
    return torch.full((scenes,), round(high - (high - low) * progress**0.5))


def dreamtime(schedule: Schedule, low: int, high: int, progress: float, scenes: int) -> Int[Tensor, " B"]:
    """The level above which a share `progress` of W lies: never increasing, without chance (DreamTime, Huang et al. 2024).

    W(t) = sigma / alpha W_p(t), and W_p is 1 on a plateau with Gaussian tails on both sides.
    """
    t = torch.arange(low, high + 1)
    share = t / schedule.num_timesteps
    below, above = (PLATEAU[0] - share).clamp(min=0) / TAILS[0], (share - PLATEAU[1]).clamp(min=0) / TAILS[1]
    ratio = schedule.snr(t).double().rsqrt().nan_to_num(posinf=0)  # a last level without signal is passed at once
    weight = ratio * torch.exp(-(below**2 + above**2) / 2)
    passed = weight.flip(0).cumsum(0) / weight.sum()
    return torch.full((scenes,), int(t.flip(0)[(passed - progress).abs().argmin()]))


TIMESTEPS: dict[str, Callable[[Schedule, int, int, float, int], Tensor]] = {
    "uniform": uniform,
    "sqrt_anneal": sqrt_anneal,
    "dreamtime": dreamtime,
}
