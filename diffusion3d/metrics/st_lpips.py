"""ST-LPIPS, the shift-tolerant learned perceptual distance (Ghildyal & Liu 2022); its numbers are not those of LPIPS."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Mapping
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SHA256 = "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee"
PACKAGE = "stlpips_pytorch"
FILE = "weights/vST0.0/alex_shift_tolerant.pth"
CONVOLUTIONS = (("slice1.0", 2), ("slice2.5", 2), ("slice3.9", 1), ("slice4.11", 1), ("slice5.13", 1))
"""Of AlexNet, with their paddings."""
SMALLEST = 32
"""Least side of its images, pixels."""


@functools.cache
def weights() -> Mapping[str, Tensor] | None:
    """The weights of the pip package `stlpips-pytorch` 0.0.2, which is never imported; None where it is not installed.

    Raises:
        ValueError: they are not the expected ones.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(spec.submodule_search_locations[0]) / FILE
    digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "missing"
    if digest != SHA256:
        raise ValueError(f"{path} is not that of stlpips-pytorch 0.0.2 (sha256 {digest[:12]}…): reinstall it")
    return torch.load(path, map_location="cpu", weights_only=True)


@torch.no_grad()
def st_lpips(images: Float[Tensor, "N 3 H W"], truth: Float[Tensor, "N 3 H W"]) -> Float[Tensor, " N"] | None:
    """Distance of images in [0, 1], AlexNet trunk; None where the weights are not installed."""
    found = weights()
    if found is None:
        return None
    state = {name: value.to(images.device) for name, value in found.items()}
    total = images.new_zeros(len(images))
    for i, (one, other) in enumerate(zip(_features(images, state), _features(truth, state), strict=True)):
        difference = (one - other).square()
        total = total + F.conv2d(difference, state[f"lin{i}.model.1.weight"]).mean((1, 2, 3))
    return total


def _features(images: Float[Tensor, "N 3 H W"], state: Mapping[str, Tensor]) -> list[Float[Tensor, "N C h w"]]:
    """Unit-length features after each of the five rectified convolutions.

    Every stride is 1; where AlexNet halves, a maximum over 3 x 3 places is blurred, padded by 2, and then halved.
    """
    x = (2 * images - 1 - state["scaling_layer.shift"]) / state["scaling_layer.scale"]
    features = []
    for i, (name, padding) in enumerate(CONVOLUTIONS):
        if i in (1, 2):
            x = _halved(F.max_pool2d(x, 3, 1), state)
        x = F.conv2d(x, state[f"net.{name}.weight"], state[f"net.{name}.bias"], padding=padding)
        x = (_halved(x, state) if i == 0 else x).relu()
        features.append(x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10))
    return features


def _halved(x: Float[Tensor, "N C h w"], state: Mapping[str, Tensor]) -> Float[Tensor, "N C g v"]:
    blur = state["net.slice1.1.filt"][:1].expand(x.shape[1], -1, -1, -1)
    return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), blur, stride=2, groups=x.shape[1])
