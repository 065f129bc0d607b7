"""What `task=train` optimises."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence

from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.views import PosedViews


class Objective(nn.Module, ABC):
    """A loss over some modules."""

    @abstractmethod
    def trained(self) -> nn.Module:
        """The module that learns (and that the weights of a finished training hold)."""

    @abstractmethod
    def loss(self, batch: PosedViews) -> dict[str, Tensor]:
        """Named scalars; their sum is minimised. Draws from torch's global generator."""

    @abstractmethod
    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        """Named figures on held-out data, the same noise at every call."""

    @abstractmethod
    def preview(self, prompts: Sequence[str]) -> Float[Tensor, "N V 3 H W"]:
        """Pictures in [0, 1] of what has been learned, a row for every prompt, the same noise at every call."""
