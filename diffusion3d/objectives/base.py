"""What `task=train` optimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.data.base import PosedData
from diffusion3d.views import PosedViews


class Objective(nn.Module, ABC):
    """A loss over some modules."""

    @abstractmethod
    def trained(self) -> nn.Module:
        """The module that learns."""

    def prepare(self, data: PosedData) -> PosedData:
        """Data as it wants to see them, asked for once before the training."""
        return data

    @abstractmethod
    def loss(self, batch: PosedViews) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised. Draws from torch's global generator."""

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
