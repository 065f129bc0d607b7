"""Where posed, captioned images come from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from diffusion3d.views import PosedViews


@runtime_checkable
class PosedData(Protocol):
    """Scenes with the same number of views each."""

    views: int
    """Of every scene."""
    size: int
    """Side of the square images, pixels."""

    @property
    def vocabulary(self) -> Sequence[str]:
        """Short prompts for what is in the data."""

    def __len__(self) -> int:
        """Number of scenes."""

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [B, V], each with one of its captions."""


@dataclass(frozen=True)
class Splits:
    """Training and validation data."""

    train: PosedData
    validation: PosedData


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
