"""Noise-free score distillation (Katzir et al. 2024, eq. 6 and 7)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior


class NFSD(Distillation):
    """w(t) (delta_D + scale delta_C): delta_C = eps_cond - eps_null, and delta_D, which the noise is no part of, is eps_null at
    low levels and eps_null - eps_negative above.

    Args:
        low: share of T below which delta_D is eps_null.

    Raises:
        UserError: no negative prompt, or a share outside 0 … 1.
    """

    name = "nfsd"

    def __init__(self, prior: Prior, low: float = 0.2, **common: Any) -> None:
        super().__init__(prior, **common)
        if not self.negative_prompt:
            raise UserError("guidance.negative_prompt must say what a bad picture is: this scheme moves away from it")
        if not 0 <= low <= 1:
            raise UserError(f"guidance.low={low:.3g} must be a share of T in 0 ... 1")
        self.low = low

    def direction(self, noised: Noised, step: Step) -> Tensor:
        x_t, t = noised.x_t, noised.t
        x0 = self.predict(x_t, t, noised.condition, "null", "cond", "negative")
        alpha, _ = self.prior.schedule.signal(t, x_t)
        low = (t < self.low * self.prior.schedule.num_timesteps).reshape(alpha.shape)
        domain = torch.where(low, x_t / alpha, x0["negative"]) - x0["null"]
        return domain + step.value(self.scale) * (x0["null"] - x0["cond"])
