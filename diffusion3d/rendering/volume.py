"""Emission-absorption rendering of fields (Mildenhall et al. 2020), through nerfacc's functions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from nerfacc import accumulate_along_rays, render_weight_from_density
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering.render import EMPTY_ALPHA, Render

SHADINGS = ("albedo", "textureless", "lambertian", "normal")
NORMAL_STEP = 1e-2
"""Of the finite differences that give normals, world units."""
KEPT = 16
"""Chunks whose activations training keeps."""
AMBIENT = 0.1
"""Share of the light that comes from everywhere; in training, the least."""
TETRAHEDRON = ((1.0, -1.0, -1.0), (-1.0, -1.0, 1.0), (-1.0, 1.0, -1.0), (1.0, 1.0, 1.0))


@runtime_checkable
class Field(Protocol):
    """B fields in [-1, 1]³."""

    def __call__(
        self, points: Float[Tensor, "B N 3"], sources: Bool[Tensor, "B N S"] | None
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 3"]]:
        """Density, per world unit, and sRGB of points; `sources` says which source views each point may see."""


@dataclass(frozen=True)
class Rays:
    """R rays of each of B scenes; directions have unit camera-z, so that t is the depth.

    Attributes:
        near, far: where a ray enters and leaves the cube [-1, 1]³ (far <= near: never).
        sources: which source views a ray may see.
    """

    origins: Float[Tensor, "B R 3"]
    directions: Float[Tensor, "B R 3"]
    near: Float[Tensor, "B R"]
    far: Float[Tensor, "B R"]
    sources: Bool[Tensor, "B R S"] | None = None

    def part(self, begin: int, end: int) -> Rays:
        chosen = slice(begin, end)
        sources = None if self.sources is None else self.sources[:, chosen]
        return Rays(
            self.origins[:, chosen], self.directions[:, chosen], self.near[:, chosen], self.far[:, chosen], sources
        )


def cast(
    cameras: Cameras, pixels: Int[Tensor, "B V P"] | None = None, sources: Bool[Tensor, "B V S"] | None = None
) -> Rays:
    """The rays of all pixels, or of the flat indices `pixels`, in the order view, pixel."""
    o, d = (x.flatten(2, 3) for x in cameras.rays())
    if pixels is not None:
        chosen = pixels[..., None].expand(-1, -1, -1, 3)
        o, d = o.gather(2, chosen), d.gather(2, chosen)
    count = d.shape[2]
    o, d = o.flatten(1, 2), d.flatten(1, 2)
    slope = torch.where(d.abs() < 1e-9, torch.full_like(d, 1e-9), d)
    first, second = (-1 - o) / slope, (1 - o) / slope
    near = torch.minimum(first, second).amax(-1).clamp(min=cameras.near)
    far = torch.maximum(first, second).amin(-1).clamp(max=cameras.far)
    seen = None if sources is None else sources.repeat_interleave(count, 1)
    return Rays(o, d, near, far, seen)


@dataclass(frozen=True)
class VolumeRenderer:
    """How fields are rendered.

    What it adds to `Render.extras`, both [B,V,1,*P]: `entropy`, the mean binary entropy of a ray's weights, nats, and with
    normals `facing_away`, sum(w max(0, n . d)²), where d points away from the camera.

    Attributes:
        samples: per ray, evenly spaced inside the cube; jittered in training, at the middle of their bins otherwise.
        chunk: samples that are rendered at a time, fewer where a field or a shading takes more memory; parts that fit a cache
            and need no fresh pages from the system are fastest. Training keeps up to 16 of them; if there are more, it computes
            all again in the backward pass.
    """

    samples: int = 96
    chunk: int = 2**17

    def __post_init__(self) -> None:
        if self.samples < 1 or self.chunk < 1:
            raise UserError(f"representation.renderer: samples={self.samples} and chunk={self.chunk} must be positive")

    def __call__(
        self,
        field: Field,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
        occupied: Bool[Tensor, "G G G"] | None = None,
        training: bool = False,
        cost: int = 1,
    ) -> Render:
        """Render B fields.

        Args:
            shading: "albedo" (None is the same), "textureless", "lambertian" or "normal" (normals as colours); all but the
                first need, and give, normals. The light is at the camera; in training around it, drawn for every view (Poole et
                al. 2023, section 3.2): N(0, 1) world units away along each axis, with an ambient share from U(0.1, 1) (both
                as in stable-dreamfusion) in place of 0.1.
            occupied: cells of the cube, by x, y, z, outside which density is taken for 0; for one scene.
            training: whether gradients are wanted.
            cost: how much memory the field takes for a sample, relative to a small MLP.

        Raises:
            ValueError: another shading.
        """
        if shading is not None and shading not in SHADINGS:
            raise ValueError(f"shading {shading!r} is unknown; choose {', '.join(SHADINGS)}")
        rays = cast(cameras, pixels, sources)
        scenes, count = rays.near.shape
        offset = torch.rand(scenes, count, 1).to(rays.near) if training else torch.full_like(rays.near[..., None], 0.5)
        lights = _lights(cameras, drawn=training and shading in ("textureless", "lambertian"))
        light = lights.repeat_interleave(count // cameras.shape[1], 1)
        evaluations = 1 + len(TETRAHEDRON) if training and shading not in (None, "albedo") else 1
        step = max(1, self.chunk // (scenes * self.samples * cost * evaluations))
        parts = []
        for begin in range(0, count, step):
            end = begin + step
            arguments = (field, rays.part(begin, end), offset[:, begin:end], light[:, begin:end], shading, occupied)
            if training and KEPT * step < count:
                parts.append(checkpoint(self._march, *arguments, use_reentrant=False))
            else:
                parts.append(self._march(*arguments))
        channels = torch.cat(parts, 1).unflatten(1, (cameras.shape[1], -1)).movedim(-1, 2)
        if pixels is None:
            channels = channels.unflatten(3, (cameras.height, cameras.width))
        rgb, alpha, depth, entropy, variance, normals = channels.split([3, 1, 1, 1, 1, channels.shape[2] - 7], 2)
        hit = alpha >= EMPTY_ALPHA
        depth = torch.where(hit, depth / alpha.clamp(min=EMPTY_ALPHA), 0.0)
        variance, extras = torch.where(hit, variance, 0.0), {"entropy": entropy}
        if not normals.shape[2]:
            return Render(rgb, alpha, depth, depth_variance=variance, extras=extras)
        normals, facing_away = normals.split([3, 1], 2)
        unit = torch.where(hit, F.normalize(normals, dim=2), 0.0)
        return Render(rgb, alpha, depth, unit, variance, {**extras, "facing_away": facing_away})

    def _march(
        self,
        field: Field,
        rays: Rays,
        offset: Float[Tensor, "B R 1"],
        light: Float[Tensor, "B R 4"],
        shading: str | None,
        occupied: Bool[Tensor, "G G G"] | None,
    ) -> Float[Tensor, "B R C"]:
        """Premultiplied rgb, alpha, sum(w z), mean entropy of w, variance of z; with normals also sum(w n) and
        sum(w max(0, n . d)²).

        In the last one w carries no gradient (Poole et al. 2023, appendix A.2).
        """
        scenes, count = rays.near.shape
        length = (rays.far - rays.near).clamp(min=0)[..., None] / self.samples
        bins = torch.arange(self.samples, device=offset.device)
        t = rays.near[..., None] + length * (bins + offset)
        points = (rays.origins[:, :, None] + t[..., None] * rays.directions[:, :, None]).flatten(1, 2)
        chosen: _Dense | _Chosen = _Dense(count, self.samples, t.device)
        if occupied is not None:
            chosen = _Chosen(_inside(points[0], occupied.to(points.device)).view(count, -1) & (length[0] > 0))
        points, ray = chosen.pick(points), chosen.rays
        sources = None if rays.sources is None else rays.sources[:, ray]
        sigmas, colors = field(points, sources)
        if shading not in (None, "albedo"):
            normals = _normals(field, points, sources)
            along = F.normalize(rays.directions, dim=-1)[:, ray]
            away = (normals * along).sum(-1, keepdim=True).clamp(min=0).square()
            colors = torch.cat([_shade(colors, points, normals, light[:, ray], shading), normals, away], -1)
        # nerfacc's intervals are metric: the directions' length belongs to the density
        sigmas = chosen.place(sigmas * rays.directions.norm(dim=-1)[:, ray]).flatten(0, 1)
        colors, t = chosen.place(colors).flatten(0, 1), chosen.place(chosen.pick(t.flatten(1, 2))).flatten(0, 1)
        starts = t - (length * offset).view(-1, 1)
        weights, _, _ = render_weight_from_density(starts, starts + length.view(-1, 1), sigmas)
        sums = accumulate_along_rays(weights, torch.cat([colors[..., :6], t[..., None]], -1))
        away = accumulate_along_rays(weights.detach(), colors[..., 6:])
        alpha = weights.sum(-1, keepdim=True)
        w = weights.clamp(1e-5, 1 - 1e-5)
        entropy = -(w * w.log() + (1 - w) * (1 - w).log()).sum(-1, keepdim=True) / self.samples
        share = weights / alpha.clamp(min=EMPTY_ALPHA)
        variance = (share * (t - (share * t).sum(-1, keepdim=True)).square()).sum(-1, keepdim=True)
        out = torch.cat([sums[:, :3], alpha, sums[:, -1:], entropy, variance, sums[:, 3:-1], away], -1)
        return out.view(scenes, count, -1)


class _Dense:
    """All samples of all rays."""

    def __init__(self, count: int, samples: int, device: torch.device) -> None:
        self.shape = (count, samples)
        self.rays = torch.arange(count, device=device).repeat_interleave(samples)

    def pick(self, values: Float[Tensor, "B N ..."]) -> Float[Tensor, "B N ..."]:
        return values

    def place(self, values: Float[Tensor, "B N ..."]) -> Float[Tensor, "B R K ..."]:
        return values.unflatten(1, self.shape)


class _Chosen:
    """Some samples of the rays of one scene; they move up to the front of their ray, which then has as many as the fullest."""

    def __init__(self, keep: Bool[Tensor, "R S"]) -> None:
        self.index = keep.flatten().nonzero()[:, 0]
        self.rays = self.index // keep.shape[1]
        self.slots = (keep.cumsum(1, dtype=torch.int32).flatten()[self.index] - 1).long()
        self.shape = (keep.shape[0], max(1, int(keep.sum(1).max())))

    def pick(self, values: Float[Tensor, "1 N ..."]) -> Float[Tensor, "1 K ..."]:
        return values[:, self.index]

    def place(self, values: Float[Tensor, "1 K ..."]) -> Float[Tensor, "1 R S ..."]:
        out = values.new_zeros(*self.shape, *values.shape[2:])
        return out.index_put((self.rays, self.slots), values[0])[None]


def _inside(points: Float[Tensor, "N 3"], occupied: Bool[Tensor, "G G G"]) -> Bool[Tensor, " N"]:
    side = occupied.shape[0]
    cell = ((points + 1) * (0.5 * side)).int().clamp_(0, side - 1)
    return occupied.flatten()[(cell[:, 0] * side + cell[:, 1]) * side + cell[:, 2]]


def _normals(
    field: Callable[..., tuple[Tensor, Tensor]], points: Float[Tensor, "B N 3"], sources: Bool[Tensor, "B N S"] | None
) -> Float[Tensor, "B N 3"]:
    """Minus the direction in which density grows, by finite differences at the corners of a tetrahedron."""
    gradient = torch.zeros_like(points)
    for corner in points.new_tensor(TETRAHEDRON):
        sigma, _ = field((points + NORMAL_STEP * corner).clamp(-1, 1), sources)
        gradient = gradient + sigma[..., None] * corner
    return -F.normalize(gradient, dim=-1, eps=1e-6)


def _lights(cameras: Cameras, drawn: bool) -> Float[Tensor, "B V 4"]:
    """Where the light of a view is, and its ambient share; `drawn` from torch's global CPU generator."""
    places = cameras.origins
    ambient = torch.full_like(places[..., :1], AMBIENT)
    if drawn:
        places = places + torch.randn(places.shape).to(places)
        ambient = ambient + (1 - AMBIENT) * torch.rand(ambient.shape).to(places)
    return torch.cat([places, ambient], -1)


def _shade(colors: Tensor, points: Tensor, normals: Tensor, light: Tensor, shading: str | None) -> Tensor:
    if shading == "normal":
        return 0.5 + 0.5 * normals
    place, ambient = light.split([3, 1], -1)
    toward = F.normalize(place - points, dim=-1)
    brightness = ambient + (1 - ambient) * (normals * toward).sum(-1, keepdim=True).clamp(min=0)
    return brightness.expand_as(colors) if shading == "textureless" else colors * brightness
