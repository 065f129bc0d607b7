"""How alike two pictures are."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

WINDOW = 11
SIGMA = 1.5


def psnr(
    images: Float[Tensor, "N 3 H W"], truth: Float[Tensor, "N 3 H W"], mask: Bool[Tensor, "N 1 H W"] | None = None
) -> Float[Tensor, " N"]:
    """Peak signal-to-noise ratio of images in [0, 1], dB; NaN where the mask is empty."""
    error = (images - truth).square()
    if mask is None:
        return -10 * error.flatten(1).mean(1).clamp(min=1e-12).log10()
    inside = mask.expand_as(error)
    mean = (error * inside).flatten(1).sum(1) / inside.flatten(1).sum(1)
    return -10 * mean.clamp(min=1e-12).log10()


def ssim(images: Float[Tensor, "N 3 H W"], truth: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"]:
    """Structural similarity of images in [0, 1] (Wang et al. 2004), mean over channels and places. Differentiable.

    The window is an 11 x 11 Gaussian of sigma 1.5, at the places where it fits whole.

    Raises:
        ValueError: the images are smaller than the window.
    """
    if min(images.shape[-2:]) < WINDOW:
        raise ValueError(f"ssim needs images of at least {WINDOW} x {WINDOW} pixels, got {tuple(images.shape[-2:])}")
    x = torch.arange(WINDOW, dtype=images.dtype, device=images.device) - WINDOW // 2
    line = torch.exp(-x.square() / (2 * SIGMA**2))
    line = line / line.sum()

    def blur(planes: Tensor) -> Tensor:
        flat = planes.flatten(0, 1)[:, None]
        return F.conv2d(F.conv2d(flat, line.view(1, 1, -1, 1)), line.view(1, 1, 1, -1)).view(*planes.shape[:2], -1)

    mean_x, mean_y = blur(images), blur(truth)
    var_x = blur(images.square()) - mean_x.square()
    var_y = blur(truth.square()) - mean_y.square()
    both = blur(images * truth) - mean_x * mean_y
    c1, c2 = 0.01**2, 0.03**2
    top = (2 * mean_x * mean_y + c1) * (2 * both + c2)
    return (top / ((mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2))).mean((1, 2))
