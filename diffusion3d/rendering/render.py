"""What every scene's `render` returns, and putting it over a background."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jaxtyping import Float
from torch import Tensor

EMPTY_ALPHA = 1e-3
"""Depth is 0 where less than this much is covered."""


@dataclass(frozen=True)
class Render:
    """B x V rendered views; with a pixel subset the last two dimensions are one, P.

    Attributes:
        rgb: sRGB, premultiplied by alpha.
        alpha: coverage in [0, 1].
        depth: expected camera-z, sum(w z) / sum(w); 0 where alpha < 1e-3.
        normals: unit, world space, outward, or None.
        depth_variance: of camera-z along the ray, sum(w (z - depth)²) / sum(w); 0 where alpha < 1e-3, None if unknown.
        extras: what the representation adds (weights, features, the rasteriser's meta).
        behind: sRGB of the scene's own background, or None.
    """

    rgb: Float[Tensor, "B V 3 *P"]
    alpha: Float[Tensor, "B V 1 *P"]
    depth: Float[Tensor, "B V 1 *P"]
    normals: Float[Tensor, "B V 3 *P"] | None = None
    depth_variance: Float[Tensor, "B V 1 *P"] | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    behind: Float[Tensor, "B V 3 *P"] | None = None


def composite(render: Render, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B V 3 *P"]:
    """The render over the scene's own background, or where it has none over one colour per scene (sRGB)."""
    plain = background.reshape(background.shape[0], 1, 3, *([1] * (render.rgb.ndim - 3)))
    return render.rgb + (1 - render.alpha) * (plain if render.behind is None else render.behind)
