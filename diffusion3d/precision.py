"""Which device a run uses, and in which precision its denoisers compute."""

from __future__ import annotations

import platform
import re
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from diffusion3d.errors import UserError

if TYPE_CHECKING:
    import torch


def pick_device(name: str) -> torch.device:
    """The torch device for `device=name`: "auto" is cuda, then mps, then cpu.

    Raises:
        UserError: torch sees no such device here.
    """
    import torch

    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    elif not available[name]:
        working = ", ".join(["auto", *(device for device, there in available.items() if there)])
        raise UserError(f"device={name}: torch sees no such device on this machine; what works here: {working}")
    return torch.device(name)


@cache
def cpu_has_fast_bf16() -> bool:
    """Whether the CPU multiplies bf16 in hardware, as Linux reports it (False where it cannot be told)."""
    if platform.system() != "Linux":
        return False
    found = re.search(r"^(?:flags|Features)\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return found is not None and not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(found[1].split())


def compute_dtype(device: torch.device, precision: str) -> torch.dtype:
    """In which a denoiser computes, and in which a large one keeps weights that never learn: auto, fp32, bf16 or fp16.

    "auto" is bf16 where the hardware multiplies it fast, and float32 elsewhere. "fp16" is for GPUs without bf16.

    Raises:
        UserError: another precision.
    """
    import torch

    dtypes = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    if precision == "auto":
        on_cuda = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
        precision = "bf16" if on_cuda or (device.type == "cpu" and cpu_has_fast_bf16()) else "fp32"
    if precision not in dtypes:
        raise UserError(f"precision={precision} is not one of auto, {', '.join(dtypes)}")
    return dtypes[precision]


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """The context in which a denoiser computes: that of `compute_dtype`."""
    import torch

    dtype = compute_dtype(device, precision)
    if dtype == torch.float32:
        return torch.autocast(device.type, enabled=False)
    return torch.autocast(device.type, dtype=dtype)
