"""What a prior is told (Condition) and what it answers (Prediction)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.views import PosedViews, join_views


@dataclass(frozen=True)
class Condition:
    """Everything a prior may be conditioned on; any field may be None.

    Attributes:
        tokens: text tokens, one row for all views or one per view.
        token_mask: True for real tokens.
        pooled: one text vector per row of `tokens`.
        cameras: the cameras of the views to denoise.
        views: clean conditioning views.
        points: a point cloud.
        previous: the previous x0 (self-conditioning).
        extra: further named inputs of one prior, e.g. `background [B,3]`, the colour behind the object.
    """

    tokens: Float[Tensor, "B R L D"] | None = None
    token_mask: Bool[Tensor, "B R L"] | None = None
    pooled: Float[Tensor, "B R E"] | None = None
    cameras: Cameras | None = None
    views: PosedViews | None = None
    points: Float[Tensor, "B N 3"] | None = None
    previous: Tensor | None = None
    extra: Mapping[str, Tensor] = field(default_factory=dict)

    def without_text(self) -> Condition:
        """The "null" condition: the text is dropped, cameras and clean views stay."""
        return dataclasses.replace(self, tokens=None, token_mask=None, pooled=None)

    def select(self, views: Int[Tensor, " K"]) -> Condition:
        """What concerns some of the views to denoise."""
        assert self.cameras is not None
        count = self.cameras.shape[1]
        per_view = {
            name: value[:, views]
            for name in ("tokens", "token_mask", "pooled", "previous")
            if (value := getattr(self, name)) is not None and value.shape[1] == count
        }
        return dataclasses.replace(self, cameras=self.cameras.select(views=views), **per_view)

    def with_text(self, text: Condition) -> Condition:
        return dataclasses.replace(self, tokens=text.tokens, token_mask=text.token_mask, pooled=text.pooled)


@dataclass(frozen=True)
class Prediction:
    """A prior's estimate of the clean item, in the prior's space and never clamped; a 3D prior also hands over its scene."""

    x0: Tensor
    scene: Any = None


def pad_rows(tokens: Tensor, length: int) -> Tensor:
    """Tokens or their mask [B, R, L, ...] with zeros (masked out) up to `length`."""
    missing = length - tokens.shape[2]
    return torch.cat([tokens, tokens.new_zeros(*tokens.shape[:2], missing, *tokens.shape[3:])], 2)


def concatenate(conditions: list[Condition]) -> Condition:
    """Stack conditions along the batch. Text that some of them lack becomes zero tokens, all masked out; where one has a row of
    text for every view, so have all.

    Raises:
        ValueError: a field other than text is given by some of the conditions and not by all.
    """
    merged: dict[str, Any] = {}
    for name in ("tokens", "token_mask", "pooled"):
        values = [getattr(c, name) for c in conditions]
        given = next((v for v in values if v is not None), None)
        if given is not None:
            values = [torch.zeros_like(given) if v is None else v for v in values]
            rows = max(v.shape[1] for v in values)
            values = [v.expand(-1, rows, *v.shape[2:]) for v in values]
            if name != "pooled":
                longest = max(v.shape[2] for v in values)
                values = [pad_rows(v, longest) for v in values]
            merged[name] = torch.cat(values)
    for name in ("views", "points", "previous"):
        values = [getattr(c, name) for c in conditions]
        if any(v is not None for v in values):
            if any(v is None for v in values):
                raise ValueError(f"concatenate: the conditions disagree about {name!r}")
            merged[name] = join_views(values) if name == "views" else torch.cat(values)
    cameras = [c.cameras for c in conditions if c.cameras is not None]
    if cameras:
        if len(cameras) != len(conditions):
            raise ValueError("concatenate: the conditions disagree about 'cameras'")
        first = cameras[0]
        c2w, K = torch.cat([c.c2w for c in cameras]), torch.cat([c.K for c in cameras])
        merged["cameras"] = dataclasses.replace(first, c2w=c2w, K=K)
    if any(c.extra.keys() != conditions[0].extra.keys() for c in conditions):
        raise ValueError("concatenate: the conditions have different 'extra' fields")
    extra = {name: torch.cat([c.extra[name] for c in conditions]) for name in conditions[0].extra}
    return Condition(**merged, extra=extra)
