"""The PLY layout that 3D Gaussian splatting viewers read."""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

SH_C0 = 0.28209479177387814
"""Degree-0 spherical harmonic: colour = 0.5 + SH_C0 f_dc."""


def splat_ply(
    means: Float[Tensor, "N 3"],
    log_scales: Float[Tensor, "N 3"],
    quats: Float[Tensor, "N 4"],
    opacity_logits: Float[Tensor, " N"],
    colors: Float[Tensor, "N 3"],
) -> bytes:
    """Binary little-endian PLY in the layout of Kerbl et al. 2023's release: log scales, logit opacities, degree-0 SH.

    Args:
        means: world units.
        log_scales: natural logarithm of the standard deviations.
        quats: (w, x, y, z), any length.
        opacity_logits: before the sigmoid.
        colors: sRGB in [0, 1].
    """
    columns = {
        ("x", "y", "z"): means,
        ("nx", "ny", "nz"): means * 0,
        ("f_dc_0", "f_dc_1", "f_dc_2"): (colors - 0.5) / SH_C0,
        ("opacity",): opacity_logits[:, None],
        ("scale_0", "scale_1", "scale_2"): log_scales,
        ("rot_0", "rot_1", "rot_2", "rot_3"): F.normalize(quats, dim=-1),
    }
    names = [name for group in columns for name in group]
    rows = np.concatenate([value.detach().float().cpu().numpy() for value in columns.values()], 1).astype("<f4")
    header = ["ply", "format binary_little_endian 1.0", f"element vertex {len(rows)}"]
    header += [f"property float {name}" for name in names] + ["end_header", ""]
    return "\n".join(header).encode("ascii") + rows.tobytes()
