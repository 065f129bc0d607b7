"""Adam on a scene's raw tensors, shared by the tasks that optimise one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from diffusion3d.guidance.base import Scheduled, Step
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import Representation, Scene, SceneParameters


class SceneOptimizer:
    """Owns the raw tensors of B scenes, their optimiser and their density control.

    Args:
        representation: of the scenes.
        raw: to start from, on the device where they are to live.
        lr: factor on the representation's learning rates.
    """

    def __init__(self, representation: Representation, raw: Mapping[str, Tensor], lr: Scheduled) -> None:
        self.representation, self.lr = representation, lr
        self.owner = SceneParameters(representation, raw)
        self.adam = torch.optim.Adam(self.owner.param_groups(), eps=1e-15, fused=True)
        self.rates = {group["name"]: group["lr"] for group in self.adam.param_groups}

    def scene(self) -> Scene:
        return self.owner.scene()

    @property
    def raw(self) -> dict[str, Tensor]:
        return {name: value.detach() for name, value in self.owner.raw.items()}

    def step(self, step: Step, render: Render) -> None:
        """One update after a backward pass through `render`, then density control."""
        for group in self.adam.param_groups:
            group["lr"] = self.rates[group["name"]] * step.value(self.lr)
        self.adam.step()
        self.representation.density_control(self.owner, self.adam, render, step.index, step.total)
        self.adam.zero_grad(set_to_none=True)

    def state(self) -> dict[str, Any]:
        return {"raw": self.raw, "optimizer": self.adam.state_dict(), "density": self.representation.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Put back what `state` gave; raw tensors may have other sizes than these."""
        self.owner.load_raw(state["raw"])
        for group, parameters in zip(self.adam.param_groups, self.owner.param_groups(), strict=True):
            group["params"] = parameters["params"]
        self.adam.load_state_dict(state["optimizer"])
        self.representation.load_state(state["density"])
