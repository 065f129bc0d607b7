"""Files of Gaussians by their suffix."""

from __future__ import annotations

from pathlib import Path

from diffusion3d.errors import UserError
from diffusion3d.representations.dot_splat import read_splat, write_splat
from diffusion3d.representations.ply import read_ply, write_ply
from diffusion3d.representations.splats import Splats
from diffusion3d.representations.spz import read_spz, write_spz

READERS = {"ply": read_ply, "spz": read_spz, "splat": read_splat}
WRITERS = {"ply": write_ply, "spz": write_spz, "splat": write_splat}


def read_splats(path: Path) -> Splats:
    """The Gaussians of a 3DGS PLY, an SPZ or a `.splat` file.

    Raises:
        UserError: another suffix, or what the reader of the format refuses.
    """
    suffix = path.suffix.lower().removeprefix(".")
    if suffix not in READERS:
        raise UserError(f"{path}: Gaussians are read from .{', .'.join(READERS)} files")
    return READERS[suffix](path)
