"""What all distillation schemes share: noise a render, ask the prior, turn its answers into a gradient.

Papers write gradients as w(t) times a combination of noise estimates. At one x_t, eps = (x_t - alpha x0) / sigma, so a
difference of noise estimates is -alpha / sigma times that of the x0s: eps_hat - eps = alpha / sigma (x - x0_hat), and
eps_cond - eps_null = alpha / sigma (x0_null - x0_cond). Schemes are written in x0, w(t) = w_eps alpha / sigma (`WEIGHTINGS`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step, knots, scheduled_at, surrogate
from diffusion3d.guidance.prompted import Prompted
from diffusion3d.guidance.timesteps import TIMESTEPS
from diffusion3d.priors.base import Prior
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene

WEIGHTINGS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x0": lambda alpha, sigma: torch.ones_like(alpha),
    "sigma_squared": lambda alpha, sigma: alpha * sigma,
    "one": lambda alpha, sigma: alpha / sigma,
    "fantasia3d": lambda alpha, sigma: alpha**2 * sigma,
}
"""The factor on x - x0_hat. On eps_hat - eps these are sigma / alpha, sigma², 1 and alpha sigma²."""


@dataclass(frozen=True)
class Noised:
    """Renders on their way to the prior.

    Attributes:
        x: the renders in the prior's space, [B, V, …], without gradient.
        x_t: noised to level t.
        t: one level per scene, [B].
        condition: what the prior is told.
    """

    x: Tensor
    x_t: Tensor
    t: Int[Tensor, " B"]
    condition: Condition


class Distillation(Prompted):
    """A gradient on the render, `WEIGHTINGS`(t) `direction`; all V views of a scene share a level and are judged jointly.

    Args:
        prior: frozen.
        t_min, t_max: range of levels as shares of T; numbers or schedules.
        timesteps: how a level is chosen from the range, one of `TIMESTEPS`.
        weighting: one of `WEIGHTINGS`.
        weight: of the loss.
        asking: of `Prompted`.

    Raises:
        UserError: an empty range of levels, an unknown name.
    """

    name = "distillation"
    """Of the loss."""

    def __init__(
        self,
        prior: Prior,
        t_min: Scheduled = 0.02,
        t_max: Scheduled = 0.98,
        timesteps: str = "uniform",
        weighting: str = "x0",
        weight: Scheduled = 1.0,
        **asking: Any,
    ) -> None:
        super().__init__(prior, **asking)
        for key, value, known in (("weighting", weighting, WEIGHTINGS), ("timesteps", timesteps, TIMESTEPS)):
            if value not in known:
                raise UserError(f"guidance.{key}={value!r} is not one of {', '.join(known)}")
        for progress in knots(t_min, t_max):
            low, high = scheduled_at(t_min, progress), scheduled_at(t_max, progress)
            if not 0 <= low <= high <= 1:
                raise UserError(
                    f"guidance: t_min={low:.3g} and t_max={high:.3g} (after {progress:.0%} of the run) must satisfy "
                    "0 <= t_min <= t_max <= 1"
                )
        scheduled_at(weight, 0.0)  # refuses a schedule of other keys now, not in the middle of a run
        self.t_min, self.t_max, self.weight = t_min, t_max, weight
        self.choose, self.weighting = TIMESTEPS[timesteps], WEIGHTINGS[weighting]

    @abstractmethod
    def direction(self, noised: Noised, step: Step) -> Tensor:
        """Where the renders go against, in the prior's space and in x0: x - x0_hat for SDS. Called without gradient."""

    def noise(self, x: Tensor, t: Int[Tensor, " B"], condition: Condition, step: Step) -> Tensor:
        """x_t: random noise from torch's global CPU generator, unless a scheme has another way."""
        return self.prior.schedule.add_noise(x, torch.randn(x.shape).to(x.device), t)

    def levels(self, step: Step) -> tuple[int, int]:
        """The lowest and the highest level of a step."""
        last = self.prior.schedule.num_timesteps - 1
        return round(step.value(self.t_min) * last), round(step.value(self.t_max) * last)

    def noised(self, x: Tensor, condition: Condition, step: Step) -> Noised:
        """Choose a level, then noise."""
        t = self.choose(self.prior.schedule, *self.levels(step), step.progress, x.shape[0]).to(x.device)
        return Noised(x.detach(), self.noise(x, t, condition, step), t, condition)

    def factor(self, noised: Noised) -> Tensor:
        """w(t), of the shape of x but for ones."""
        return self.weighting(*self.prior.schedule.signal(noised.t, noised.x))

    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        x = self.prior.encode(composite(render, condition.extra["background"]))
        with torch.no_grad():
            noised = self.noised(x, condition, step)
            grad = self.factor(noised) * self.direction(noised, step)
        return {self.name: step.value(self.weight) * surrogate(x, grad)}
