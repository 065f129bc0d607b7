"""Regularisers beside the guidance."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.guidance.base import Scheduled, Step, Term, scheduled_at
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Scene


class Regulariser(Term):
    """A weighted function of the scene and its render.

    Args:
        weight: a number or a schedule; at 0 the function is not evaluated.
    """

    def __init__(self, weight: Scheduled = 1.0) -> None:
        super().__init__()
        scheduled_at(weight, 0.0)  # refuses a schedule of other keys now, not in the middle of a run
        self.weight = weight

    @abstractmethod
    def measure(self, scene: Any, render: Render) -> Tensor:
        """The unweighted scalar."""

    def forward(self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step) -> Tensor:
        weight = step.value(self.weight)
        return weight * self.measure(scene, render) if weight else torch.zeros((), device=render.alpha.device)


class Opacity(Regulariser):
    """mean sqrt(alpha² + 0.01): an empty picture costs least (Poole et al. 2023, appendix A.2)."""

    def measure(self, scene: Any, render: Render) -> Tensor:
        return (render.alpha.square() + 0.01).sqrt().mean()


class Entropy(Regulariser):
    """Mean binary entropy of the rendered alpha, nats: half-transparent pixels cost."""

    def measure(self, scene: Any, render: Render) -> Tensor:
        alpha = render.alpha.clamp(1e-3, 1 - 1e-3)
        return -(alpha * alpha.log() + (1 - alpha) * (1 - alpha).log()).mean()


class RayEntropy(Regulariser):
    """Mean binary entropy of the weights of a ray's samples, nats (stable-dreamfusion's): density gathers at surfaces."""

    def measure(self, scene: Any, render: Render) -> Tensor:
        return render.extras["entropy"].mean()


class DepthVariance(Regulariser):
    """Mean variance of depth along rays of more than half opacity, world units squared (HiFA, Zhu et al. 2024): thin surfaces.

    Splats do not tell it while they are optimised.
    """

    def measure(self, scene: Any, render: Render) -> Tensor:
        opaque = (render.alpha > 0.5).to(render.alpha)
        assert render.depth_variance is not None, "only fields tell the variance of depth in training"
        return (opaque * render.depth_variance).sum() / opaque.sum().clamp(min=1)


class Orientation(Regulariser):
    """Mean sum(w max(0, n . d)²): visible normals that face away from the camera cost (Verbin et al. 2022, equation 11).

    Only lit renders have normals (task.shading); on the others it is 0.
    """

    @property
    def lit(self) -> bool:
        return self.weight != 0

    def measure(self, scene: Any, render: Render) -> Tensor:
        facing_away: Tensor | None = render.extras.get("facing_away")
        return render.alpha.new_zeros(()) if facing_away is None else facing_away.mean()


class Sparsity(Regulariser):
    """Mean opacity of the scene's elements: what no view needs fades."""

    def measure(self, scene: Any, render: Render) -> Tensor:
        return scene.opacities.mean()


class Size(Regulariser):
    """Mean squared excess of the elements' standard deviations over `limit`, summed over the axes.

    Args:
        limit: world units.
    """

    def __init__(self, weight: Scheduled = 1.0, limit: float = 0.1) -> None:
        super().__init__(weight)
        self.limit = limit

    def measure(self, scene: Any, render: Render) -> Tensor:
        return (scene.scales - self.limit).clamp(min=0).square().sum(-1).mean()
