"""Some pixels of images."""

from __future__ import annotations

from jaxtyping import Float, Int
from torch import Tensor


def at(images: Float[Tensor, "B V C H W"], pixels: Int[Tensor, "B V P"] | None) -> Float[Tensor, "B V C *P"]:
    """What images show at flat indices (row by row), or the images where there are none."""
    if pixels is None:
        return images
    return images.flatten(3).gather(3, pixels[:, :, None].expand(-1, -1, images.shape[2], -1))
