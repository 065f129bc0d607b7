"""Classifier score distillation (Yu et al. 2024, eq. 7, and 10 with a negative prompt)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step, knots, scheduled_at
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior


class CSD(Distillation):
    """w(t) scale (eps_cond - eps_null), and with a negative prompt w(t) scale (eps_cond - (1 - c) eps_null - c eps_negative).

    It is what classifier-free guidance adds to SDS: SDS(s) = CSD(s) + (eps_null - eps). For two Gaussians of equal variance it
    never comes to rest, so a representation has to bound it.

    Args:
        negative: c, the share of the null text's part that the negative prompt takes.

    Raises:
        UserError: c without a negative prompt, or outside 0 … 1.
    """

    name = "csd"

    def __init__(self, prior: Prior, negative: Scheduled = 0.0, **common: Any) -> None:
        super().__init__(prior, **common)
        shares = [scheduled_at(negative, progress) for progress in knots(negative)]
        if not 0 <= min(shares) <= max(shares) <= 1:
            raise UserError(f"guidance.negative={min(shares):.3g} ... {max(shares):.3g} must lie in 0 ... 1")
        if max(shares) > 0 and not self.negative_prompt:
            raise UserError("guidance.negative needs a guidance.negative_prompt")
        self.negative = negative

    def direction(self, noised: Noised, step: Step) -> Tensor:
        share = step.value(self.negative)
        names = ("null", "cond", "negative") if share else ("null", "cond")
        x0 = self.predict(noised.x_t, noised.t, noised.condition, *names)
        away = x0["null"] + share * (x0["negative"] - x0["null"]) if share else x0["null"]
        return step.value(self.scale) * (away - x0["cond"])
