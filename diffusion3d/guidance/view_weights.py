"""Weights of prompts that change with the view: Perp-Neg over views (Armandpour et al. 2023, section 4.2).

A prior that sees no camera likes fronts and draws one everywhere. What it says of "front view" and of "side view" is pushed
away, by weights that grow as a view turns away from these sides: a exp(-b r) + c, r from 0 to 1, as published.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.cameras import Cameras

OVERHEAD = 60.0
"""Elevation from which on a view has no side, degrees."""


def decay(r: Tensor, a: float, b: float, c: float) -> Tensor:
    return a * torch.exp(-b * r) + c


def away_from_front(cameras: Cameras) -> Float[Tensor, "B V"]:
    """Of the front's prompt: 0 at the front, -1.57 at the sides, -1.97 at the back."""
    turned = cameras.azimuth.abs() / 90
    weight = torch.where(turned < 1, decay(1 - turned, 4.0, 0.5, -2.426), decay(2 - turned, 1.0, 0.5, 0.967))
    return _level(-weight, cameras)


def away_from_side(cameras: Cameras) -> Float[Tensor, "B V"]:
    """Of the side's prompt: 0 at the sides, -1.57 at the front, -0.39 at the back."""
    turned = cameras.azimuth.abs() / 90
    weight = torch.where(turned < 1, decay(turned, 4.0, 0.5, -2.426), decay(2 - turned, 1.0, 0.5, -0.606))
    return _level(-weight, cameras)


def _level(weight: Tensor, cameras: Cameras) -> Tensor:
    return torch.where(cameras.elevation < OVERHEAD, weight, torch.zeros_like(weight))


VIEW_WEIGHTS: dict[str, Callable[[Cameras], Tensor]] = {
    "away_from_front": away_from_front,
    "away_from_side": away_from_side,
}
