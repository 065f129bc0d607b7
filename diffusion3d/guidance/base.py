"""The contract of guidance schemes and of the terms beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Scene

Scheduled = float | Mapping[str, float]
"""A number, or {from, to, start, end}: linear from `from` at `start` to `to` at `end`, which are shares of the run."""


@dataclass(frozen=True)
class Step:
    """Where a run stands: `index` of `total` steps."""

    index: int
    total: int

    @property
    def progress(self) -> float:
        return self.index / max(1, self.total)

    def value(self, scheduled: Scheduled) -> float:
        """A scheduled number at this step.

        Raises:
            ValueError: a schedule with other keys than from, to, start and end.
        """
        if not isinstance(scheduled, Mapping):
            return float(scheduled)
        odd = set(scheduled) - {"from", "to", "start", "end"}
        if odd or not {"from", "to"} <= set(scheduled):
            raise ValueError(f"a schedule is {{from, to, start, end}}, got {dict(scheduled)}")
        start, end = scheduled.get("start", 0.0), scheduled.get("end", 1.0)
        share = min(1.0, max(0.0, (self.progress - start) / max(1e-9, end - start)))
        return scheduled["from"] + share * (scheduled["to"] - scheduled["from"])


class Term(nn.Module, ABC):
    """One or more named losses on a render. Guidance schemes and regularisers share this face."""

    @abstractmethod
    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        """{name: scalar}; their sum is minimised."""


class Guidance(Term):
    """A scheme that makes a scene agree with a prior."""

    def prepare(self, scene: Scene, condition: Condition) -> None:
        """Called once before the first step."""

    def update(self, step: Step) -> None:
        """Called after the backward pass (a learner inside the scheme takes its own step here)."""


def surrogate(x: Tensor, grad: Tensor) -> Tensor:
    """A scalar whose gradient with respect to x is grad / (B V): 0.5 sum((x - target)²) / (B V), target = x - grad."""
    target = (x - grad).detach()
    return 0.5 * (x - target).square().sum() / (x.shape[0] * x.shape[1])


def uniform_level(low: int, high: int, scenes: int, device: torch.device) -> Tensor:
    """One level per scene, uniform in low … high, drawn from torch's global CPU generator."""
    return torch.randint(low, high + 1, (scenes,)).to(device)
