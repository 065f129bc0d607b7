"""`.splat`, the 32 bytes per Gaussian of antimatter15/splat: colours of degree 0, axes as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch.nn.functional as F

from diffusion3d.errors import UserError
from diffusion3d.representations.splats import SH_C0, SURE, Splats, checked, file_bytes

ROW = np.dtype([("mean", "<f4", 3), ("scale", "<f4", 3), ("rgba", "u1", 4), ("quat", "u1", 4)])


def write_splat(splats: Splats) -> bytes:
    """The Gaussians that matter most (opacity times volume) come first, as viewers show them while they load."""
    importance = splats.opacity_logits.sigmoid().log() + splats.log_scales.sum(1)
    order = importance.argsort(descending=True, stable=True)
    opacities = splats.opacity_logits.sigmoid()[order, None].numpy()
    rows = np.zeros(len(order), ROW)
    rows["mean"] = splats.means[order].numpy()
    rows["scale"] = splats.log_scales[order].exp().numpy()
    rows["rgba"] = np.round(255 * np.concatenate([splats.colors[order].numpy(), opacities], 1))
    rows["quat"] = np.clip(np.round(128 * F.normalize(splats.quats[order], dim=-1).numpy() + 128), 0, 255)
    return rows.tobytes()


def read_splat(path: Path) -> Splats:
    """The Gaussians of a `.splat` file.

    Raises:
        UserError: it cannot be read, or its content makes no sense.
    """
    data = file_bytes(path)
    if len(data) % ROW.itemsize:
        raise UserError(f"{path} is no .splat file or cut off: its {len(data)} bytes are no multiple of {ROW.itemsize}")
    rows = np.frombuffer(data, ROW)
    if not (rows["scale"] >= 0).all():
        raise UserError(f"{path} is no .splat file or damaged: it has scales that are negative or NaN")
    opacities = np.clip(rows["rgba"][:, 3] / 255, SURE, 1 - SURE)
    columns = {
        "means": rows["mean"],
        "log_scales": np.log(np.maximum(rows["scale"], np.finfo(np.float32).tiny)),
        "quats": (rows["quat"].astype(np.float32) - 128) / 128,
        "opacity_logits": np.log(opacities / (1 - opacities)),
        "sh": ((rows["rgba"][:, None, :3] / 255) - 0.5) / SH_C0,
    }
    return checked(path, columns)
