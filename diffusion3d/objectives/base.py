"""What `task=train` optimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jaxtyping import Float, Shaped
from torch import Tensor, nn

from diffusion3d.data.base import PosedData
from diffusion3d.views import PosedViews


@dataclass(frozen=True)
class Share:
    """The scenes `first` to `last` - 1 of the `scenes` of a step's batch: those that one process computes.

    Attributes:
        spare: there are fewer scenes than processes, and this one computes a scene that does not count.
    """

    scenes: int
    first: int
    last: int
    spare: bool = False

    @classmethod
    def of(cls, scenes: int, rank: int = 0, count: int = 1) -> Share:
        """Process `rank`'s of `count`; shares differ by one scene at most."""
        first, last = scenes * rank // count, scenes * (rank + 1) // count
        return cls(scenes, first, last) if last > first else cls(scenes, 0, 1, spare=True)

    @property
    def part(self) -> float:
        """How much of the batch it is."""
        return (self.last - self.first) / self.scenes

    def own(self, drawn: Shaped[Tensor, "B ..."]) -> Shaped[Tensor, "b ..."]:
        """Its rows of what was drawn for all scenes."""
        return drawn[self.first : self.last]


class Objective(nn.Module, ABC):
    """A loss over some modules."""

    @abstractmethod
    def trained(self) -> nn.Module:
        """The module that learns."""

    def prepare(self, data: PosedData) -> PosedData:
        """Data as it wants to see them, asked for once before the training."""
        return data

    @abstractmethod
    def loss(self, batch: PosedViews, share: Share | None = None) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised. Draws from torch's global CPU generator, always for the whole batch.

        Args:
            batch: some or all scenes of a step's batch.
            share: which ones; None is all. The scalars of all shares add up to those of the whole batch.
        """

    @abstractmethod
    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        """Named figures on held-out data, the same noise at every call."""

    @abstractmethod
    def preview(self, prompts: Sequence[str], batches: Sequence[PosedViews]) -> dict[str, Float[Tensor, "V 3 H W"]]:
        """{label: a row of pictures in [0, 1]} of what has been learned, the same noise at every call; none where there is
        nothing to see.

        Args:
            prompts: what may be drawn.
            batches: held-out data, at least one.
        """

    @abstractmethod
    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write what has been learned, in float16, so that a prior's config can name it, and `facts` beside it.

        Args:
            folder: exists.
            facts: of the training; "scores" is what `validate` has just found.
        """
