"""IB-planes (Anciukevičius et al. 2024): every source camera brings a pixel-aligned and a polar feature map.

The paper leaves open how the views' features are pooled; here each view's vector passes a shared linear layer, and a
softmax-weighted mean and the maximum over the views go to an MLP.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.errors import UserError
from diffusion3d.rendering.volume import VolumeRenderer
from diffusion3d.representations.background import LearnedBackground
from diffusion3d.representations.field import Density, VolumeRepresentation
from diffusion3d.representations.heads import MLP
from diffusion3d.representations.occupancy import Occupancy
from diffusion3d.views import PosedViews

OCTAVES = 4
SAME = 1e-5
"""Largest difference of two poses that are the same."""
ELEVATIONS = (-15.0, 20.0, 50.0)


class IBPlanes(VolumeRepresentation):
    """Feature maps of S source cameras, projected, fused and decoded.

    Raw `c2w` and `K` (for images of unit size) are not learned.

    Args:
        head: decodes fused features.
        learning_rates: of the maps, of the network and of the background, {maps, head, background}.
        sources: cameras around the object, or the first, evenly spaced, of the views that are fitted; at most that many.
        features: of each map.
        size: side of the pixel-aligned maps; the polar ones are as high and twice as wide at half of it.
        width: of the fused features.
        renderer, density, background: as in `VolumeRepresentation`.
        occupancy: as there; space is empty where it is for all sources together.
    """

    def __init__(
        self,
        head: MLP,
        renderer: VolumeRenderer,
        learning_rates: Mapping[str, float],
        sources: int = 8,
        features: int = 16,
        size: int = 64,
        width: int = 32,
        density: Density | None = None,
        occupancy: Occupancy | None = None,
        background: LearnedBackground | None = None,
    ) -> None:
        if min(sources, features, size // 2, width) < 1:
            raise UserError(
                f"representation: sources={sources}, features={features}, width={width} must be positive, size={size} at "
                "least 2"
            )
        parts = {"maps": ("maps", "polar"), "head": ("fuse", "score", *head.names)}
        super().__init__(parts, renderer, learning_rates, density, occupancy, background)
        self.head = head
        self.sources, self.features, self.size, self.width = sources, features, size, width

    def init_field(
        self, scenes: int, generator: torch.Generator | None = None, views: PosedViews | None = None
    ) -> dict[str, Tensor]:
        if views is None:
            azimuth = torch.arange(self.sources).float()[None] * (360.0 / self.sources)
            elevation = torch.tensor([ELEVATIONS[i % len(ELEVATIONS)] for i in range(self.sources)])[None]
            cameras = orbit(azimuth, elevation, 3.0, 45.0, self.size, self.size).expand(scenes)
        else:
            count = min(self.sources, views.cameras.shape[1])
            cameras = views.cameras.select(views=torch.arange(count) * views.cameras.shape[1] // count)
        pixels = cameras.K.new_tensor([[cameras.width], [cameras.height], [1.0]])
        shape, half = (scenes, cameras.shape[1], self.features), self.size // 2
        vector = 2 * self.features + 2 * OCTAVES + 1
        return {
            "maps": 0.1 * torch.randn(*shape, self.size, self.size, generator=generator),
            "polar": 0.1 * torch.randn(*shape, half, 2 * half, generator=generator),
            "fuse": torch.randn(scenes, vector, self.width, generator=generator) / math.sqrt(vector),
            "score": torch.zeros(scenes, self.width, 1),
            **self.head.init(2 * self.width + 3, scenes, generator),
            "c2w": cameras.c2w.clone(),
            "K": cameras.K / pixels,
        }

    def field(
        self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"], sources: Bool[Tensor, "B N S"] | None = None
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 3"]]:
        """Density, per world unit, and sRGB of points; where no source may be seen only the place is known."""
        vectors = self._look(raw, points)
        vectors = torch.einsum("bvnd,bdw->bvnw", vectors, raw["fuse"]).relu()
        score = torch.einsum("bvnw,bwo->bvno", vectors, raw["score"])
        if sources is not None:
            hidden = ~sources.transpose(1, 2)[..., None]
            score = score.masked_fill(hidden, -1e4)
            vectors = vectors.masked_fill(hidden, 0.0)
        fused = torch.cat([(score.softmax(1) * vectors).sum(1), vectors.amax(1), points], -1)
        out = self.head(raw, fused)
        return self.density(out[..., 0], points), out[..., 1:].sigmoid()

    def _look(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B S N D"]:
        """What each source camera knows of points: both maps' features, its distance, and whether it has it in view."""
        c2w, K = raw["c2w"], raw["K"]
        local = torch.einsum("bvji,bvnj->bvni", c2w[..., :3, :3], points[:, None] - c2w[:, :, None, :3, 3])
        z = local[..., 2:]
        image = torch.einsum("bvij,bvnj->bvni", K, local)[..., :2] / z.clamp(min=1e-3)
        inside = ((z > 1e-3) & (image > 0).all(-1, keepdim=True) & (image < 1).all(-1, keepdim=True)).to(points.dtype)
        aligned = inside * _sample(raw["maps"], 2 * image - 1)
        azimuth = torch.atan2(local[..., 0], local[..., 2]) / math.pi
        elevation = torch.atan2(local[..., 1], local[..., [0, 2]].norm(dim=-1)) / (math.pi / 2)
        polar = torch.cat([raw["polar"][..., -1:], raw["polar"], raw["polar"][..., :1]], -1)
        shrink = raw["polar"].shape[-1] / polar.shape[-1]
        around = _sample(polar, torch.stack([azimuth * shrink, elevation], -1))
        octaves = 2.0 ** torch.arange(OCTAVES, device=points.device)
        phase = local.norm(dim=-1, keepdim=True).clamp(min=1e-3).log() * octaves
        return torch.cat([aligned, around, phase.sin(), phase.cos(), inside], -1)

    def others(self, raw: Mapping[str, Tensor], cameras: Cameras) -> Bool[Tensor, "B V S"]:
        same = (cameras.c2w[:, :, None] - raw["c2w"][:, None]).abs().amax((-1, -2)) < SAME
        return ~same

    def cost(self, raw: Mapping[str, Tensor]) -> int:
        return raw["maps"].shape[1]


def _sample(maps: Float[Tensor, "B S C h w"], at: Float[Tensor, "B S N 2"]) -> Float[Tensor, "B S N C"]:
    found = F.grid_sample(maps.flatten(0, 1), at.flatten(0, 1)[:, None], padding_mode="border", align_corners=False)
    return found[:, :, 0].mT.unflatten(0, maps.shape[:2])
