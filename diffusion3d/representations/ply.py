"""The PLY layout of 3D Gaussian splatting (Kerbl et al. 2023): log scales, logit opacities, spherical harmonics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.nn.functional as F

from diffusion3d.errors import UserError
from diffusion3d.representations.splats import DEGREES, Splats, checked, file_bytes

FIELDS = {
    "means": ("x", "y", "z"),
    "dc": ("f_dc_0", "f_dc_1", "f_dc_2"),
    "opacity_logits": ("opacity",),
    "log_scales": ("scale_0", "scale_1", "scale_2"),
    "quats": ("rot_0", "rot_1", "rot_2", "rot_3"),
}
NORMALS = ("nx", "ny", "nz")
TYPES = {
    "char": "i1",
    "uchar": "u1",
    "short": "i2",
    "ushort": "u2",
    "int": "i4",
    "uint": "u4",
    "float": "f4",
    "double": "f8",
}
TYPES |= {"int8": "i1", "uint8": "u1", "int16": "i2", "uint16": "u2", "int32": "i4", "uint32": "u4"}
TYPES |= {"float32": "f4", "float64": "f8"}
ORDERS = {"binary_little_endian": "<", "binary_big_endian": ">"}
LONGEST_HEADER = 2**16


def write_ply(splats: Splats) -> bytes:
    """Binary little-endian PLY, axes as they are."""
    count = len(splats.means)
    rest = splats.sh[:, 1:].mT.reshape(count, -1)  # channel by channel
    columns = [
        (FIELDS["means"], splats.means),
        (NORMALS, splats.means * 0),
        (FIELDS["dc"], splats.sh[:, 0]),
        ([f"f_rest_{i}" for i in range(rest.shape[1])], rest),
        (FIELDS["opacity_logits"], splats.opacity_logits[:, None]),
        (FIELDS["log_scales"], splats.log_scales),
        (FIELDS["quats"], F.normalize(splats.quats, dim=-1)),
    ]
    rows = np.concatenate([value.detach().float().cpu().numpy() for _, value in columns], 1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {count}"]
    header += [f"property float {name}" for names, _ in columns for name in names] + ["end_header", ""]
    return "\n".join(header).encode("ascii") + rows.tobytes()


def read_ply(path: Path) -> Splats:
    """The Gaussians of a binary 3DGS PLY.

    Raises:
        UserError: it cannot be read, is no such PLY, is damaged, or is shorter than its header says.
    """
    data = file_bytes(path)
    start, count, dtype = _vertices(path, data)
    names = dtype.names or ()
    missing = [name for group in FIELDS.values() for name in group if name not in names]
    if missing:
        raise UserError(f"{path} is no 3D Gaussian splatting PLY: its vertices lack {', '.join(missing)}")
    given = {name for name in names if name.startswith("f_rest_")}
    harmonics = 1 + len(given) // 3
    rest = [f"f_rest_{i}" for i in range(3 * (harmonics - 1))]
    if harmonics not in DEGREES or given != set(rest):
        raise UserError(f"{path} has {len(given)} fields f_rest_*; 0, 9, 24 or 45 are possible (degree 0 to 3)")
    if count < 0 or start + count * dtype.itemsize > len(data):
        held = (len(data) - start) // dtype.itemsize
        raise UserError(f"{path} is cut off or its header lies: it promises {count} Gaussians and has room for {held}")
    rows = np.frombuffer(data, dtype, count, start)

    def take(group: tuple[str, ...] | list[str]) -> np.ndarray:
        return (
            np.stack([rows[name].astype(np.float32) for name in group], 1)
            if group
            else np.zeros((count, 0), np.float32)
        )

    columns = {key: take(group) for key, group in FIELDS.items()}
    higher = take(rest).reshape(count, 3, harmonics - 1).transpose(0, 2, 1)
    columns["sh"] = np.concatenate([columns.pop("dc")[:, None], higher], 1)
    columns["opacity_logits"] = columns["opacity_logits"][:, 0]
    return checked(path, columns)


def _vertices(path: Path, data: bytes) -> tuple[int, int, np.dtype]:
    """Where the vertices begin, how many the header promises, and what one is made of."""
    end = data.find(b"end_header", 0, LONGEST_HEADER)
    newline = data.find(b"\n", end)
    if not data.startswith(b"ply") or end < 0 or newline < 0:
        raise UserError(f"{path} is no PLY file")
    order, start, element, count = None, newline + 1, "", 0
    fields: list[tuple[str, str]] = []
    try:
        for line in data[:end].decode("ascii").splitlines()[1:]:
            words = line.split()
            if words[:1] == ["format"]:
                if words[1] not in ORDERS:
                    raise UserError(f"{path} is a PLY of the format {words[1]}; it must be binary")
                order = ORDERS[words[1]]
            elif words[:1] == ["element"]:
                if element == "vertex":
                    break
                start += max(count, 0) * np.dtype(fields).itemsize
                element, count, fields = words[1], int(words[2]), []
            elif words[:1] == ["property"]:
                fields.append((words[-1], f"{order}{TYPES[words[1]]}"))
        if element != "vertex":
            raise ValueError
        return start, count, np.dtype(fields)
    except (IndexError, KeyError, TypeError, ValueError):
        raise UserError(f"{path} is damaged: its PLY header makes no sense") from None
