"""Terms that hold a scene to what was observed of it, and one that smooths its normals."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step, Term, scheduled_at
from diffusion3d.guidance.terms import Regulariser
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene
from diffusion3d.views import PosedViews


class Measurement(Term):
    """Compares observed views with the scene, rendered once more from their cameras; where `mask` is False nothing counts.

    Args:
        views: one scene, or as many as there are.
        weight: a number or a schedule; at 0 the scene is not rendered.

    Attributes:
        needs: the field of the views that is compared.

    Raises:
        UserError: the views lack that field.
    """

    needs: str

    def __init__(self, views: PosedViews, weight: Scheduled = 1.0) -> None:
        super().__init__()
        if getattr(views, self.needs) is None:
            raise UserError(f"terms: a {type(self).__name__.lower()} term needs views with {self.needs}")
        scheduled_at(weight, 0.0)  # refuses a schedule of other keys now, not in the middle of a run
        self.views, self.weight = views, weight

    @abstractmethod
    def compare(self, render: Render, views: PosedViews, condition: Condition) -> Tensor:
        """The unweighted scalar."""

    def forward(self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step) -> Tensor:
        weight = step.value(self.weight)
        if not weight:
            return torch.zeros((), device=render.alpha.device)
        views = self.views.to(render.alpha.device)
        return weight * self.compare(scene.render(views.cameras), views, condition)


def mean_where(values: Tensor, where: Bool[Tensor, "B V 1 H W"] | None) -> Tensor:
    """The mean over pixels that count, 0 if there are none."""
    if where is None:
        return values.mean()
    kept = where.to(values).expand_as(values)
    return (values * kept).sum() / kept.sum().clamp(min=1)


class Image(Measurement):
    """Mean squared error of the image, both before the step's background where the views have alpha."""

    needs = "images"

    def compare(self, render: Render, views: PosedViews, condition: Condition) -> Tensor:
        background = condition.extra["background"]
        return mean_where((composite(render, background) - views.over(background)).square(), views.mask)


class Mask(Measurement):
    """Mean squared error of alpha."""

    needs = "alpha"

    def compare(self, render: Render, views: PosedViews, condition: Condition) -> Tensor:
        assert views.alpha is not None
        return mean_where((render.alpha - views.alpha).square(), views.mask)


class Depth(Measurement):
    """Mean absolute error of depth where it was observed, world units.

    Args:
        relative: compare up to the scale and shift of each view that fit best (Ranftl et al. 2020, equation 4), for depth that
            a network guessed.
    """

    needs = "depth"

    def __init__(self, views: PosedViews, weight: Scheduled = 1.0, relative: bool = False) -> None:
        super().__init__(views, weight)
        self.relative = relative

    def compare(self, render: Render, views: PosedViews, condition: Condition) -> Tensor:
        assert views.depth is not None
        seen = views.depth > 0 if views.mask is None else (views.depth > 0) & views.mask
        depth = fitted(views.depth, render.depth.detach(), seen) if self.relative else views.depth
        return mean_where((render.depth - depth).abs(), seen)


def fitted(values: Tensor, target: Tensor, where: Bool[Tensor, "B V 1 H W"]) -> Tensor:
    """a values + b, least squares to the target within each view."""
    dims, kept = (-2, -1), where.to(values)
    count = kept.sum(dims, keepdim=True).clamp(min=1)
    mean, goal = ((v * kept).sum(dims, keepdim=True) / count for v in (values, target))
    spread = ((values - mean).square() * kept).sum(dims, keepdim=True).clamp(min=1e-9)
    scale = ((values - mean) * (target - goal) * kept).sum(dims, keepdim=True) / spread
    return scale * (values - mean) + goal


class NormalSmoothness(Regulariser):
    """Mean squared distance of rendered normals from their own blur, which carries no gradient (Melas-Kyriazi et al. 2023).

    Only renders with normals have any; on the others it is 0.

    Args:
        size: side of the Gaussian blur, pixels, odd; its standard deviation is a third of half of it.

    Raises:
        UserError: an even size, or one below 3.
    """

    def __init__(self, weight: Scheduled = 1.0, size: int = 9) -> None:
        super().__init__(weight)
        if size < 3 or size % 2 == 0:
            raise UserError(f"terms: size={size} of a normal-smoothness term must be odd and at least 3")
        self.size = size

    def measure(self, scene: Any, render: Render) -> Tensor:
        if render.normals is None:
            return render.alpha.new_zeros(())
        half = self.size // 2
        row = torch.exp(-(torch.arange(-half, half + 1, device=render.alpha.device) * 3 / half).square() / 2)
        flat = F.pad(render.normals.flatten(0, 2)[:, None], (half, half, half, half), mode="replicate")
        blurred = F.conv2d(F.conv2d(flat, (row / row.sum()).view(1, 1, 1, -1)), (row / row.sum()).view(1, 1, -1, 1))
        return (render.normals - blurred.view_as(render.normals).detach()).square().sum(2).mean()
