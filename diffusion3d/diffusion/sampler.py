"""Samplers: walk a sequence of noise levels. They know nothing of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.condition import Prediction
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.errors import UserError

Denoiser = Callable[[Tensor, Int[Tensor, "*S"]], Prediction]
"""(x_t, t) -> Prediction; guidance and conditions are bound inside."""


class Hooks:
    """Called at every step; subclass and override what is needed."""

    def on_x0(self, prediction: Prediction, x_t: Tensor, t: Tensor) -> Prediction:
        """Change the estimate of the clean item (clamping, guidance by an observation, self-conditioning)."""
        return prediction

    def on_x(self, x: Tensor, t: Tensor) -> Tensor:
        """Change the next state (pinning known parts)."""
        return x


class Clamp(Hooks):
    """Keep x0 within a range."""

    def __init__(self, low: float = -1.0, high: float = 1.0) -> None:
        self.low, self.high = low, high

    def on_x0(self, prediction: Prediction, x_t: Tensor, t: Tensor) -> Prediction:
        return Prediction(prediction.x0.clamp(self.low, self.high), prediction.scene)


class Sampler:
    """DDIM (Song et al. 2021, eq. 12 and 16).

    Args:
        steps: levels visited, spread evenly from the highest down.
        eta: 0 is deterministic DDIM, 1 the ancestral sampler of DDPM.
    """

    def __init__(self, steps: int = 50, eta: float = 0.0) -> None:
        if steps < 1:
            raise UserError(f"sampler.steps={steps} must be at least 1")
        self.steps = steps
        self.eta = eta

    def timesteps(self, schedule: Schedule, start: int | None = None) -> list[int]:
        """Levels from `start` (the highest by default) down to clean, which is -1."""
        start = schedule.num_timesteps - 1 if start is None else start
        steps = min(self.steps, start + 1)
        return [round(float(t)) for t in torch.linspace(start, 0, steps)] + [-1]

    def sample(
        self,
        denoiser: Denoiser,
        schedule: Schedule,
        x: Tensor,
        timesteps: Sequence[int],
        hooks: Sequence[Hooks] = (),
        clean: Tensor | None = None,
        grad: bool = False,
        generator: torch.Generator | None = None,
    ) -> Prediction:
        """Walk `timesteps` from x and return the last estimate of the clean item.

        Args:
            denoiser: the prior with its conditions bound.
            x: the item at level timesteps[0], leading dimensions [B] or [B, V].
            timesteps: levels in any order, -1 for clean; a later level may be higher (noise is added again).
            clean: [B, V] bool, items that stay at t = -1 throughout and are never stepped.
            grad: keep the autograd graph.
            generator: for the noise of eta > 0.
        """
        with torch.set_grad_enabled(grad):
            prediction = Prediction(x)
            for now, after in pairwise(timesteps):
                t, s = self._level(x, now, clean), self._level(x, after, clean)
                prediction = denoiser(x, t)
                for hook in hooks:
                    prediction = hook.on_x0(prediction, x, t)
                x = self.step(schedule, x, prediction.x0, t, s, generator)
                for hook in hooks:
                    x = hook.on_x(x, s)
            return Prediction(x, prediction.scene)

    def step(
        self, schedule: Schedule, x: Tensor, x0: Tensor, t: Tensor, s: Tensor, generator: torch.Generator | None
    ) -> Tensor:
        """One step from level t to level s; to a higher one, fresh noise is added. From -1 to -1 nothing changes."""

        def noise() -> Tensor:
            return torch.randn(x.shape, generator=generator, dtype=x.dtype, device="cpu").to(x.device)

        alpha_s, sigma_s = schedule.signal(s, x)
        alpha_t, sigma_t = schedule.signal(t, x)
        eps = schedule.eps_from_x0(x, x0, t)
        ratio = (1 - (alpha_t / alpha_s) ** 2).clamp(min=0).sqrt()
        spread = self.eta * ratio * sigma_s / sigma_t.clamp(min=1e-12)
        stepped = alpha_s * x0 + (sigma_s**2 - spread**2).clamp(min=0).sqrt() * eps
        if self.eta > 0:
            stepped = stepped + spread * noise()
        shape = t.shape + (1,) * (x.ndim - t.ndim)
        back, untouched = (s > t).reshape(shape), ((t < 0) & (s < 0)).reshape(shape)
        if bool(back.any()):
            shrink = alpha_s / alpha_t
            noised = shrink * x + (sigma_s**2 - (shrink * sigma_t) ** 2).clamp(min=0).sqrt() * noise()
            stepped = torch.where(back, noised, stepped)
        return torch.where(untouched, x, stepped)

    @staticmethod
    def _level(x: Tensor, level: int, clean: Tensor | None) -> Tensor:
        if clean is None:
            return torch.full(x.shape[:1], level, device=x.device)
        return torch.where(clean, -1, torch.full(clean.shape, level, device=x.device))
