"""Heads of fields: features to a raw density and a raw colour. Functional, with raw tensors [B, …] like encodings."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.errors import UserError

SMALL = 64
"""Hidden units of a small MLP, all layers together."""


@runtime_checkable
class Head(Protocol):
    """
    Attributes:
        names: of the raw tensors.
        cost: memory that a sample takes, relative to a small MLP.
    """

    names: tuple[str, ...]
    cost: int

    def init(self, channels: int, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]: ...

    def __call__(self, raw: Mapping[str, Tensor], features: Float[Tensor, "B N C"]) -> Float[Tensor, "B N 4"]: ...


class MLP:
    """Fully connected layers with ReLUs between them.

    Args:
        width: of the hidden layers.
        layers: how many hidden layers.
        outputs: how many values of a point: density and colour.
    """

    def __init__(self, width: int = 64, layers: int = 2, outputs: int = 4) -> None:
        if min(width, layers + 1, outputs) < 1:
            raise UserError(f"representation.head: width={width} must be positive, layers={layers} not negative")
        self.width, self.layers, self.outputs = width, layers, outputs
        self.cost = max(1, width * layers // SMALL)
        self.names = tuple(f"{kind}{i}" for i in range(layers + 1) for kind in ("weight", "bias"))

    def init(self, channels: int, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        widths = [channels, *[self.width] * self.layers, self.outputs]
        raw = {}
        for i, (inside, outside) in enumerate(itertools.pairwise(widths)):
            gain = math.sqrt(2 / inside) if i < self.layers else 0.1 / math.sqrt(inside)
            raw[f"weight{i}"] = gain * torch.randn(scenes, inside, outside, generator=generator)
            raw[f"bias{i}"] = torch.zeros(scenes, 1, outside)
        return raw

    def __call__(self, raw: Mapping[str, Tensor], features: Float[Tensor, "B N C"]) -> Float[Tensor, "B N D"]:
        x = features
        for i in range(self.layers + 1):
            x = torch.baddbmm(raw[f"bias{i}"], x, raw[f"weight{i}"])
            x = x.relu() if i < self.layers else x
        return x


class Direct:
    """The first four features are the density and the colour."""

    names = ()
    cost = 1

    def init(self, channels: int, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        if channels < 4:
            raise UserError(f"representation.encoding gives {channels} channels; density and colour need 4")
        return {}

    def __call__(self, raw: Mapping[str, Tensor], features: Float[Tensor, "B N C"]) -> Float[Tensor, "B N 4"]:
        return features[..., :4]
