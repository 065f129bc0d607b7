"""Fields of density and colour: NeRF, triplanes, voxels and factorised voxels differ by their encoding and head alone."""

from __future__ import annotations

import dataclasses
import functools
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering.render import Render
from diffusion3d.rendering.volume import Field, VolumeRenderer
from diffusion3d.representations.background import LearnedBackground
from diffusion3d.representations.base import Representation, SceneParameters
from diffusion3d.representations.encodings import Encoding
from diffusion3d.representations.heads import Head
from diffusion3d.representations.occupancy import Occupancy
from diffusion3d.views import PointCloud, PosedViews


@dataclass(frozen=True)
class FieldScene:
    """B fields and how to look at them.

    Attributes:
        field: density and colour of points.
        renderer: marches rays through it.
        learned: whether its raw tensors want gradients.
        occupied: cells that are not empty; None where that is not known.
        behind: sRGB of directions [B, N, 3], the scene's own background; None where it has none.
        cost: memory that the field takes for a sample, relative to a small MLP.
    """

    field: Field
    renderer: VolumeRenderer
    learned: bool = False
    occupied: Bool[Tensor, "G G G"] | None = None
    behind: Callable[[Tensor], Tensor] | None = None
    cost: int = 1

    def render(
        self,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
    ) -> Render:
        training = self.learned and torch.is_grad_enabled()
        render = self.renderer(self.field, cameras, pixels, sources, shading, self.occupied, training, self.cost)
        if self.behind is None:
            return render
        directions = cameras.rays()[1].flatten(2, 3)
        if pixels is not None:
            directions = directions.gather(2, pixels[..., None].expand(-1, -1, -1, 3))
        seen = self.behind(directions.flatten(1, 2)).unflatten(1, directions.shape[1:3]).movedim(-1, 2)
        return dataclasses.replace(render, behind=seen.reshape(render.rgb.shape))


def _learned(raw: Mapping[str, Tensor]) -> bool:
    """Whether any raw tensor wants a gradient."""
    return any(value.requires_grad for value in raw.values())


@dataclass(frozen=True)
class Density:
    """From a raw value to density, per world unit.

    Attributes:
        activation: "exp" (its gradient is held finite, Müller et al. 2022) or "softplus".
        bias: added to the raw value.
        blob, radius: blob * exp(-|x|² / (2 radius²)) is added, too: a scene starts as a ball (Poole et al. 2023, appendix A.2).
        scale: factor on the density.
    """

    activation: str = "exp"
    bias: float = 0.0
    blob: float = 0.0
    radius: float = 0.2
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.activation not in ("exp", "softplus") or self.radius <= 0 or self.scale <= 0:
            raise UserError(
                f"representation.density: activation={self.activation} must be exp or softplus, radius={self.radius} and "
                f"scale={self.scale} positive"
            )

    def __call__(self, raw: Float[Tensor, "B N"], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N"]:
        raw = raw + self.bias
        if self.blob:
            raw = raw + self.blob * torch.exp(points.square().sum(-1) / (-2 * self.radius**2))
        return self.scale * (_TruncatedExp.apply(raw) if self.activation == "exp" else F.softplus(raw))


class _TruncatedExp(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp(max=15).exp()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return gradient * x.clamp(-15, 15).exp()


class VolumeRepresentation(Representation):
    """Scenes that are fields, seen by marching rays, and what is known of their empty space.

    Args:
        parts: {part: names of its raw tensors}.
        renderer: marches rays.
        learning_rates: {part: learning rate}, of the parts and of the background.
        density: activation of the raw density; colours pass a sigmoid.
        occupancy: finds empty space, which is then skipped where one scene is optimised, in a fit only after its warmup; None
            renders all of it.
        background: the scene's own, for opaque images and priors that are not told a colour; None leaves it to the task.
    """

    def __init__(
        self,
        parts: Mapping[str, Sequence[str]],
        renderer: VolumeRenderer,
        learning_rates: Mapping[str, float],
        density: Density | None,
        occupancy: Occupancy | None,
        background: LearnedBackground | None,
    ) -> None:
        self.volume, self.density = renderer, density or Density()
        self.occupancy, self.background = occupancy, background
        behind = () if background is None else background.names
        named = {**parts, "background": behind}
        self.learning_rates = {name: learning_rates[part] for part, names in named.items() for name in names}

    @abstractmethod
    def init_field(
        self, scenes: int, generator: torch.Generator | None = None, views: PosedViews | None = None
    ) -> dict[str, Tensor]:
        """`init` of all but the background."""

    def init(
        self,
        scenes: int,
        generator: torch.Generator | None = None,
        views: PosedViews | None = None,
        points: PointCloud | None = None,
    ) -> dict[str, Tensor]:
        if self.occupancy is not None:
            self.occupancy.everywhere = views is not None
        behind = {} if self.background is None else self.background.init(scenes, generator)
        return {**self.init_field(scenes, generator, views), **behind}

    @abstractmethod
    def field(
        self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"], sources: Bool[Tensor, "B N S"] | None = None
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 3"]]:
        """Density, per world unit, and sRGB of points; `sources` says which source views each point may see.

        Raises:
            ValueError: there are sources; only image-based fields have them.
        """

    def cost(self, raw: Mapping[str, Tensor]) -> int:
        """Memory that a sample takes, relative to a small MLP."""
        return 1

    def scene(self, raw: Mapping[str, Tensor]) -> FieldScene:
        alone = len(next(iter(raw.values()))) == 1
        occupied = self.occupancy.cells if self.occupancy is not None and alone else None
        field = functools.partial(self.field, raw)
        behind = None if self.background is None else functools.partial(self.background, raw)
        return FieldScene(field, self.volume, _learned(raw), occupied, behind, self.cost(raw))

    def density_control(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        raw = dict(owner.raw.items())
        first = next(iter(raw.values()))
        if self.occupancy is not None and len(first) == 1:
            self.occupancy.update(step, first.device, lambda points: self.field(raw, points[None])[0][0])

    def state(self) -> dict[str, Tensor]:
        return {} if self.occupancy is None else self.occupancy.state()

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if self.occupancy is not None:
            self.occupancy.load_state(state)


class Fields(VolumeRepresentation):
    """Density and colour by an encoding of points and a head.

    Args:
        encoding: points to features.
        head: features to raw density and colour.
        learning_rates: of the encoding's, the head's and the background's raw tensors, {encoding, head, background}.
        renderer, density, occupancy, background: as in `VolumeRepresentation`.
    """

    def __init__(
        self,
        encoding: Encoding,
        head: Head,
        renderer: VolumeRenderer,
        learning_rates: Mapping[str, float],
        density: Density | None = None,
        occupancy: Occupancy | None = None,
        background: LearnedBackground | None = None,
    ) -> None:
        parts = {"encoding": encoding.names, "head": head.names}
        super().__init__(parts, renderer, learning_rates, density, occupancy, background)
        self.encoding, self.head = encoding, head

    def init_field(
        self, scenes: int, generator: torch.Generator | None = None, views: PosedViews | None = None
    ) -> dict[str, Tensor]:
        return {
            **self.encoding.init(scenes, generator),
            **self.head.init(self.encoding.channels, scenes, generator),
        }

    def field(
        self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"], sources: Bool[Tensor, "B N S"] | None = None
    ) -> tuple[Float[Tensor, "B N"], Float[Tensor, "B N 3"]]:
        if sources is not None:
            raise ValueError("this field has no source views; leave sources at None")
        out = self.head(raw, self.encoding(raw, points))
        return self.density(out[..., 0], points), out[..., 1:].sigmoid()

    def cost(self, raw: Mapping[str, Tensor]) -> int:
        return self.head.cost

    def renderer(self, device: torch.device) -> str:
        return f"nerfacc, encoding by {self.encoding.computed_by(device)}"
