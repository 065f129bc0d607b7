"""3D Gaussian splats (Kerbl et al. 2023)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering import kernel_name, rasterization
from diffusion3d.rendering.render import EMPTY_ALPHA, Render
from diffusion3d.representations.base import Representation, SceneParameters
from diffusion3d.representations.density import RankedDensification
from diffusion3d.representations.ply import splat_ply


@dataclass(frozen=True)
class SplatScene:
    """B scenes of N Gaussians, activated.

    Attributes:
        means: world units. quats: (w, x, y, z), unit. scales: standard deviations, world units. opacities: in [0, 1]; 0 for
            padding. colors: sRGB in [0, 1].
    """

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]

    def render(
        self,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
    ) -> Render:
        if sources is not None or shading is not None:
            raise ValueError("gsplat: splats have neither source views nor shading; leave sources and shading at None")
        image, alpha, meta = rasterization(
            self.means,
            self.quats,
            self.scales,
            self.opacities,
            self.colors,
            cameras.viewmats,
            cameras.K,
            cameras.width,
            cameras.height,
            near_plane=cameras.near,
            far_plane=cameras.far,
            render_mode="RGB+D",
            packed=False,
        )
        if meta["means2d"].requires_grad:
            meta["means2d"].retain_grad()
        channels = torch.cat([image, alpha], -1).movedim(-1, 2)
        if pixels is not None:
            channels = channels.flatten(3).gather(3, pixels[:, :, None].expand(-1, -1, channels.shape[2], -1))
        rgb, weighted, alpha = channels.split([3, 1, 1], 2)
        depth = torch.where(alpha < EMPTY_ALPHA, 0.0, weighted / alpha.clamp(min=EMPTY_ALPHA))
        return Render(rgb, alpha, depth, extras={"meta": meta})


class GaussianSplats(Representation):
    """Gaussians with one colour each.

    Raw tensors: means as they are, quats of any length, scales by exp, opacities and colors by sigmoid.

    Args:
        count: Gaussians at the start.
        radius: they fill a ball of this radius, world units.
        scale: their standard deviation at the start, world units.
        opacity: their opacity at the start.
        learning_rates: per raw tensor.
        density: how the count changes; None keeps it.
    """

    def __init__(
        self,
        learning_rates: Mapping[str, float],
        count: int = 3000,
        radius: float = 0.7,
        scale: float = 0.06,
        opacity: float = 0.1,
        density: RankedDensification | None = None,
    ) -> None:
        self.learning_rates = dict(learning_rates)
        if count < 1 or radius <= 0 or scale <= 0 or not 0 < opacity < 1:
            raise UserError(
                f"representation: count={count}, radius={radius}, scale={scale} must be positive, opacity={opacity} in (0, 1)"
            )
        if density is not None and count > density.cap:
            raise UserError(f"representation.count={count} exceeds representation.density.cap={density.cap}")
        self.count, self.radius, self.initial_scale, self.initial_opacity = count, radius, scale, opacity
        self.density = density

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        direction = F.normalize(torch.randn(scenes, self.count, 3, generator=generator), dim=-1)
        distance = self.radius * torch.rand(scenes, self.count, 1, generator=generator) ** (1 / 3)
        return {
            "means": direction * distance,
            "quats": F.normalize(torch.randn(scenes, self.count, 4, generator=generator), dim=-1),
            "scales": torch.full((scenes, self.count, 3), math.log(self.initial_scale)),
            "opacities": torch.full((scenes, self.count), math.log(self.initial_opacity / (1 - self.initial_opacity))),
            "colors": torch.zeros(scenes, self.count, 3),
        }

    def scene(self, raw: Mapping[str, Tensor]) -> SplatScene:
        return SplatScene(
            raw["means"],
            F.normalize(raw["quats"], dim=-1),
            raw["scales"].exp(),
            raw["opacities"].sigmoid(),
            raw["colors"].sigmoid(),
        )

    def density_control(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int
    ) -> None:
        if self.density is None or step >= self.density.stop:
            return
        meta = render.extras["meta"]
        self.density.observe(meta["means2d"].grad[0], meta["width"], meta["height"])
        if self.density.due(step):
            self.density.apply(owner, optimizer)

    def renderer(self, device: torch.device) -> str:
        return kernel_name(device)

    def state(self) -> dict[str, Tensor]:
        return {} if self.density is None else {"score": self.density.score}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.density is not None:
            self.density.score = state["score"]

    def export(self, raw: Mapping[str, Tensor]) -> dict[str, bytes]:
        colors = self.scene(raw).colors
        means, scales, quats, opacities = (raw[name][0] for name in ("means", "scales", "quats", "opacities"))
        return {"scene.ply": splat_ply(means, scales, quats, opacities, colors[0])}
