"""Two recognisers of toybox pictures with the same heads and unlike trunks: a residual network and a ConvNeXt."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.data.toybox.parts import COLOURS
from diffusion3d.data.toybox.subjects import SUBJECTS

NAMES = (*(subject.name for subject in SUBJECTS), "none")
NONE = len(SUBJECTS)
COLOUR_NAMES = tuple(COLOURS)
SLOTS = 2
"""Colours are read for the first two parts of a subject that have a choice."""


@dataclass(frozen=True)
class Reading:
    """What a recogniser says of N pictures."""

    features: Float[Tensor, "N D"]
    subject: Float[Tensor, "N S"]
    colour: Float[Tensor, "N 2 C"]
    direction: Float[Tensor, "N 2"]

    @property
    def azimuth(self) -> Float[Tensor, " N"]:
        """Degrees, as if the picture's subject were asymmetric."""
        return torch.rad2deg(torch.atan2(self.direction[:, 1], self.direction[:, 0]))


class Residual(nn.Module):
    """Two 3x3 convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.shortcut(x))


class ConvNeXtBlock(nn.Module):
    """A depthwise convolution and a wide pointwise network (Liu et al. 2022)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.LayerNorm(width)
        self.wide = nn.Linear(width, 4 * width)
        self.narrow = nn.Linear(4 * width, width)
        self.scale = nn.Parameter(torch.full((width,), 0.1))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        return x + (self.scale * self.narrow(F.gelu(self.wide(y)))).permute(0, 3, 1, 2)


def residual_trunk() -> tuple[nn.Module, int]:
    """64² pixels to 4² x 192 features."""
    stem = [nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU()]
    blocks = [Residual(24, 48, 2), Residual(48, 96, 2), Residual(96, 128, 2)]
    return nn.Sequential(*stem, *blocks, nn.Conv2d(128, 192, 1), nn.ReLU()), 192


def convnext_trunk() -> tuple[nn.Module, int]:
    """64² pixels to 4² x 160 features."""
    stages = [nn.Conv2d(3, 48, 4, 4), ConvNeXtBlock(48), nn.BatchNorm2d(48), nn.Conv2d(48, 96, 2, 2)]
    stages += [ConvNeXtBlock(96) for _ in range(3)]
    return nn.Sequential(*stages, nn.BatchNorm2d(96), nn.Conv2d(96, 160, 2, 2), nn.GELU()), 160


TRUNKS = {"a": residual_trunk, "b": convnext_trunk}


class Recogniser(nn.Module):
    """Subject (or "none"), colours of two parts, and azimuth of 64² pictures in [0, 1]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.trunk, width = TRUNKS[kind]()
        self.subject = nn.Linear(width, len(NAMES))
        self.colour = nn.Linear(width, SLOTS * len(COLOUR_NAMES))
        where = [nn.Conv2d(width, 32, 1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 4 * 4, 128), nn.ReLU()]
        self.direction = nn.Sequential(*where, nn.Linear(128, 2))

    def forward(self, x: Float[Tensor, "N 3 64 64"]) -> Reading:
        grid = self.trunk(2 * x - 1)
        features = grid.mean((2, 3))
        colour = self.colour(features).unflatten(1, (SLOTS, -1))
        return Reading(features, self.subject(features), colour, self.direction(grid))

    @torch.no_grad()
    def read(self, pictures: Float[Tensor, "N 3 H W"]) -> Reading:
        """Readings of any number of square pictures of 64 pixels or more, averaged down to 64."""
        self.eval()
        small = F.interpolate(pictures, size=(64, 64), mode="area")
        parts = [self(chunk) for chunk in small.split(256)]
        return Reading(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("features", "subject", "colour", "direction"))
        )
