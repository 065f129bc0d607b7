"""Pictures as 8-bit pixels."""

from __future__ import annotations

import io
import struct
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from diffusion3d.errors import UserError

DIRECT = ("1", "L", "P", "LA", "PA", "La", "RGB", "RGBA", "RGBa", "RGBX")
"""Pillow's modes that convert to RGB or RGBA without a loss or a choice."""
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, struct.error, Image.DecompressionBombError)


def open_image(source: Path | io.BytesIO, name: str) -> Image.Image:
    """A picture in mode RGB, or RGBA where it has transparency. Its orientation is that of the pixels in the file, as COLMAP
    and Blender see them; an EXIF rotation is left alone.

    Args:
        source: file.
        name: for messages.

    Raises:
        UserError: it is missing, damaged, cut off, or in a colour space whose conversion needs a choice (CMYK, Lab, float).
    """
    try:
        with Image.open(source) as image:
            return to_rgb(image, name)
    except UNREADABLE as error:
        raise UserError(f"{name} is not a readable image: {error}") from None


def to_rgb(image: Image.Image, name: str) -> Image.Image:
    """An opened picture in mode RGB, or RGBA where it has transparency; 16-bit grey is scaled, palettes are expanded.

    Raises:
        UserError: see `open_image`.
    """
    try:
        image.load()
    except UNREADABLE as error:
        raise UserError(f"{name} is not a readable image: {error}") from None
    if image.mode in ("I", "I;16", "I;16L", "I;16B", "I;16N"):
        grey = np.asarray(image).astype(np.int64)
        if grey.min() < 0 or grey.max() > 65535:
            raise UserError(f"{name} holds 32-bit integers; save it with 8 or 16 bits a channel")
        return Image.fromarray((grey / 257).round().astype(np.uint8)).convert("RGB")
    if image.mode not in DIRECT:
        raise UserError(f"{name} is a {image.mode} image; save it as RGB, since converting it needs a colour profile")
    transparent = image.mode in ("LA", "PA", "La", "RGBA", "RGBa") or "transparency" in image.info
    return image.convert("RGBA" if transparent else "RGB")


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of a picture, of which only the header is read.

    Raises:
        UserError: it has none.
    """
    try:
        with Image.open(path) as image:
            return image.size
    except UNREADABLE as error:
        raise UserError(f"{path} is not a readable image: {error}") from None


def read_pixels(path: Path, width: int, height: int) -> UInt8[np.ndarray, "H W C"]:
    """A picture at the wanted size: 3 channels, or 4 where it has transparency, then premultiplied. Averaged if it is smaller
    than the file's, interpolated if it is larger.

    Raises:
        UserError: it cannot be read.
    """
    image = open_image(path, str(path))
    if image.mode == "RGBA":
        image = image.convert("RGBa")
    if image.size != (width, height):
        shrink = width <= image.width and height <= image.height
        image = image.resize((width, height), Image.Resampling.BOX if shrink else Image.Resampling.BICUBIC)
    return np.asarray(image)
