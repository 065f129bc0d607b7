"""PosedViews: images with cameras, the one type for data items, observations and conditioning views; and points beside them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras


@dataclass(frozen=True)
class PosedViews:
    """V views of each of B scenes. Every image field is optional; an occlusion is a validity mask.

    Attributes:
        cameras: the B x V cameras.
        images: sRGB in [0, 1], premultiplied by alpha where alpha is given.
        alpha: coverage in [0, 1].
        depth: camera-z in world units, 0 where nothing is seen.
        normals: unit, world space, outward; 0 where nothing is seen.
        labels: part labels, 0 is background.
        mask: True where the image was observed.
        captions: one text per scene.
        latents: what a prior's encoder made of the images.
    """

    cameras: Cameras
    images: Float[Tensor, "B V 3 H W"] | None = None
    alpha: Float[Tensor, "B V 1 H W"] | None = None
    depth: Float[Tensor, "B V 1 H W"] | None = None
    normals: Float[Tensor, "B V 3 H W"] | None = None
    labels: Int[Tensor, "B V 1 H W"] | None = None
    mask: Bool[Tensor, "B V 1 H W"] | None = None
    captions: tuple[str, ...] | None = None
    latents: Float[Tensor, "B V C h w"] | None = None

    def over(self, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B V 3 H W"]:
        """Images composited over one background colour per scene.

        Raises:
            ValueError: there are no images.
        """
        if self.images is None:
            raise ValueError("PosedViews.over: these views carry no images")
        if self.alpha is None:
            return self.images
        return self.images + (1 - self.alpha) * background[:, None, :, None, None]

    def select(self, scenes: slice | Tensor = slice(None), views: slice | Tensor = slice(None)) -> PosedViews:
        """A subset of scenes and views."""
        fields = {
            f.name: value[scenes][:, views]
            for f in dataclasses.fields(self)
            if isinstance(value := getattr(self, f.name), torch.Tensor)
        }
        captions = self.captions
        if captions is not None:
            kept = torch.arange(len(captions))[scenes]
            captions = tuple(captions[i] for i in kept.tolist())
        return dataclasses.replace(self, cameras=self.cameras.select(scenes, views), captions=captions, **fields)

    def resize(self, size: int) -> PosedViews:
        """Images and alpha averaged over (or interpolated to) size x size pixels; the other images are dropped."""
        if (self.cameras.height, self.cameras.width) == (size, size):
            return self

        def scale(images: Tensor | None) -> Tensor | None:
            if images is None:
                return None
            flat = torch.nn.functional.interpolate(images.flatten(0, 1), size=(size, size), mode="area")
            return flat.view(*images.shape[:3], size, size)

        return PosedViews(
            self.cameras.resize(size, size),
            scale(self.images),
            scale(self.alpha),
            captions=self.captions,
            latents=self.latents,
        )

    def to(self, device: torch.device | str) -> PosedViews:
        moved: dict[str, Any] = {}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            moved[field.name] = value.to(device) if hasattr(value, "to") else value
        return PosedViews(**moved)


@dataclass(frozen=True)
class PointCloud:
    """Coloured points of a scene, to initialise a representation with.

    Attributes:
        points: world units, where the cameras are.
        colors: sRGB in [0, 1].
    """

    points: Float[Tensor, "N 3"]
    colors: Float[Tensor, "N 3"]


def join_views(parts: Sequence[PosedViews]) -> PosedViews:
    """The scenes of several items, one after the other.

    Raises:
        ValueError: a field is given by some and not by all.
    """
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(PosedViews):
        values = [getattr(part, field.name) for part in parts]
        if all(value is None for value in values):
            continue
        if any(value is None for value in values):
            raise ValueError(f"join_views: {field.name!r} is given by some views and not by all")
        if field.name == "cameras":
            c2w, K = torch.cat([c.c2w for c in values]), torch.cat([c.K for c in values])
            joined["cameras"] = dataclasses.replace(values[0], c2w=c2w, K=K)
        elif field.name == "captions":
            joined["captions"] = tuple(caption for captions in values for caption in captions)
        else:
            joined[field.name] = torch.cat(values)
    return PosedViews(**joined)
