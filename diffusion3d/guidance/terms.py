"""Regularisers beside the guidance."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.guidance.base import Scheduled, Step, Term
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Scene


def opacity(scene: Scene, render: Render) -> Tensor:
    """mean sqrt(alpha² + 0.01): an empty picture costs least (Poole et al. 2023, appendix A.2)."""
    return (render.alpha.square() + 0.01).sqrt().mean()


def entropy(scene: Scene, render: Render) -> Tensor:
    """Binary entropy of the rendered alpha in nats: half-transparent pixels cost."""
    alpha = render.alpha.clamp(1e-3, 1 - 1e-3)
    return -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log()).mean()


def sparsity(scene: Scene, render: Render) -> Tensor:
    """Mean opacity of the scene's elements: what no view needs fades."""
    return scene.opacities.mean()  # type: ignore[attr-defined]  # terms that need elements say so in their config


def size(scene: Scene, render: Render, limit: float = 0.1) -> Tensor:
    """Mean squared excess of the elements' standard deviations over `limit` world units."""
    return (scene.scales - limit).clamp(min=0).square().sum(-1).mean()  # type: ignore[attr-defined]


class Regulariser(Term):
    """A weighted function of the scene and its render."""

    def __init__(self, function: Callable[[Scene, Render], Tensor], weight: Scheduled = 1.0) -> None:
        super().__init__()
        self.function = function
        self.weight = weight

    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        weight = step.value(self.weight)
        name = getattr(self.function, "__name__", "term")
        if weight == 0:
            return {name: torch.zeros((), device=render.alpha.device)}
        return {name: weight * self.function(scene, render)}
