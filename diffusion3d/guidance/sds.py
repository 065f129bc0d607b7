"""Score distillation sampling (Poole et al. 2023, eq. 3)."""

from __future__ import annotations

import torch
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Guidance, Scheduled, Step, knots, scheduled_at, surrogate, uniform_level
from diffusion3d.priors.base import Prior
from diffusion3d.priors.draw import guided
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene

WEIGHTS = ("sigma_squared", "x0")


class SDS(Guidance):
    """grad = w(t) (eps_hat - eps); all V views of a scene share a level and are judged jointly.

    eps_hat - eps = alpha / sigma (x - x0_hat), so w = sigma² gives alpha sigma (x - x0_hat), and w = sigma / alpha the x0 form
    of MVDream (Shi et al. 2024, eq. 4), x - x0_hat.

    Args:
        prior: frozen.
        scale: classifier-free guidance; 1 is none.
        rescale: share of the CFG rescale.
        t_min, t_max: range of levels as shares of T; numbers or schedules.
        weighting: "sigma_squared" or "x0".
        weight: of the loss.
    """

    def __init__(
        self,
        prior: Prior,
        scale: Scheduled = 7.5,
        rescale: float = 0.5,
        t_min: Scheduled = 0.02,
        t_max: Scheduled = 0.98,
        weighting: str = "x0",
        weight: Scheduled = 1.0,
    ) -> None:
        super().__init__(prior)
        if weighting not in WEIGHTS:
            raise UserError(f"guidance.weighting={weighting!r} is not one of {', '.join(WEIGHTS)}")
        self.scale, self.rescale, self.weighting, self.weight = scale, rescale, weighting, weight
        self.t_min, self.t_max = t_min, t_max
        for progress in knots(t_min, t_max):
            low, high = scheduled_at(t_min, progress), scheduled_at(t_max, progress)
            if not 0 <= low <= high <= 1:
                raise UserError(
                    f"guidance: t_min={low:.3g} and t_max={high:.3g} (after {progress:.0%} of the run) must satisfy "
                    "0 <= t_min <= t_max <= 1"
                )

    def levels(self, step: Step) -> tuple[int, int]:
        low, high = step.value(self.t_min), step.value(self.t_max)
        last = self.prior.schedule.num_timesteps - 1
        return round(low * last), round(high * last)

    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        x = self.prior.encode(composite(render, condition.extra["background"]))
        with torch.no_grad():
            t = uniform_level(*self.levels(step), x.shape[0], x.device)
            noise = torch.randn(x.shape).to(x.device)
            x_t = self.prior.schedule.add_noise(x, noise, t)
            x0 = guided(self.prior, x_t, t, condition, step.value(self.scale), self.rescale)
            grad = x - x0
            if self.weighting == "sigma_squared":
                alpha, sigma = self.prior.schedule.signal(t, x)
                grad = alpha * sigma * grad
        return {"sds": step.value(self.weight) * surrogate(x, grad)}
