"""Rendering: Gaussian splats by a C++ kernel, plain torch or gsplat, and what every scene's render returns."""

from diffusion3d.rendering.splats import kernel_name, rasterization

__all__ = ["kernel_name", "rasterization"]
