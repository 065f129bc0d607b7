"""Multi-resolution hash encoding of points (Müller et al. 2022, section 3), by the C++ kernel or plain torch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion3d.rendering.libraries import call, library

PRIMES = (1, 2654435761, 805459861)
KERNEL_FEATURES = (1, 2, 4, 8)


@dataclass(frozen=True)
class HashLevels:
    """The grids of an encoding.

    Attributes:
        resolutions: cells along a side, of every level.
        entries: of every level's table; (resolution + 1)³ where that many fit, else the power of two that is allowed.
    """

    resolutions: tuple[int, ...]
    entries: tuple[int, ...]

    @classmethod
    def geometric(cls, levels: int, coarsest: int, finest: int, log2_entries: int) -> HashLevels:
        """Resolutions that grow by a constant factor from `coarsest` to `finest` (equations 2 and 3)."""
        growth = math.exp(math.log(finest / coarsest) / max(1, levels - 1))
        resolutions = tuple(math.floor(coarsest * growth**level + 1e-6) for level in range(levels))
        return cls(resolutions, tuple(min((r + 1) ** 3, 2**log2_entries) for r in resolutions))

    def __post_init__(self) -> None:
        for resolution, count in zip(self.resolutions, self.entries, strict=True):
            if (resolution + 1) ** 3 > count and count & (count - 1):
                raise ValueError(f"a hashed table must have a power of two of entries, not {count}")


def hash_grid(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "E F"], levels: HashLevels
) -> Float[Tensor, "N {len(levels.resolutions)*table.shape[1]}"]:
    """Features of points in [0, 1]³ (clamped to it): every level's, trilinearly interpolated, coarsest first.

    Differentiable once, in the table and in the points.
    """
    points = points.clamp(0, 1)
    fitting = points.dtype == table.dtype == torch.float32 and table.shape[1] in KERNEL_FEATURES
    native = fitting and points.device.type == "cpu" and library() is not None
    return _HashGrid.apply(points, table, levels) if native else hash_grid_torch(points, table, levels)


def hash_grid_torch(
    points: Float[Tensor, "N 3"], table: Float[Tensor, "E F"], levels: HashLevels
) -> Float[Tensor, "N {len(levels.resolutions)*table.shape[1]}"]:
    """The plain-torch twin of the kernel."""
    corners = torch.tensor([[c & 1, c >> 1 & 1, c >> 2] for c in range(8)], device=points.device)
    primes = torch.tensor(PRIMES, device=points.device)
    offset, features = 0, []
    for resolution, entries in zip(levels.resolutions, levels.entries, strict=True):
        at = points * resolution
        cell = at.detach().long().clamp(max=resolution - 1)
        fraction = (at - cell)[:, None]
        places = cell[:, None] + corners
        side = resolution + 1
        if side**3 <= entries:
            index = places[..., 0] + side * (places[..., 1] + side * places[..., 2])
        else:
            hashed = places * primes
            index = (hashed[..., 0] ^ hashed[..., 1] ^ hashed[..., 2]) & (entries - 1)
        weight = torch.where(corners.bool(), fraction, 1 - fraction).prod(-1)
        values = table[offset : offset + entries][index]
        features.append((weight[..., None] * values).sum(1))
        offset += entries
    return torch.cat(features, 1)


class _HashGrid(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, points: Tensor, table: Tensor, levels: HashLevels) -> Tensor:
        points, table = points.detach().contiguous(), table.detach().contiguous()
        ctx.sizes = (len(points), len(levels.resolutions), table.shape[1])
        ctx.grids = [torch.tensor(values, dtype=torch.int32) for values in (levels.resolutions, levels.entries)]
        ctx.save_for_backward(points, table)
        out = points.new_empty(len(points), ctx.sizes[1] * ctx.sizes[2])
        call("d3d_hash_grid", *ctx.sizes, *ctx.grids, points, table, out)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_out: Tensor) -> tuple[Tensor | None, ...]:
        points, table = ctx.saved_tensors
        v_points = torch.empty_like(points) if ctx.needs_input_grad[0] else None
        v_table = torch.empty_like(table) if ctx.needs_input_grad[1] else None
        call("d3d_hash_grid_backward", *ctx.sizes, *ctx.grids, points, table, v_out.contiguous(), v_table, v_points)
        return v_points, v_table, None
