"""Terms that hold a scene to what was observed of it, from the cameras that observed it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step, scheduled_at
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene
from diffusion3d.views import PosedViews

Background = Float[Tensor, "B 3"]


class Measurement(ABC):
    """Compares renders with the views that were observed.

    Args:
        weight: a number or a schedule; at 0 nothing is compared.

    Attributes:
        needs: the field of the views that is compared, None if only the render is looked at.
        shading: of the render; "normal" gives normals, which not every representation has, at half the size.
    """

    needs: str | None = None
    shading: str | None = None

    def __init__(self, weight: Scheduled = 1.0) -> None:
        scheduled_at(weight, 0.0)  # refuses a schedule of other keys now, not in the middle of a run
        self.weight = weight

    @abstractmethod
    def compare(self, render: Render, views: PosedViews, background: Background) -> Tensor:
        """The unweighted scalar."""


class Observation(nn.Module):
    """Views and the terms that hold a scene to them; called with the scene beside the guidance.

    The scene is rendered once a step for all terms, and once more for those that look at normals, which cost fields five times
    as much, at half the views' height and width.

    Args:
        views: one scene, as many as there are; None observes nothing.
        terms: by name; those are left out whose field the views lack, and None.
        normals: whether the scene has normals; without, the terms that look at them are left out.
    """

    def __init__(
        self,
        views: PosedViews | None = None,
        terms: Mapping[str, Measurement | None] | None = None,
        normals: bool = False,
    ) -> None:
        super().__init__()
        self.views = views
        self.terms = {
            name: term
            for name, term in (terms or {}).items()
            if term is not None
            and (term.needs is None or getattr(views, term.needs, None) is not None)
            and (term.shading is None or normals)
        }

    def forward(self, scene: Scene, condition: Condition, step: Step) -> dict[str, Tensor]:
        """{name of a term: weighted scalar}; what the scene leaves transparent shows the condition's background."""
        if self.views is None:
            return {}
        background = condition.extra["background"]
        views, renders = self.views.to(background.device), dict[str | None, Render]()
        coarse = views.cameras.resize((views.cameras.height + 1) // 2, (views.cameras.width + 1) // 2)
        losses = {}
        for name, term in self.terms.items():
            losses[name] = torch.zeros((), device=background.device)
            weight = step.value(term.weight)
            if weight:
                if term.shading not in renders:
                    cameras = coarse if term.shading else views.cameras
                    renders[term.shading] = scene.render(cameras, shading=term.shading)
                losses[name] = weight * term.compare(renders[term.shading], views, background)
        return losses


def weighted_mean(values: Tensor, weights: Float[Tensor, "B V 1 H W"]) -> Tensor:
    """Over pixels and channels; 0 where all weights are."""
    weights = weights.to(values).expand_as(values)
    return (values * weights).sum() / weights.sum().clamp(min=1e-6)


def observed(views: PosedViews, like: Tensor) -> Float[Tensor, "B V 1 H W"]:
    """1 where a pixel was observed, 0 elsewhere."""
    return torch.ones_like(like[:, :, :1]) if views.mask is None else views.mask.to(like)


class Image(Measurement):
    """Mean squared error of the colours under the object's mask (RealFusion, Melas-Kyriazi et al. 2023)."""

    needs = "images"

    def compare(self, render: Render, views: PosedViews, background: Background) -> Tensor:
        error = (composite(render, background) - views.over(background)).square()
        weights = observed(views, error)
        return weighted_mean(error, weights if views.alpha is None else weights * views.alpha)


class Mask(Measurement):
    """Mean squared error of alpha (RealFusion, Melas-Kyriazi et al. 2023)."""

    needs = "alpha"

    def compare(self, render: Render, views: PosedViews, background: Background) -> Tensor:
        assert views.alpha is not None
        return weighted_mean((render.alpha - views.alpha).square(), observed(views, render.alpha))


class Depth(Measurement):
    """(1 - correlation) / 2 of rendered and observed depth, on average over views: 0 for the same depth up to scale and shift,
    1 for the opposite (Magic123, Qian et al. 2024). Where no depth was observed (0) or the render is empty, nothing counts.
    """

    needs = "depth"

    def compare(self, render: Render, views: PosedViews, background: Background) -> Tensor:
        assert views.depth is not None
        seen = observed(views, render.depth) * (views.depth > 0) * (render.depth > 0)
        x, y = (_centred(depth, seen) for depth in (render.depth, views.depth))
        spread = (x.square().sum((-2, -1)) * y.square().sum((-2, -1))).clamp(min=1e-12).sqrt()
        return (1 - (x * y).sum((-2, -1)) / spread).mean() / 2


def _centred(values: Tensor, weights: Tensor) -> Tensor:
    """Their distance from the weighted mean of their view, 0 where the weights are."""
    total = weights.sum((-2, -1), keepdim=True).clamp(min=1)
    return (values - (values * weights).sum((-2, -1), keepdim=True) / total) * weights


class NormalSmoothness(Measurement):
    """Mean squared distance of rendered normals from their own blur, which carries no gradient (RealFusion, Melas-Kyriazi et
    al. 2023).

    Args:
        size: side of the Gaussian blur, pixels, odd; its standard deviation is a third of half of it.

    Raises:
        UserError: an even size, or one below 3.
    """

    shading = "normal"

    def __init__(self, weight: Scheduled = 1.0, size: int = 9) -> None:
        super().__init__(weight)
        if size < 3 or size % 2 == 0:
            raise UserError(f"observation: size={size} of a normal-smoothness term must be odd and at least 3")
        self.size = size

    def compare(self, render: Render, views: PosedViews, background: Background) -> Tensor:
        assert render.normals is not None
        half = self.size // 2
        row = torch.exp(-(torch.arange(-half, half + 1, device=render.alpha.device) * 3 / half).square() / 2)
        row = row / row.sum()
        flat = F.pad(render.normals.flatten(0, 2)[:, None], (half, half, half, half), mode="replicate")
        blurred = F.conv2d(F.conv2d(flat, row.view(1, 1, 1, -1)), row.view(1, 1, -1, 1))
        return (render.normals - blurred.view_as(render.normals).detach()).square().sum(2).mean()
