"""Score Jacobian chaining (Wang et al. 2023, perturb-and-average scoring, eq. 16 where it is centred)."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffusion3d.guidance.base import Step
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior


class SJC(Distillation):
    """-(D - x) / s, or -(D - z) / s with z = x + s n; s = sigma / alpha, D = x0_hat at x_t = alpha z. In noise estimates:
    eps_hat - n, or eps_hat.

    Both have one expectation over the noise n. The first has less variance where the denoiser takes most of the noise away, the
    second where it keeps most of it.

    Args:
        centred: the first form.
    """

    name = "sjc"

    def __init__(self, prior: Prior, centred: bool = True, **common: Any) -> None:
        super().__init__(prior, **common)
        self.centred = centred

    def direction(self, noised: Noised, step: Step) -> Tensor:
        x0 = self.guided(noised.x_t, noised.t, noised.condition, step.value(self.scale))
        alpha, _ = self.prior.schedule.signal(noised.t, noised.x)
        return (noised.x if self.centred else noised.x_t / alpha) - x0
