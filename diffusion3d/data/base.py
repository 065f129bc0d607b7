"""Where posed, captioned images come from."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.typing import NDArray
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.views import PointCloud, PosedViews

VOCABULARY = 200
"""Longest vocabulary of scenes in memory."""


@runtime_checkable
class PosedData(Protocol):
    """Scenes with the same number of views each, all of one size."""

    @property
    def views(self) -> int:
        """Of every scene."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Short prompts for what is in the data."""

    def __len__(self) -> int:
        """Number of scenes."""

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [B, V], each with one of its captions."""


class InMemory:
    """Scenes in memory as `PosedData`.

    Args:
        cameras: of all scenes.
        pixels: sRGB, premultiplied by the alpha in a fourth channel, if there is one.
        captions: of every scene, one or more each.
        geometry: further fields of `PosedViews`, such as depth and normals.
    """

    def __init__(
        self,
        cameras: Cameras,
        pixels: UInt8[Tensor, "B V C H W"],
        captions: Sequence[Sequence[str]],
        geometry: Mapping[str, Tensor] | None = None,
    ) -> None:
        self.cameras, self.pixels, self.geometry = cameras, pixels, dict(geometry or {})
        self.captions = [tuple(texts) for texts in captions]
        self.vocabulary = tuple(dict.fromkeys(text for texts in self.captions for text in texts))[:VOCABULARY]

    @property
    def views(self) -> int:
        return self.pixels.shape[1]

    def __len__(self) -> int:
        return self.pixels.shape[0]

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [B, V], each with a random one of its captions."""
        scenes, chosen = torch.from_numpy(np.array(indices))[:, None], torch.from_numpy(np.array(views))
        cameras, pixels = self.cameras, self.pixels[scenes, chosen].float() / 255
        return PosedViews(
            cameras=dataclasses.replace(cameras, c2w=cameras.c2w[scenes, chosen], K=cameras.K[scenes, chosen]),
            images=pixels[:, :, :3].contiguous(),
            alpha=pixels[:, :, 3:].contiguous() if pixels.shape[2] == 4 else None,
            captions=tuple(str(rng.choice(self.captions[i])) for i in indices),
            **{name: values[scenes, chosen] for name, values in self.geometry.items()},
        )


@dataclass(frozen=True)
class Splits:
    """Data in parts.

    Attributes:
        train: to optimise on.
        validation: other scenes; what trains a prior needs them.
        test: other views of the scenes of `train`, in the same order; what fits scenes needs them.
        points: of the one scene that there is.
    """

    train: PosedData
    validation: PosedData | None = None
    test: PosedData | None = None
    points: PointCloud | None = None


@dataclass(frozen=True)
class BatchShape:
    """One kind of training batch.

    Attributes:
        scenes, views: its size.
        share: how often it is drawn, relative to the other kinds.
    """

    scenes: int
    views: int
    share: float = 1.0


def draw_batch(data: PosedData, shapes: Sequence[BatchShape], even: float, rng: np.random.Generator) -> PosedViews:
    """A random batch.

    Args:
        shapes: the kinds to choose from.
        even: share of the batches whose views are evenly spaced in the order of the data (around the object, for a
            turntable); the others are any views.
    """
    shares = np.array([shape.share for shape in shapes], np.float64)
    shape = shapes[int(rng.choice(len(shapes), p=shares / shares.sum()))]
    count = min(shape.views, data.views)
    indices = rng.integers(len(data), size=shape.scenes)
    if rng.random() < even:
        views = (rng.integers(data.views, size=(shape.scenes, 1)) + np.arange(count) * data.views // count) % data.views
    else:
        views = np.stack([rng.permutation(data.views)[:count] for _ in range(shape.scenes)])
    return data.batch(indices, views, rng)
