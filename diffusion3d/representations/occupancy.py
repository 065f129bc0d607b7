"""Which cells of a field are not empty, by nerfacc's occupancy grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Bool, Float
from nerfacc import OccGridEstimator
from torch import Tensor


class Occupancy:
    """A grid over [-1, 1]³ that follows one scene while it is optimised.

    Args:
        size: cells along a side.
        threshold: opacity of a cell's length from which on it is occupied.
        warmup: steps during which all cells are looked at; later a quarter of them each time.
        every: steps between two looks.
    """

    def __init__(self, size: int = 64, threshold: float = 0.01, warmup: int = 128, every: int = 16) -> None:
        self.threshold, self.warmup, self.every = threshold, warmup, every
        self.length = 2.0 / size
        self.grid = OccGridEstimator([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution=size)
        self.known = False

    @property
    def cells(self) -> Bool[Tensor, "G G G"] | None:
        """None before the first look."""
        return self.grid.binaries[0] if self.known else None

    @torch.no_grad()
    def update(
        self, step: int, device: torch.device, density: Callable[[Float[Tensor, "N 3"]], Float[Tensor, " N"]]
    ) -> None:
        """Look at the cells when it is time to."""
        if step % self.every:
            return
        self.grid.to(device).update_every_n_steps(
            step,
            lambda points: 1 - (-self.length * density(points)).exp()[:, None],
            occ_thre=self.threshold,
            warmup_steps=self.warmup,
            n=self.every,
        )
        self.known = True

    def state(self) -> dict[str, Tensor]:
        return {"occs": self.grid.occs, "binaries": self.grid.binaries} if self.known else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self.grid.occs.copy_(state["occs"])
            self.grid.binaries.copy_(state["binaries"])
            self.known = True
