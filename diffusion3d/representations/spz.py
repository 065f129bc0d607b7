"""SPZ, Niantic's compressed Gaussians: a gzip stream of a 16-byte header and one block of bytes per attribute.

SPZ's axes are right, up, back, as glTF's: our x (front) is its z, our y its x, our z (up) its y.
"""

from __future__ import annotations

import gzip
import io
import struct
import zlib
from pathlib import Path

import numpy as np
import torch.nn.functional as F

from diffusion3d.errors import UserError
from diffusion3d.representations.splats import DEGREES, SURE, Splats, checked, file_bytes

HEADER = struct.Struct("<IIIBBBB")
MAGIC = 0x5053474E
MOST = 10_000_000
"""Gaussians; Niantic's reader takes no more either."""
COLOR_SCALE = 0.15
SH_STEPS = (8, 16)
"""Harmonics of degree 1, and of higher ones, are rounded to multiples of this, so that they compress."""
TO_SPZ, FROM_SPZ = (1, 2, 0), (2, 0, 1)


def write_spz(splats: Splats) -> bytes:
    """Version 2, which all readers know: 24-bit fixed-point means, 8 bits for everything else."""
    splats = splats.turned(TO_SPZ)
    count = len(splats.means)
    means, scales = splats.means.double().numpy(), splats.log_scales.numpy()
    bits = int(np.clip(np.floor(np.log2((2**23 - 1) / max(np.abs(means).max(), 1e-3))), 0, 20))
    fixed = np.clip(np.round(means * 2**bits), -(2**23), 2**23 - 1).astype("<i4")
    quats = F.normalize(splats.quats, dim=-1).numpy()
    vector = quats[:, 1:] * np.where(quats[:, :1] < 0, -1, 1)
    blocks = [
        fixed[..., None].view(np.uint8)[..., :3],
        _byte(splats.opacity_logits.sigmoid().numpy() * 255),
        _byte((splats.sh[:, 0].numpy() * COLOR_SCALE + 0.5) * 255),
        _byte((scales + 10) * 16),
        _byte((vector + 1) * 127.5),
    ]
    sh = splats.sh[:, 1:].numpy()
    step = np.where(np.arange(sh.shape[1]) < 3, *SH_STEPS)[:, None]
    blocks.append(_byte(np.floor((np.round(sh * 128) + 128 + step // 2) / step) * step))
    header = HEADER.pack(MAGIC, 2, count, splats.degree, bits, 0, 0)
    return gzip.compress(header + b"".join(block.tobytes() for block in blocks), mtime=0)


def read_spz(path: Path) -> Splats:
    """The Gaussians of an SPZ file of version 2 or 3.

    Raises:
        UserError: it cannot be read, is no such file, is damaged, or is shorter than its header says.
    """
    stream = gzip.GzipFile(fileobj=io.BytesIO(file_bytes(path)))
    header = _read(path, stream, HEADER.size)
    magic, version, count, degree, bits, _, _ = HEADER.unpack(header)
    if magic != MAGIC:
        raise UserError(f"{path} is no SPZ file")
    if version not in (2, 3) or degree not in DEGREES.values() or bits > 24:
        raise UserError(
            f"{path} is SPZ version {version} of degree {degree}; versions 2 and 3 up to degree 3 can be read"
        )
    if count > MOST:
        raise UserError(f"{path} promises {count} Gaussians; at most {MOST} are read")

    def block(width: int) -> np.ndarray:
        return np.frombuffer(_read(path, stream, count * width), np.uint8).reshape(count, width)

    packed = np.pad(block(9).reshape(count, 3, 3), ((0, 0), (0, 0), (1, 0)))
    means = (np.ascontiguousarray(packed).view("<i4")[..., 0] >> 8) / 2.0**bits
    opacities = np.clip(block(1)[:, 0] / 255, SURE, 1 - SURE)
    dc = (block(3).astype(np.float32) / 255 - 0.5) / COLOR_SCALE
    log_scales = block(3) / 16 - 10
    quats = _first_three(block(3)) if version == 2 else _smallest_three(block(4))
    higher = (degree + 1) ** 2 - 1
    sh = (block(3 * higher).reshape(count, higher, 3).astype(np.float32) - 128) / 128
    columns = {
        "means": means,
        "log_scales": log_scales,
        "quats": quats,
        "opacity_logits": np.log(opacities / (1 - opacities)),
        "sh": np.concatenate([dc[:, None], sh], 1),
    }
    return checked(path, columns).turned(FROM_SPZ)


def _byte(value: np.ndarray) -> np.ndarray:
    return np.clip(np.round(value), 0, 255).astype(np.uint8)


def _first_three(packed: np.ndarray) -> np.ndarray:
    """Version 2: the vector part of a quaternion with w >= 0."""
    vector = packed / 127.5 - 1
    return np.concatenate([np.sqrt(np.maximum(0, 1 - (vector**2).sum(1, keepdims=True))), vector], 1)


def _smallest_three(packed: np.ndarray) -> np.ndarray:
    """Version 3: 2 bits say which of (x, y, z, w) is the largest and left out; the others have a sign bit and 9 bits."""
    word = np.ascontiguousarray(packed).view("<u4")[:, 0].astype(np.int64)
    largest = word >> 30
    quats = np.zeros((len(word), 4))
    for axis in reversed(range(4)):
        stored = largest != axis
        part = (word & 511) / 511 * np.sqrt(0.5) * np.where(word & 512, -1, 1)
        quats[stored, axis] = part[stored]
        word = np.where(stored, word >> 10, word)
    rows = np.arange(len(word))
    quats[rows, largest] = np.sqrt(np.maximum(0, 1 - (quats**2).sum(1)))
    return quats[:, [3, 0, 1, 2]]


def _read(path: Path, stream: gzip.GzipFile, size: int) -> bytes:
    try:
        content = stream.read(size)
    except (OSError, EOFError, zlib.error):
        raise UserError(f"{path} is no SPZ file, cut off or damaged: its gzip stream cannot be read") from None
    if len(content) < size:
        raise UserError(f"{path} is cut off or its header lies: it ends before its Gaussians do")
    return content
