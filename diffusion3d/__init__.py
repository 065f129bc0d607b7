"""diffusion3d: any diffusion prior, any 3D representation, any guidance."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from diffusion3d.version import __version__

__all__ = ["__version__", "run"]

if TYPE_CHECKING:
    from diffusion3d.run import run as run


def __getattr__(name: str) -> Any:
    if name == "run":
        return importlib.import_module("diffusion3d.run")
    raise AttributeError(f"module 'diffusion3d' has no attribute {name!r}")
