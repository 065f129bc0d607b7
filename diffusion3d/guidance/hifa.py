"""HiFA's image-space loss (Zhu et al. 2024)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.guidance.base import Scheduled, Step, surrogate
from diffusion3d.guidance.sds import SDS
from diffusion3d.priors.base import Prior
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene


class HiFA(SDS):
    """w(t) (x - x0_hat) in the prior's space, and image_weight w(t) (image - decode(x0_hat)) in images.

    The paper's third part, the variance of depth along a ray, is a term of its own for scenes with a ray's weights:
    terms.depth_variance.weight=100.

    Args:
        image_weight: of the second loss.
    """

    name = "hifa"

    def __init__(self, prior: Prior, image_weight: Scheduled = 0.01, **common: Any) -> None:
        super().__init__(prior, **common)
        self.image_weight = image_weight

    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        image = composite(render, condition.extra["background"])
        x = self.prior.encode(image)
        with torch.no_grad():
            noised = self.noised(x, condition, step)
            factor, away = self.factor(noised), self.direction(noised, step)
            pixels = factor * (image - self.decoded(noised.x - away, image))
        weight, image_weight = step.value(self.weight), step.value(self.image_weight)
        return {
            "hifa": weight * surrogate(x, factor * away),
            "hifa_image": weight * image_weight * surrogate(image, pixels),
        }
