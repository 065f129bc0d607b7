"""Which cells of a field are not empty, by nerfacc's occupancy grid."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from nerfacc import OccGridEstimator
from torch import Tensor

from diffusion3d.errors import UserError

DECAY = 0.5
"""Of the largest opacity that was seen of a cell, each time it is looked at; nerfacc's own is 0.95. The fog that a scene starts
with is forgotten in a few looks, and what one random point of a cell misses the next ones or the cells around it see."""

LOOKED_AT = 2**16
"""Points whose density is asked for at a time."""


class Occupancy:
    """A grid over [-1, 1]³ that follows one scene while it is optimised.

    Args:
        size: cells along a side.
        threshold: opacity of a cell's length from which on it, and the cells around it, are occupied.
        warmup: steps during which all cells are looked at; later a random quarter and as many occupied ones each time.
        every: steps between two looks.

    Attributes:
        everywhere: whether all cells count as occupied during the warmup, so that parts of a scene can appear that no path
            of occupied cells leads to; without it a scene grows from where it is dense at first.
    """

    def __init__(self, size: int = 64, threshold: float = 0.02, warmup: int = 128, every: int = 8) -> None:
        if size < 1 or every < 1 or warmup < 0 or not 0 < threshold < 1:
            raise UserError(
                f"representation.occupancy: size={size} and every={every} must be positive, warmup={warmup} not negative, "
                f"threshold={threshold} in (0, 1)"
            )
        self.threshold, self.warmup, self.every = threshold, warmup, every
        self.length = 2.0 / size
        self.grid = OccGridEstimator([-1.0, -1.0, -1.0, 1.0, 1.0, 1.0], resolution=size)
        self.size, self.known, self.everywhere = size, False, False

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
            lambda points: torch.cat([1 - (-self.length * density(p)).exp() for p in points.split(LOOKED_AT)])[:, None],
            occ_thre=self.threshold,
            ema_decay=DECAY,
            warmup_steps=self.warmup,
            n=self.every,
        )
        # nerfacc's own threshold is the mean where that is lower, and knows no neighbours: thin fog would be eaten at random
        thick = (self.grid.occs > self.threshold).view(1, 1, self.size, self.size, self.size)
        near = F.max_pool3d(thick.float(), 3, 1, 1)[:, 0] > 0
        if not bool(near.any()) or (self.everywhere and step + self.every <= self.warmup):
            near = torch.ones_like(near)
        self.grid.binaries.copy_(near)
        self.known = True

    def state(self) -> dict[str, Tensor]:
        return {"occs": self.grid.occs, "binaries": self.grid.binaries} if self.known else {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        if state:
            self.grid.occs.copy_(state["occs"])
            self.grid.binaries.copy_(state["binaries"])
            self.known = True
