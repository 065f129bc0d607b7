"""Interval score matching (LucidDreamer, Liang et al. 2024)."""

from __future__ import annotations

import math
from typing import Any

from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.inversion import invert, rungs
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step, knots, scheduled_at
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior


class ISM(Distillation):
    """w(t) (eps_hat(x_t) - eps_null(x_s)), x_s and x_t on the DDIM inversion of x with the null text; s lies below t.

    For a prior N(m_null, v²) that the text moves to N(m_cond, v²) it comes to rest, at one t and with many rungs, at m_null +
    scale (m_cond - m_null) r / (r - r_s) sqrt(v² + r_s²) / v, r = sigma / alpha: beyond the guided mean, and the farther the
    closer s is to t, where ISM becomes CSD.

    Args:
        interval: t - s as a share of T, a number or a schedule.
        jump: largest step of the inversion up to x_s, a share of T.

    Raises:
        UserError: an interval or a jump that is not positive.
    """

    name = "ism"

    def __init__(self, prior: Prior, interval: Scheduled = 0.06, jump: float = 0.2, **common: Any) -> None:
        super().__init__(prior, **common)
        smallest = min(scheduled_at(interval, progress) for progress in knots(interval))
        if smallest <= 0 or jump <= 0:
            raise UserError(f"guidance: interval={smallest:.3g} and jump={jump:.3g} must be positive")
        self.interval, self.jump = interval, jump

    def below(self, t: Int[Tensor, " B"], step: Step) -> Int[Tensor, " B"]:
        """s; the lowest level where t is lower than the interval."""
        return (t - max(1, round(step.value(self.interval) * self.prior.schedule.num_timesteps))).clamp(min=0)

    def noise(self, x: Tensor, t: Int[Tensor, " B"], condition: Condition, step: Step) -> Tensor:
        """x_s."""
        s = self.below(t, step)
        jumps = math.ceil((int(s.max()) + 1) / (self.jump * self.prior.schedule.num_timesteps))

        def null(x: Tensor, t: Tensor) -> Prediction:
            return self.prior.denoise(x, t, condition.without_text())

        return invert(null, self.prior.schedule, x, rungs(s, jumps))

    def direction(self, noised: Noised, step: Step) -> Tensor:
        schedule, x_s, t, condition = self.prior.schedule, noised.x_t, noised.t, noised.condition
        s = self.below(t, step)
        x0 = self.predict(x_s, s, condition, "null")["null"]
        eps = schedule.eps_from_x0(x_s, x0, s)
        x_t = schedule.add_noise(x0, eps, t)
        return x0 - self.guided(x_t, t, condition, step.value(self.scale))
