"""Score distillation via inversion (Lukoianov et al. 2024, eq. 10)."""

from __future__ import annotations

from typing import Any

from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.inversion import invert, rungs
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.sds import SDS
from diffusion3d.priors.base import Prior


class SDI(SDS):
    """SDS whose noise is the render's own, by DDIM inversion: x - x0_hat(x_t).

    The paper takes fewer steps of inversion to low levels, and denoises a little below the level that it inverted to; here
    their number is fixed and both levels are one.

    For a prior N(m, v²) the exact inversion with a prior N(m', v²) makes m + a (m - m') its fixed point at one t, a = alpha v /
    sqrt(alpha² v² + sigma²): the mean m where both guidance scales are equal, beyond it where the inversion's is smaller.

    Args:
        inversion_scale: classifier-free guidance of the inversion; negative in the paper.
        inversion_steps: rungs from clean to x_t, each one pass of the prior (two items where the scale is not 1).
        eta: share of the inversion's noise that is drawn anew.

    Raises:
        UserError: no steps, or eta outside 0 … 1.
    """

    name = "sdi"

    def __init__(
        self, prior: Prior, inversion_scale: float = -7.5, inversion_steps: int = 10, eta: float = 0.3, **common: Any
    ) -> None:
        super().__init__(prior, **common)
        if inversion_steps < 1 or not 0 <= eta <= 1:
            raise UserError(f"guidance: inversion_steps={inversion_steps} must be at least 1, eta={eta:.3g} in 0 ... 1")
        self.inversion_scale, self.inversion_steps, self.eta = inversion_scale, inversion_steps, eta

    def noise(self, x: Tensor, t: Int[Tensor, " B"], condition: Condition, step: Step) -> Tensor:
        def denoiser(x: Tensor, t: Tensor) -> Prediction:
            return Prediction(self.guided(x, t, condition, self.inversion_scale))

        return invert(denoiser, self.prior.schedule, x, rungs(t, self.inversion_steps), self.eta)
