"""3D Gaussian splats (Kerbl et al. 2023)."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering import kernel_name, rasterization
from diffusion3d.rendering.pixels import at
from diffusion3d.rendering.render import EMPTY_ALPHA, Render
from diffusion3d.representations.base import Representation, SceneParameters
from diffusion3d.representations.density import DensityControl
from diffusion3d.representations.ply import write_ply
from diffusion3d.representations.splats import DEGREES, SH_C0, splats_of
from diffusion3d.representations.starting import started_from
from diffusion3d.views import PointCloud, PosedViews

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SplatScene:
    """B scenes of N Gaussians, activated; they may lie anywhere, so a camera's `far` does not cut them.

    Attributes:
        means: world units. quats: (w, x, y, z), unit. scales: standard deviations, world units. opacities: in [0, 1]; 0 for
            padding. colors: sRGB in [0, 1]. sh: spherical harmonics of degree 1 and up, which add what depends on the direction
            of view.
    """

    means: Float[Tensor, "B N 3"]
    quats: Float[Tensor, "B N 4"]
    scales: Float[Tensor, "B N 3"]
    opacities: Float[Tensor, "B N"]
    colors: Float[Tensor, "B N 3"]
    sh: Float[Tensor, "B N K 3"] | None = None

    def render(
        self,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
    ) -> Render:
        if sources is not None or shading is not None:
            raise ValueError("gsplat: splats have neither source views nor shading; leave sources and shading at None")
        colors, degree = self.colors, None
        if self.sh is not None:
            colors = torch.cat([((colors - 0.5) / SH_C0)[:, :, None], self.sh], 2)
            degree = DEGREES[colors.shape[2]]
        image, alpha, meta = self._rasterized(cameras, colors, sh_degree=degree, render_mode="RGB+D")
        if meta["means2d"].requires_grad:
            meta["means2d"].retain_grad()
        channels = torch.cat([image, alpha, *([] if torch.is_grad_enabled() else [self._squared_depth(cameras)])], -1)
        channels = at(channels.movedim(-1, 2), pixels)
        rgb, weighted, alpha, *squared = channels.split([3] + [1] * (channels.shape[2] - 3), 2)
        depth, *moment = (
            torch.where(alpha < EMPTY_ALPHA, 0.0, x / alpha.clamp(min=EMPTY_ALPHA)) for x in (weighted, *squared)
        )
        variance = (moment[0] - depth.square()).clamp(min=0) if moment else None
        return Render(rgb, alpha, depth, depth_variance=variance, extras={"meta": meta})

    def _squared_depth(self, cameras: Cameras) -> Float[Tensor, "B V H W 1"]:
        """sum(w z²), z being that of the Gaussians' centres."""
        rows = cameras.viewmats[:, :, 2]
        z = torch.einsum("bvj,bnj->bvn", rows[..., :3], self.means) + rows[..., 3:]
        return self._rasterized(cameras, z.square()[..., None])[0]

    def _rasterized(self, cameras: Cameras, colors: Tensor, **options: Any) -> tuple[Tensor, Tensor, dict[str, Any]]:
        return rasterization(
            self.means,
            self.quats,
            self.scales,
            self.opacities,
            colors,
            cameras.viewmats,
            cameras.K,
            cameras.width,
            cameras.height,
            near_plane=cameras.near,
            packed=False,
            **options,
        )


class GaussianSplats(Representation):
    """Gaussians with one colour each, or with one for every direction of view.

    Raw tensors: means as they are, quats of any length, scales by exp, opacities and colors by sigmoid, and sh (of degree 1 and
    up) as they are.

    Args:
        count: Gaussians at the start.
        radius: they fill a ball of this radius, world units.
        scale: their standard deviation at the start, world units.
        opacity: their opacity at the start.
        learning_rates: per raw tensor.
        density: how the count changes; None keeps it.
        sh_degree: of the spherical harmonics, 0 (one colour) to 3.
        start: file of Gaussians (3DGS PLY, SPZ, .splat), points or a mesh to start from; None starts from the points that the
            data know, or from a ball. Of Gaussians, colours beyond [0, 1] are clamped and harmonics above `sh_degree` dropped.
    """

    def __init__(
        self,
        learning_rates: Mapping[str, float],
        count: int = 3000,
        radius: float = 0.7,
        scale: float = 0.06,
        opacity: float = 0.1,
        density: DensityControl | None = None,
        sh_degree: int = 0,
        start: str | None = None,
    ) -> None:
        self.learning_rates = {name: rate for name, rate in learning_rates.items() if name != "sh" or sh_degree}
        if not 0 <= sh_degree <= 3:
            raise UserError(f"representation.sh_degree={sh_degree} must be 0, 1, 2 or 3")
        if count < 1 or radius <= 0 or scale <= 0 or not 0 < opacity < 1:
            raise UserError(
                f"representation: count={count}, radius={radius}, scale={scale} must be positive, opacity={opacity} in (0, 1)"
            )
        if density is not None and count > density.cap:
            raise UserError(f"representation.count={count} exceeds representation.density.cap={density.cap}")
        self.count, self.radius, self.initial_scale, self.initial_opacity = count, radius, scale, opacity
        self.density, self.harmonics, self.start = density, (sh_degree + 1) ** 2 - 1, start

    def init(
        self,
        scenes: int,
        generator: torch.Generator | None = None,
        views: PosedViews | None = None,
        points: PointCloud | None = None,
    ) -> dict[str, Tensor]:
        if self.start is not None or points is not None:
            raw = started_from(self.start, points, self.count, self.initial_opacity)
        else:
            raw = self._ball(scenes, generator)
        given = raw.pop("sh", raw["means"].new_zeros(*raw["means"].shape[:2], 0, 3))
        if bool(given[:, :, self.harmonics :].any()):
            log.warning(
                "%s has spherical harmonics of degree %d; those above representation.sh_degree=%d are dropped",
                self.start,
                DEGREES[given.shape[2] + 1],
                DEGREES[self.harmonics + 1],
            )
        if self.harmonics:
            kept = given[:, :, : self.harmonics]
            raw["sh"] = F.pad(kept, (0, 0, 0, self.harmonics - kept.shape[2]))
        return {
            name: value.expand(scenes, *value.shape[1:]).clone()
            for name, value in raw.items()
            if name in self.learning_rates
        }

    def _ball(self, scenes: int, generator: torch.Generator | None) -> dict[str, Tensor]:
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
            raw.get("sh"),
        )

    def density_control(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        if self.density is not None:
            scenes = len(owner.raw["means"])
            if scenes > 1:
                raise ValueError(f"density_control: it is for one scene, not for {scenes}; set density to None")
            self.density.after_step(owner, optimizer, render, step, total)

    def renderer(self, device: torch.device) -> str:
        return kernel_name(device)

    def state(self) -> dict[str, Tensor]:
        return {} if self.density is None else self.density.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.density is not None:
            self.density.load_state(state)

    def export(self, raw: Mapping[str, Tensor]) -> dict[str, bytes]:
        return {"scene.ply": write_ply(splats_of(raw))}
