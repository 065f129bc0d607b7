"""The contract of guidance schemes and of the terms beside them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.priors.base import Prior
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Scene

Scheduled = float | Mapping[str, float]
"""A number, or {from, to, start, end}: linear from `from` at `start` to `to` at `end`, which are shares of the run."""


@dataclass(frozen=True)
class Step:
    """Where a run stands: `index` of `total` steps."""

    index: int
    total: int

    @property
    def progress(self) -> float:
        return self.index / max(1, self.total)

    def value(self, scheduled: Scheduled) -> float:
        """A scheduled number at this step."""
        return scheduled_at(scheduled, self.progress)


def scheduled_at(scheduled: Scheduled, progress: float) -> float:
    """A scheduled number when a share `progress` of the run is done.

    Raises:
        UserError: a schedule with other keys than from, to, start and end.
    """
    if not isinstance(scheduled, Mapping):
        return float(scheduled)
    odd = set(scheduled) - {"from", "to", "start", "end"}
    if odd or not {"from", "to"} <= set(scheduled):
        raise UserError(f"a schedule is {{from, to, start, end}}, got {dict(scheduled)}")
    start, end = scheduled.get("start", 0.0), scheduled.get("end", 1.0)
    share = min(1.0, max(0.0, (progress - start) / max(1e-9, end - start)))
    return scheduled["from"] + share * (scheduled["to"] - scheduled["from"])


def knots(*scheduled: Scheduled) -> list[float]:
    """Where schedules bend: what holds at all of these shares of a run holds, by linearity, throughout."""
    ends = [s.get(key, 0.0) for s in scheduled if isinstance(s, Mapping) for key in ("start", "end")]
    return sorted({0.0, 1.0, *ends})


class Term(nn.Module, ABC):
    """A loss on a scene or its render, beside the guidance; called as guidance is."""

    @property
    def lit(self) -> bool:
        """Whether it does nothing without normals, which only lit views have (`Shadings.lit`)."""
        return False

    @abstractmethod
    def forward(self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step) -> Tensor:
        """A scalar, to be minimised."""


class Guidance(nn.Module, ABC):
    """A scheme that makes a scene agree with a prior.

    Args:
        prior: frozen here; no checkpoint holds it.
    """

    unlit = False
    """Whether it compares renders with pictures that no shading has lit."""

    def __init__(self, prior: Prior) -> None:
        super().__init__()
        self.prior = prior.eval().requires_grad_(False)

    @abstractmethod
    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        """{name: scalar}; their sum is minimised."""

    def cameras(self, camera: Orbit, step: Step) -> Cameras:
        """What a step looks through; asked before every `forward`."""
        return camera.sample()

    def background(self, backgrounds: Backgrounds, step: Step) -> Float[Tensor, "1 3"]:
        """What is behind the object in a step, sRGB; asked before every `forward`."""
        return backgrounds.sample(1)

    def prepare(self, scene: Scene, condition: Condition) -> None:
        """Called once before the first step, with the scene as it starts.

        Where the run starts from another one (`run=DIR`), that one's scene is given, and nothing changes it later.
        """

    def update(self, step: Step) -> None:
        """Called after the backward pass (a learner inside the scheme takes its own step here)."""

    def state(self) -> dict[str, Any]:
        """What the scheme remembers between steps, for checkpoints."""
        return {name: value for name, value in self.state_dict().items() if not name.startswith("prior.")}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave."""
        self.load_state_dict({**self.state_dict(), **state})


def surrogate(x: Tensor, grad: Tensor) -> Tensor:
    """A scalar whose gradient with respect to x is grad / (B V): 0.5 sum((x - target)²) / (B V), target = x - grad."""
    target = (x - grad).detach()
    return 0.5 * (x - target).square().sum() / (x.shape[0] * x.shape[1])
