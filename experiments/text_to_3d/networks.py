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


def residual_trunk() -> tuple[nn.Module, nn.Module, int, int]:
    """Stem and body with their widths: 64² pixels to 32² x 24, and on to 4² x 192."""
    stem = nn.Sequential(nn.Conv2d(3, 24, 5, 2, 2, bias=False), nn.BatchNorm2d(24), nn.ReLU())
    blocks = [Residual(24, 48, 2), Residual(48, 96, 2), Residual(96, 128, 2)]
    return stem, nn.Sequential(*blocks, nn.Conv2d(128, 192, 1), nn.ReLU()), 24, 192


def convnext_trunk() -> tuple[nn.Module, nn.Module, int, int]:
    """Stem and body with their widths: 64² pixels to 16² x 48, and on to 4² x 160."""
    stages = [ConvNeXtBlock(48), nn.BatchNorm2d(48), nn.Conv2d(48, 96, 2, 2), *(ConvNeXtBlock(96) for _ in range(3))]
    body = nn.Sequential(*stages, nn.BatchNorm2d(96), nn.Conv2d(96, 160, 2, 2), nn.GELU())
    return nn.Conv2d(3, 48, 4, 4), body, 48, 160


TRUNKS = {"a": residual_trunk, "b": convnext_trunk}


class ColourHead(nn.Module):
    """Looks for each slot's part in a 32² map, then names the colour of what it found there."""

    def __init__(self, fine: int, deep: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(deep, 32, 1)
        self.where = nn.Sequential(nn.Conv2d(32 + fine + 3, 48, 1), nn.ReLU(), nn.Conv2d(48, SLOTS, 1))
        self.what = nn.Sequential(nn.Linear(fine + 3 + deep, 128), nn.ReLU(), nn.Linear(128, len(COLOUR_NAMES)))

    def forward(self, x: Tensor, fine: Tensor, deep: Tensor) -> Float[Tensor, "N 2 C"]:
        fine, context = (
            F.interpolate(y, size=(32, 32), mode="bilinear", align_corners=False) for y in (fine, self.reduce(deep))
        )
        local = torch.cat([fine, F.avg_pool2d(x, 2)], 1)
        weights = self.where(torch.cat([context, local], 1)).flatten(2).softmax(-1)
        found = torch.einsum("nsp,ncp->nsc", weights, local.flatten(2))
        return self.what(torch.cat([found, deep.mean((2, 3))[:, None].expand(-1, SLOTS, -1)], -1))


class Recogniser(nn.Module):
    """Subject (or "none"), colours of two parts, and azimuth of 64² pictures in [0, 1]."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem, self.body, fine, width = TRUNKS[kind]()
        self.subject = nn.Linear(width, len(NAMES))
        self.colour = ColourHead(fine, width)
        where = [nn.Conv2d(width, 48, 1), nn.ReLU(), nn.Flatten(), nn.Linear(48 * 4 * 4, 160), nn.ReLU()]
        self.direction = nn.Sequential(*where, nn.Linear(160, 2))

    def forward(self, x: Float[Tensor, "N 3 64 64"]) -> Reading:
        x = 2 * x - 1
        fine = self.stem(x)
        deep = self.body(fine)
        features = deep.mean((2, 3))
        return Reading(features, self.subject(features), self.colour(x, fine, deep), self.direction(deep))

    @torch.no_grad()
    def read(self, pictures: Float[Tensor, "N 3 H W"]) -> Reading:
        """Readings of any number of square pictures of 64 pixels or more, averaged down to 64."""
        self.eval()
        small = F.interpolate(pictures, size=(64, 64), mode="area")
        parts = [self(chunk) for chunk in small.split(256)]
        return Reading(
            *(torch.cat([getattr(p, name) for p in parts]) for name in ("features", "subject", "colour", "direction"))
        )
