"""Encodings of points in [-1, 1]³: raw tensors and points to features.

They are functional, as representations are.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.errors import UserError
from diffusion3d.rendering import kernel_name
from diffusion3d.rendering.hash_grid import HashLevels, hash_grid

PLANES = ((0, 1), (0, 2), (1, 2))
LINES = (2, 1, 0)


class Encoding(ABC):
    """Points to features, by raw tensors.

    Attributes:
        names: of the raw tensors.
        channels: width of the features.
    """

    names: tuple[str, ...] = ()
    channels: int

    @abstractmethod
    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        """Raw tensors [B, …] to start from."""

    @abstractmethod
    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        """Features of points."""

    def computed_by(self, device: torch.device) -> str:
        """What computes it on that device, for the record."""
        return "torch"


def _positive(**numbers: int) -> None:
    if min(numbers.values()) < 1:
        given = ", ".join(f"{name}={number}" for name, number in numbers.items())
        raise UserError(f"representation.encoding: {given} must be positive")


class HashGrid(Encoding):
    """A multi-resolution hash grid (Müller et al. 2022).

    Args:
        levels, features: how many grids, and features of each entry.
        coarsest, finest: cells along a side of the first and the last grid.
        log2_entries: of the largest table.
    """

    names = ("table",)

    def __init__(
        self, levels: int = 12, features: int = 2, coarsest: int = 16, finest: int = 512, log2_entries: int = 16
    ) -> None:
        if levels < 1 or not 1 <= coarsest <= finest or features < 1 or not 1 <= log2_entries <= 24:
            raise UserError(
                f"representation.encoding: levels={levels} and features={features} must be positive, coarsest={coarsest} at "
                f"most finest={finest}, log2_entries={log2_entries} in 1 … 24"
            )
        self.levels = HashLevels.geometric(levels, coarsest, finest, log2_entries)
        self.features = features
        self.channels = levels * features

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        shape = (scenes, sum(self.levels.entries), self.features)
        return {"table": 1e-4 * (2 * torch.rand(shape, generator=generator) - 1)}

    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        scenes = zip(points, raw["table"], strict=True)
        return torch.stack([hash_grid(0.5 + 0.5 * x, table, self.levels) for x, table in scenes])

    def computed_by(self, device: torch.device) -> str:
        return kernel_name(device) if device.type == "cpu" else "torch"


class Frequency(Encoding):
    """Sines and cosines of the coordinates (Mildenhall et al. 2020, equation 4), and the coordinates.

    Args:
        degree: number of octaves.
    """

    def __init__(self, degree: int = 6) -> None:
        _positive(degree=degree)
        self.degree = degree
        self.channels = 3 + 6 * degree

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {}

    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        octaves = math.pi * 2.0 ** torch.arange(self.degree, device=points.device)
        phase = (points[..., None] * octaves).flatten(-2)
        return torch.cat([points, phase.sin(), phase.cos()], -1)


class Triplane(Encoding):
    """Features on the planes xy, xz and yz, summed (Chan et al. 2022), and the coordinates.

    Args:
        size: cells along a side.
        features: of every cell.
    """

    names = ("planes",)

    def __init__(self, size: int = 128, features: int = 16) -> None:
        _positive(size=size, features=features)
        self.size, self.features = size, features
        self.channels = features + 3

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {"planes": 0.1 * torch.randn(scenes, 3, self.features, self.size, self.size, generator=generator)}

    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        return torch.cat([_planes(raw["planes"], points).sum(1).mT, points], -1)


class Voxels(Encoding):
    """A dense grid, trilinearly interpolated (Sun et al. 2022).

    Args:
        size: cells along a side.
        channels: of every cell.
    """

    names = ("grid",)

    def __init__(self, size: int = 96, channels: int = 4) -> None:
        _positive(size=size, channels=channels)
        self.size, self.channels = size, channels

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        shape = (scenes, self.channels, self.size, self.size, self.size)
        return {"grid": 1e-2 * torch.randn(shape, generator=generator)}

    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        at = points[:, None, None]
        return F.grid_sample(raw["grid"], at, padding_mode="border", align_corners=False)[:, :, 0, 0].mT


class FactorisedVoxels(Encoding):
    """A grid as sums of planes times lines (Chen et al. 2022, equation 3: vector-matrix), features from a linear basis.

    Args:
        size: cells along a side.
        components: of each of the three plane-line pairs.
        channels: features, linear in the products.
    """

    names = ("planes", "lines", "basis")

    def __init__(self, size: int = 128, components: int = 16, channels: int = 16) -> None:
        _positive(size=size, components=components, channels=channels)
        self.size, self.components, self.channels = size, components, channels

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        c, s = self.components, self.size
        return {
            "planes": 0.2 * torch.randn(scenes, 3, c, s, s, generator=generator),
            "lines": 0.2 * torch.randn(scenes, 3, c, s, 1, generator=generator),
            "basis": torch.randn(scenes, 3 * c, self.channels, generator=generator) / math.sqrt(3 * c),
        }

    def __call__(self, raw: Mapping[str, Tensor], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N C"]:
        planes = _planes(raw["planes"], points)
        along = points[..., list(LINES)].transpose(1, 2).flatten(0, 1)
        at = torch.stack([torch.zeros_like(along), along], -1)[:, None]
        lines = F.grid_sample(raw["lines"].flatten(0, 1), at, padding_mode="border", align_corners=False)[:, :, 0]
        products = planes * lines.unflatten(0, (-1, 3))
        return torch.bmm(products.flatten(1, 2).mT, raw["basis"])


def _planes(planes: Float[Tensor, "B 3 C S S"], points: Float[Tensor, "B N 3"]) -> Float[Tensor, "B 3 C N"]:
    at = torch.stack([points[..., list(axes)] for axes in PLANES], 1).flatten(0, 1)[:, None]
    found = F.grid_sample(planes.flatten(0, 1), at, padding_mode="border", align_corners=False)
    return found[:, :, 0].unflatten(0, (-1, 3))
