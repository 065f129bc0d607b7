"""Score distillation sampling (Poole et al. 2023, eq. 3)."""

from __future__ import annotations

from torch import Tensor

from diffusion3d.guidance.base import Step
from diffusion3d.guidance.distillation import Distillation, Noised


class SDS(Distillation):
    """w(t) (eps_hat - eps) = w(t) alpha / sigma (x - x0_hat).

    Weighting "sigma_squared" is DreamFusion's, "x0" the x0 form of MVDream (Shi et al. 2024, section 3.2), x - x0_hat.
    """

    name = "sds"

    def direction(self, noised: Noised, step: Step) -> Tensor:
        return noised.x - self.guided(noised.x_t, noised.t, noised.condition, step.value(self.scale))
