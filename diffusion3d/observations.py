"""What was seen of a scene: files that become posed views, held to by the terms of `diffusion3d.guidance.measurements`."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from PIL import Image, ImageChops
from torch import Tensor

from diffusion3d.cameras import orbit
from diffusion3d.data.images import UNREADABLE, open_image
from diffusion3d.errors import UserError
from diffusion3d.guidance.measurements import Measurement, Observation
from diffusion3d.views import PosedViews

GREY = ("L", "I", "I;16", "I;16L", "I;16B", "I;16N", "F")
"""Pillow's modes of one channel that holds numbers."""


def photograph(
    image: str,
    terms: Mapping[str, Measurement | None],
    normals: bool = False,
    mask: str | None = None,
    depth: str | None = None,
    azimuth: float = 0.0,
    elevation: float = 0.0,
    distance: float = 3.0,
    fov: float = 40.0,
    size: int = 128,
) -> Observation:
    """A picture of the scene from a known camera on a sphere around the origin, which it looks at.

    Args:
        image: file. Its transparency says where the object is.
        terms, normals: of `Observation`.
        mask: file of the same size, white where the object is; beside transparency both must say so.
        depth: file of the same size with one channel (8 or 16 bits, or floating point), larger is farther, of unknown scale
            and shift; it counts where the object is. The views' depth is it, moved to 1 … 2.
        azimuth, elevation: degrees, see `diffusion3d.cameras`.
        distance: world units.
        fov: vertical field of view, degrees.
        size: longer side that the picture is scaled to, pixels.

    Raises:
        UserError: a file cannot be read or has another size than the picture, nothing says where the object is, it is nowhere,
            its depth is the same everywhere, or a number makes no camera.
    """
    if not (
        -90 < elevation < 90 and 0 < distance < math.inf and 0 < fov < 180 and size >= 8 and math.isfinite(azimuth)
    ):
        raise UserError(
            f"observation: elevation={elevation} must lie in (-90, 90), fov={fov} in (0, 180), distance={distance} be "
            f"positive, size={size} at least 8, azimuth={azimuth} finite"
        )
    path = Path(image).expanduser()
    picture = open_image(path, str(path))
    cut = _cut_out(picture, path, None if mask is None else Path(mask).expanduser())
    factor = size / max(picture.size)
    width, height = (max(1, round(side * factor)) for side in picture.size)
    method = Image.Resampling.BOX if factor <= 1 else Image.Resampling.BICUBIC
    pixels = torch.from_numpy(np.array(cut.resize((width, height), method))).permute(2, 0, 1)[None, None] / 255
    alpha = pixels[:, :, 3:]
    views = PosedViews(
        orbit(torch.tensor([[azimuth]]), torch.tensor([[elevation]]), distance, fov, height, width),
        images=pixels[:, :, :3].contiguous(),
        alpha=alpha.contiguous(),
        depth=None if depth is None else _read_depth(Path(depth).expanduser(), path, picture.size, alpha > 0.5),
    )
    return Observation(views, terms, normals)


def _cut_out(picture: Image.Image, path: Path, mask: Path | None) -> Image.Image:
    """The object alone, in mode RGBa, which is premultiplied."""
    picture = picture.convert("RGBA")
    alpha = picture.getchannel("A")
    if mask is not None:
        shape = open_image(mask, str(mask))
        _check_size(mask, shape.size, path, picture.size)
        shape = Image.alpha_composite(Image.new("RGBA", shape.size, "black"), shape.convert("RGBA"))
        alpha = ImageChops.multiply(alpha, shape.convert("L"))
    elif np.asarray(alpha).min() == 255:
        raise UserError(
            f"{path} has no transparency, so nothing says where the object is: give a picture with its background cut out, or "
            "observation.mask=FILE, white where the object is"
        )
    if np.asarray(alpha).max() < 128:
        raise UserError(
            f"{mask or path} leaves nothing of the object: no pixel is more than half {'white' if mask else 'opaque'}"
        )
    picture.putalpha(alpha)
    return picture.convert("RGBa")


def _read_depth(
    path: Path, image: Path, size: tuple[int, int], inside: Bool[Tensor, "1 1 1 H W"]
) -> Float[Tensor, "1 1 1 H W"]:
    """1 … 2 from the nearest to the farthest point of the object, 0 outside."""
    try:
        with Image.open(path) as picture:
            _check_size(path, picture.size, image, size)
            if picture.mode not in GREY:
                raise UserError(
                    f"{path} is a {picture.mode} picture; a depth map has one channel of 8 or 16 bits, or of floats"
                )
            values = torch.from_numpy(np.asarray(picture).astype(np.float32))
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None
    values = F.interpolate(values[None, None], inside.shape[-2:], mode="nearest-exact")[None]
    inside = inside & values.isfinite()
    seen = values[inside]
    if not len(seen) or seen.max() <= seen.min():
        raise UserError(f"{path} holds the same depth, or none, everywhere on the object")
    return torch.where(inside, 1 + (values - seen.min()) / (seen.max() - seen.min()), 0.0)


def _check_size(path: Path, size: tuple[int, int], image: Path, expected: tuple[int, int]) -> None:
    if size != expected:
        raise UserError(
            f"{path} has {size[0]} x {size[1]} pixels and {image} {expected[0]} x {expected[1]}; they must have the same size"
        )
