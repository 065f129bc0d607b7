"""A plain image that every camera sees: the two-dimensional playground of guidance schemes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering.pixels import at
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Representation
from diffusion3d.views import PointCloud, PosedViews


@dataclass(frozen=True)
class ImageScene:
    """One opaque image per scene, as far away as the world's origin.

    Attributes:
        image: sRGB in [0, 1]; resized to what a camera asks for.
    """

    image: Float[Tensor, "B 3 S S"]

    def render(
        self,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
    ) -> Render:
        if sources is not None or shading is not None:
            raise ValueError("image: it has neither source views nor shading; leave sources and shading at None")
        size = (cameras.height, cameras.width)
        image = self.image
        if image.shape[-2:] != size:
            image = F.interpolate(image, size, mode="bilinear", antialias=True)
        rgb = at(image[:, None].expand(-1, cameras.shape[1], -1, -1, -1), pixels)
        alpha = torch.ones_like(rgb[:, :, :1])
        distance = cameras.origins.norm(dim=-1).reshape(*cameras.shape, *[1] * (rgb.ndim - 2))
        return Render(rgb, alpha, distance.expand_as(alpha))


class Image(Representation):
    """Pixels, by a sigmoid.

    Args:
        learning_rates: of the raw tensor, {pixels}.
        size: side of the image, pixels.
        noise: standard deviation of the raw tensor at the start.
    """

    def __init__(self, learning_rates: Mapping[str, float], size: int = 64, noise: float = 0.1) -> None:
        if size < 1 or noise < 0:
            raise UserError(f"representation: size={size} must be positive, noise={noise} not negative")
        self.learning_rates, self.size, self.noise = dict(learning_rates), size, noise

    def init(
        self,
        scenes: int,
        generator: torch.Generator | None = None,
        views: PosedViews | None = None,
        points: PointCloud | None = None,
    ) -> dict[str, Tensor]:
        return {"pixels": self.noise * torch.randn(scenes, 3, self.size, self.size, generator=generator)}

    def scene(self, raw: Mapping[str, Tensor]) -> ImageScene:
        return ImageScene(raw["pixels"].sigmoid())
