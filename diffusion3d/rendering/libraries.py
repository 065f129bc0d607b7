"""The C++ kernels, loaded by ctypes.

`pip install` builds one shared library per instruction set beside this file; in a checkout that is not installed,
`python setup.py build_ext --inplace` does. They have a plain C interface and need no torch to build. The environment variable
DIFFUSION3D_KERNEL=avx512|avx2|generic|torch overrides the choice made from the CPU's flags; torch, or no library, means the
plain-torch twins. Work is shared by `torch.get_num_threads()` threads and is the same to the bit for any number of them.
"""

from __future__ import annotations

import ctypes
import functools
import logging
import os
import platform
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from diffusion3d.errors import UserError, one_line

log = logging.getLogger(__name__)

ISAS = {"avx512": {"avx512f", "avx512dq", "avx512bw", "avx512vl"}, "avx2": {"avx2", "fma"}, "generic": set()}
"""Instruction sets, best first, and the CPU flags each needs."""
VARIABLE = "DIFFUSION3D_KERNEL"


class Library(NamedTuple):
    isa: str
    functions: ctypes.CDLL


def library() -> Library | None:
    """The kernel in use, or None for plain torch.

    Raises:
        UserError: DIFFUSION3D_KERNEL names a kernel that is unknown, not built, or not for this CPU.
    """
    return _load(os.environ.get(VARIABLE, ""))


@functools.cache
def _load(choice: str) -> Library | None:
    if choice == "torch":
        return None
    if choice and choice not in ISAS:
        raise UserError(f"{VARIABLE}={choice} is unknown; choose {', '.join(ISAS)} or torch")
    flags = _cpu_flags()
    for isa in [choice] if choice else ISAS:
        path = Path(__file__).parent / f"_kernels_{isa}.so"
        missing = ISAS[isa] - flags
        if path.exists() and not missing:
            try:
                return Library(isa, _declare(ctypes.CDLL(str(path))))
            except (OSError, AttributeError) as error:
                log.warning("%s cannot be used (%s): build it again with pip install -e .", path, one_line(error))
    if choice:
        reason = (
            f"this CPU lacks {', '.join(sorted(missing))}"
            if missing
            else "it is not built, or damaged (pip install -e . builds it)"
        )
        raise UserError(f"{VARIABLE}={choice}: {reason}; torch always works")
    log.warning(
        "no C++ kernel fits this machine, torch renders, tens of times slower: install gcc or clang, then reinstall"
    )
    return None


def _cpu_flags() -> set[str]:
    if platform.machine() not in ("x86_64", "AMD64"):
        return set()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return set()
    return set(next((line for line in lines if line.startswith("flags")), "").split())


def _declare(functions: ctypes.CDLL) -> ctypes.CDLL:
    i, f, p = ctypes.c_int, ctypes.c_float, ctypes.c_void_p
    functions.d3d_project.argtypes = [i] * 5 + [f] * 4 + [i] + [p] * 11 + [i]
    functions.d3d_project_backward.argtypes = [i] * 5 + [f] + [p] * 14 + [i]
    functions.d3d_composite.argtypes = [i] * 5 + [p] * 8 + [i]
    functions.d3d_composite_backward.argtypes = [p] * 9 + [i]
    functions.d3d_free.argtypes = [p]
    functions.d3d_project.restype = functions.d3d_project_backward.restype = None
    functions.d3d_composite_backward.restype = functions.d3d_free.restype = None
    functions.d3d_composite.restype = p
    functions.d3d_hash_grid.argtypes = [i] * 3 + [p] * 5 + [i]
    functions.d3d_hash_grid_backward.argtypes = [i] * 3 + [p] * 7 + [i]
    functions.d3d_hash_grid.restype = functions.d3d_hash_grid_backward.restype = None
    return functions


def call(name: str, *arguments: Any) -> Any:
    """Call with tensors (contiguous; None is null) as pointers, and the number of threads last."""
    chosen = library()
    assert chosen is not None
    values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
    return getattr(chosen.functions, name)(*values, torch.get_num_threads())
