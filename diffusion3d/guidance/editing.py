"""Editing a scene: schemes that compare it with the scene it was at the start."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior
from diffusion3d.rendering.render import composite
from diffusion3d.representations.base import Scene


class Editing(Distillation):
    """Keeps the source: the scene that `prepare` gets, seen by the cameras of each step, and the prompt that describes it.

    Args:
        source_prompt: what the source shows; `prompt` says what it is to become.

    Raises:
        UserError: no source prompt; later, a step without a source.
    """

    worded = frozenset({"source"})
    unlit = True

    def __init__(self, prior: Prior, source_prompt: str | None = None, **common: Any) -> None:
        super().__init__(prior, **common)
        if source_prompt is None or not source_prompt.strip():
            raise UserError("guidance.source_prompt must say what the scene shows before it is edited")
        self.texts["source"] = source_prompt
        self.source: Scene | None = None

    def prepare(self, scene: Scene, condition: Condition) -> None:
        self.source = scene

    def look(self, condition: Condition) -> Tensor:
        """The source in the prior's space, seen by the condition's cameras before its background."""
        if self.source is None or condition.cameras is None:
            raise UserError("an editing scheme has no source scene to compare with: add run=DIR, the run to edit")
        return self.prior.encode(composite(self.source.render(condition.cameras), condition.extra["background"]))

    def residuals(self, noised: Noised, step: Step) -> tuple[Tensor, Tensor]:
        """x - x_source, and x0_hat - x0_source where both hold the same noise.

        The source is judged under its own prompt, with as much guidance as the edit.
        """
        x_source = self.look(noised.condition)
        alpha, _ = self.prior.schedule.signal(noised.t, noised.x)
        x_t = noised.x_t + alpha * (x_source - noised.x)
        scale = step.value(self.scale)
        target = self.guided(noised.x_t, noised.t, noised.condition, scale)
        source = self.guided(x_t, noised.t, self.told("source", noised.condition), scale)
        return noised.x - x_source, target - source


class DDS(Editing):
    """Delta denoising score (Hertz et al. 2023): w(t) (eps_hat - eps_hat of the source), one t and one noise."""

    name = "dds"

    def direction(self, noised: Noised, step: Step) -> Tensor:
        moved, answered = self.residuals(noised, step)
        return moved - answered


class PDS(Editing):
    """Posterior distillation sampling: the stochastic latents of scene and source are matched (Koo et al. 2024).

    z = (x_s - mu) / spread with s = t - stride, mu = c0 x0_hat + c1 x_t the mean of DDPM's posterior (Ho et al. 2020, eq. 7).
    Both latents hold the same noise, so z - z_source = (psi (x - x_source) + c0 ((x - x_source) - (x0_hat - x0_source))) /
    spread, psi = alpha_s - c0 - c1 alpha_t. For neighbouring levels psi is 0 exactly, which leaves DDS with another weight;
    what holds the edit to its source comes from mu's coefficients being those of one level at strides above one, as in the
    authors' program.

    Args:
        stride: levels from t down to s.

    Raises:
        UserError: a stride below 1, or one that the schedule has no two levels for.
    """

    name = "pds"

    def __init__(self, prior: Prior, stride: int = 2, **common: Any) -> None:
        super().__init__(prior, **common)
        last = prior.schedule.num_timesteps - 1
        if not 1 <= stride <= last:
            raise UserError(f"guidance.stride={stride} must be in 1 ... {last}")
        self.stride = stride

    def levels(self, step: Step) -> tuple[int, int]:
        low, high = super().levels(step)
        return max(low, self.stride), max(high, self.stride)

    def coefficients(self, noised: Noised) -> tuple[Tensor, Tensor, Tensor]:
        """psi, c0 and spread, which broadcast over x."""
        signal, t = self.prior.schedule.signal, noised.t
        (alpha, sigma), (alpha_s, sigma_s) = signal(t, noised.x), signal(t - self.stride, noised.x)
        kept = (alpha / signal(t - 1, noised.x)[0]) ** 2
        c0 = alpha_s * (1 - kept) / sigma**2
        c1 = kept.sqrt() * sigma_s**2 / sigma**2
        return alpha_s - c0 - c1 * alpha, c0, (1 - kept).sqrt() * sigma_s / sigma

    def direction(self, noised: Noised, step: Step) -> Tensor:
        moved, answered = self.residuals(noised, step)
        psi, c0, spread = self.coefficients(noised)
        return (psi * moved + c0 * (moved - answered)) / spread
