"""What all distillation schemes share: noise a render, ask the prior, turn its answers into a gradient.

Papers write gradients as w(t) times a combination of noise estimates. At one x_t, eps = (x_t - alpha x0) / sigma, so a
difference of noise estimates is -alpha / sigma times that of the x0s: eps_hat - eps = alpha / sigma (x - x0_hat), and
eps_cond - eps_null = alpha / sigma (x0_null - x0_cond). Schemes are written in x0, w(t) = w_eps alpha / sigma (`WEIGHTINGS`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.combine import classifier_free, composed, rescale
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Guidance, Scheduled, Step, knots, scheduled_at, surrogate
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


class Distillation(Guidance):
    """A gradient on the render, `WEIGHTINGS`(t) `direction`; all V views of a scene share a level and are judged jointly.

    Args:
        prior: frozen.
        scale: classifier-free guidance, null + scale (cond - null); 1 is none.
        rescale: share of the guided x0's spread that is pulled back to the conditional one's.
        t_min, t_max: range of levels as shares of T; numbers or schedules.
        timesteps: how a level is chosen from the range, one of `TIMESTEPS`.
        weighting: one of `WEIGHTINGS`.
        weight: of the loss.
        negative_prompt: takes the place of the null text in classifier-free guidance; "" is none.
        prompts: told beside the run's prompt.
        prompt_weights: of these; cond becomes cond + sum(w_i (cond_i - null)) (Liu et al. 2022, algorithm 1).
        perpendicular: whether only what is perpendicular to cond - null is added (Perp-Neg, Armandpour et al. 2023).

    Raises:
        UserError: a negative scale, an empty range of levels, an unknown name, lists of unequal lengths.
    """

    name = "distillation"
    """Of the loss."""

    def __init__(
        self,
        prior: Prior,
        scale: Scheduled = 7.5,
        rescale: float = 0.5,
        t_min: Scheduled = 0.02,
        t_max: Scheduled = 0.98,
        timesteps: str = "uniform",
        weighting: str = "x0",
        weight: Scheduled = 1.0,
        negative_prompt: str = "",
        prompts: Sequence[str] = (),
        prompt_weights: Sequence[float] = (),
        perpendicular: bool = False,
    ) -> None:
        super().__init__(prior)
        for key, value, known in (("weighting", weighting, WEIGHTINGS), ("timesteps", timesteps, TIMESTEPS)):
            if value not in known:
                raise UserError(f"guidance.{key}={value!r} is not one of {', '.join(known)}")
        for progress in knots(scale):
            if scheduled_at(scale, progress) < 0:
                raise UserError(
                    f"guidance.scale={scheduled_at(scale, progress):.3g} must not be negative: 0 ignores the prompt, 1 is no "
                    "guidance"
                )
        for progress in knots(t_min, t_max):
            low, high = scheduled_at(t_min, progress), scheduled_at(t_max, progress)
            if not 0 <= low <= high <= 1:
                raise UserError(
                    f"guidance: t_min={low:.3g} and t_max={high:.3g} (after {progress:.0%} of the run) must satisfy "
                    "0 <= t_min <= t_max <= 1"
                )
        if len(prompts) != len(prompt_weights):
            raise UserError(
                f"guidance: {len(prompts)} prompts and {len(prompt_weights)} prompt_weights; give each prompt a weight"
            )
        if not all(isinstance(weight, int | float) for weight in prompt_weights):
            raise UserError(f"guidance.prompt_weights={list(prompt_weights)} must be numbers")
        scheduled_at(weight, 0.0)  # refuses a schedule of other keys now, not in the middle of a run
        self.scale, self.rescale, self.weight = scale, rescale, weight
        self.t_min, self.t_max = t_min, t_max
        self.choose, self.weighting = TIMESTEPS[timesteps], WEIGHTINGS[weighting]
        self.negative_prompt, self.perpendicular = negative_prompt, perpendicular
        self.texts = {"negative": negative_prompt, **{f"prompt_{i}": prompt for i, prompt in enumerate(prompts)}}
        self.composition = {f"prompt_{i}": weight for i, weight in enumerate(prompt_weights)}

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

    def told(self, name: str, condition: Condition) -> Condition:
        """The condition of a name: "cond", "null", or one of `texts`."""
        if name in ("cond", "null"):
            return condition if name == "cond" else condition.without_text()
        assert condition.cameras is not None
        prompts = [self.texts[name]] * condition.cameras.shape[0]
        return condition.with_text(self.prior.condition(prompts, condition.cameras, condition.extra.get("background")))

    def predict(self, x_t: Tensor, t: Tensor, condition: Condition, *names: str) -> dict[str, Tensor]:
        """{name: x0} from one batch; "cond" is what all the prompts say together."""
        asked = list(names)
        if self.composition and "cond" in names:
            asked = list(dict.fromkeys([*names, "null", *self.composition]))
        predictions = self.prior.predict(x_t, t, {name: self.told(name, condition) for name in asked})
        if len(asked) > len(names):
            predictions["cond"] = Prediction(composed(predictions, self.composition, self.perpendicular))
        return {name: predictions[name].x0 for name in names}

    def guided(self, x_t: Tensor, t: Tensor, condition: Condition, scale: float) -> Tensor:
        """x0 under classifier-free guidance, rescaled; one pass through the prior where scale = 1 and there is one prompt."""
        if scale == 1:
            return self.predict(x_t, t, condition, "cond")["cond"]
        base = "negative" if self.negative_prompt else "null"
        x0 = self.predict(x_t, t, condition, base, "cond")
        named = {"null": Prediction(x0[base]), "cond": Prediction(x0["cond"])}
        return rescale(classifier_free(named, scale), x0["cond"], self.rescale)
