"""Variational score distillation (ProlificDreamer, Wang et al. 2023, eq. 9)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from jaxtyping import Int
from torch import Tensor

from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.distillation import Distillation, Noised
from diffusion3d.priors.base import Prior


class Learner(Protocol):
    """A module that learns to denoise the scene's own renders."""

    def denoise(self, x_t: Tensor, t: Int[Tensor, " B"], condition: Condition) -> Prediction:
        """As the prior's."""

    def learn(self, x: Tensor, condition: Condition) -> None:
        """Take in renders x, given in the prior's space and without gradient."""


class VSD(Distillation):
    """w(t) (eps_hat - eps_phi), where phi denoises the scene's own renders, unguided, told what the prior is told: the same
    text and, where the prior sees cameras, the same cameras. With other priors phi knows of a view what its wording says.

    Where phi is the prior itself there is no drift at scale = 1. phi learns in `update`, after the scene's step, from the
    renders of that step.

    Args:
        learner: makes phi from the prior; `LoRA` is one.
    """

    name = "vsd"

    def __init__(self, prior: Prior, learner: Callable[[Prior], Learner], **common: Any) -> None:
        super().__init__(prior, **common)
        self.learner = learner(self.prior)
        self._seen: tuple[Tensor, Condition] | None = None

    def direction(self, noised: Noised, step: Step) -> Tensor:
        x_t, t, condition = noised.x_t, noised.t, noised.condition
        self._seen = noised.x, condition
        return self.learner.denoise(x_t, t, condition).x0 - self.guided(x_t, t, condition, step.value(self.scale))

    def update(self, step: Step) -> None:
        if self._seen is not None:
            self.learner.learn(*self._seen)
