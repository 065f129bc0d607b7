"""Azimuths read off pictures against those of the cameras. Degrees throughout."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def azimuth_error(read: Float[Tensor, "*S"], true: Float[Tensor, "*S"]) -> Float[Tensor, "*S"]:
    """Absolute angle between two azimuths, in [0, 180]."""
    return ((read - true + 180) % 360 - 180).abs()


def median_and_flipped(read: Float[Tensor, " N"], true: Float[Tensor, " N"]) -> tuple[float, float]:
    """Median error, and the share of views that are off by more than 90°."""
    error = azimuth_error(read, true)
    return float(error.median()), float((error > 90).float().mean())


def janus_share(read: Float[Tensor, " N"], true: Float[Tensor, " N"]) -> float:
    """The share of back views that show a front: the many faces of Janus.

    A back view is one whose camera lies more than 90° from the front (azimuth 0). It shows a front when the azimuth read off
    it lies less than 90° from the front and is off by more than 90°. Views at the sides that are read a little too far
    forward therefore do not count.

    Returns:
        In [0, 1]; NaN without back views.
    """
    front = torch.zeros_like(true)
    back = azimuth_error(true, front) > 90 + 1e-3
    shows_front = (azimuth_error(read, front) < 90) & (azimuth_error(read, true) > 90)
    return float(shows_front[back].float().mean())
