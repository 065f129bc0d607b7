"""Density control: which Gaussians to drop and where to put new ones."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from diffusion3d.errors import UserError
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import SceneParameters


class DensityControl(ABC):
    """Adds and removes the Gaussians of one scene while it is optimised.

    Attributes:
        cap: number of Gaussians from which on none are added.
    """

    cap: int

    @abstractmethod
    def after_step(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        """Called after every optimiser step of a run of `total`, with the gradients of that step still there."""

    def state(self) -> dict[str, Tensor]:
        """What is remembered between steps."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Put back what `state` gave."""


class RankedDensification(DensityControl):
    """The faint go, those with the largest screen-space gradients split, under a hard cap.

    The usual rule splits whatever exceeds a gradient threshold (Kerbl et al. 2023, section 5.2). Score-distillation gradients
    differ by orders of magnitude between prompts and noise levels, so a threshold explodes or starves the count; here a fixed
    share grows, chosen by rank.

    Args:
        start, stop: shares of the run between which the count changes.
        rounds: how often it does, evenly spread; no more than once a step.
        cap: largest number of Gaussians.
        growth: share of the Gaussians split each time.
        min_opacity: fainter ones are pruned.
    """

    def __init__(
        self,
        start: float,
        stop: float,
        rounds: int,
        cap: int,
        growth: float,
        min_opacity: float,
    ) -> None:
        if not (0 < min_opacity < 1 and 0 <= growth <= 1 and rounds >= 1):
            raise UserError(
                f"representation.density: min_opacity={min_opacity} must lie in (0, 1), growth={growth} in [0, 1], "
                f"rounds={rounds} must be at least 1"
            )
        if not 0 <= start <= stop <= 1:
            raise UserError(
                f"representation.density: start={start:.3g} and stop={stop:.3g} are shares of the run and must satisfy "
                "0 <= start <= stop <= 1"
            )
        self.start, self.stop, self.rounds = start, stop, rounds
        self.cap, self.growth, self.min_opacity = cap, growth, min_opacity
        self.score = torch.zeros(0)

    def after_step(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        if step >= self.stop * total:
            return
        meta = render.extras["meta"]
        self.observe(meta["means2d"].grad[0], meta["width"], meta["height"])
        if self.due(step, total):
            self.apply(owner, optimizer)

    def state(self) -> dict[str, Tensor]:
        return {"score": self.score}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.score = state["score"]

    def observe(self, gradient: Tensor, width: int, height: int) -> None:
        """Accumulate |d loss / d means2d| [V, N, 2], in units of the half image."""
        half = gradient.new_tensor([width / 2, height / 2])
        score = (gradient * half).norm(dim=-1).sum(0)
        self.score = score if self.score.shape != score.shape else self.score.to(score) + score

    def due(self, step: int, total: int) -> bool:
        between = (self.stop - self.start) / self.rounds
        return step in {int(total * (self.start + i * between) + 1e-6) for i in range(self.rounds)}

    def apply(self, owner: SceneParameters, optimizer: torch.optim.Optimizer) -> None:
        """Prune and split. New Gaussians start without momentum."""
        raw = {name: p.detach() for name, p in owner.raw.items()}
        faint = raw["opacities"][0].sigmoid() < self.min_opacity
        kept = torch.nonzero(~faint).flatten()
        if len(kept) == 0:
            return
        count = max(0, min(int(self.growth * len(kept)), self.cap - len(kept)))
        chosen = kept[self.score[kept].topk(count).indices]
        self.score = torch.zeros(0)

        halves = {name: value[:, chosen].clone() for name, value in raw.items()}
        offset = torch.randn(halves["means"].shape).to(halves["means"]) * halves["scales"].exp()
        halves["scales"] -= math.log(1.6)
        moved = {name: value.clone() for name, value in raw.items()}
        moved["means"][:, chosen] -= 0.5 * offset
        moved["scales"][:, chosen] = halves["scales"]
        halves["means"] = halves["means"] + 0.5 * offset
        replace_rows(owner, optimizer, lambda name: torch.cat([moved[name][:, kept], halves[name]], 1), kept, count)


def replace_rows(
    owner: SceneParameters,
    optimizer: torch.optim.Optimizer,
    values: Callable[[str], Tensor],
    kept: Tensor,
    added: int,
) -> None:
    """Swap in parameters with other rows, carrying Adam's moments of the kept rows and zeros for the added ones."""
    for group in optimizer.param_groups:
        name = group["name"]
        if name not in owner.raw:
            continue
        old = group["params"][0]
        new = nn.Parameter(values(name))
        state = optimizer.state.pop(old, None)
        if state is not None:
            for key in ("exp_avg", "exp_avg_sq"):
                rows = state[key][:, kept]
                state[key] = torch.cat([rows, rows.new_zeros(rows.shape[0], added, *rows.shape[2:])], 1)
            optimizer.state[new] = state
        group["params"] = [new]
        owner.raw[name] = new
