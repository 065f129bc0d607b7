"""Representations: raw tensors to scenes, and the thin owner that makes raw tensors learnable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from diffusion3d.cameras import Cameras
from diffusion3d.rendering.render import Render
from diffusion3d.views import PointCloud, PosedViews


@runtime_checkable
class Scene(Protocol):
    """B scenes that can be looked at."""

    def render(
        self,
        cameras: Cameras,
        pixels: Int[Tensor, "B V P"] | None = None,
        sources: Bool[Tensor, "B V S"] | None = None,
        shading: str | None = None,
    ) -> Render:
        """Render all cameras, or only the flat pixel indices `pixels`.

        `sources` says which source views each rendered view may see (image-based scenes). A scene refuses what it does not
        support by a ValueError.
        """


class Representation(ABC):
    """A family of scenes as a pure function of raw, unconstrained tensors.

    Attributes:
        learning_rates: Adam learning rate of every raw tensor that is learned; the others stay as they are.
    """

    learning_rates: Mapping[str, float]

    @abstractmethod
    def init(
        self,
        scenes: int,
        generator: torch.Generator | None = None,
        views: PosedViews | None = None,
        points: PointCloud | None = None,
    ) -> dict[str, Tensor]:
        """Raw tensors [B, …] to start from, drawn on the CPU.

        Args:
            views: of the scenes that they will be fitted to.
            points: of the one scene that there is.
        """

    @abstractmethod
    def scene(self, raw: Mapping[str, Tensor]) -> Scene:
        """The scenes that raw tensors stand for."""

    def others(self, raw: Mapping[str, Tensor], cameras: Cameras) -> Bool[Tensor, "B V S"]:
        """The source views that each camera may see if it may not see its own (Anciukevičius et al. 2024).

        Raises:
            ValueError: there are no source views.
        """
        raise ValueError("this representation has no source views")

    def density_control(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        """Add or remove elements after an optimiser step of a run of `total`; most representations have nothing to do.

        `render` is the training render of this step, whose `extras["meta"]` holds the screen-space gradients.
        """

    def renderer(self, device: torch.device) -> str:
        """What renders these scenes on that device, for the record."""
        return "torch"

    def state(self) -> dict[str, Tensor]:
        """What density control remembers between steps, for checkpoints."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Restore what `state` returned."""

    def export(self, raw: Mapping[str, Tensor]) -> dict[str, bytes]:
        """Files that carry scene 0 elsewhere: {file name: content}."""
        return {}


class SceneParameters(nn.Module):
    """Owns the raw tensors of a representation as parameters."""

    def __init__(self, representation: Representation, raw: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.representation = representation
        self.raw = nn.ParameterDict()
        self.load_raw(raw)

    def scene(self) -> Scene:
        return self.representation.scene(dict(self.raw.items()))

    def param_groups(self) -> list[dict[str, Any]]:
        """One group per learned raw tensor, named, with its learning rate."""
        rates = self.representation.learning_rates
        return [{"params": [p], "lr": rates[name], "name": name} for name, p in self.raw.items() if name in rates]

    def load_raw(self, raw: Mapping[str, Tensor]) -> None:
        """Replace the parameters by tensors that may have other sizes (a checkpoint after density control)."""
        learned = self.representation.learning_rates
        for name, value in raw.items():
            device = self.raw[name].device if name in self.raw else value.device
            self.raw[name] = nn.Parameter(value.to(device), requires_grad=name in learned)
