"""The contract of every prior."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition, Prediction, concatenate
from diffusion3d.diffusion.schedule import Schedule


class Prior(nn.Module, ABC):
    """A diffusion model with x0 as its canonical output.

    Attributes:
        space: what it diffuses; "pixel" is [B,V,3,H,W] in [-1, 1], "latent" [B,V,C,h,w].
        schedule: its noise levels.
        image_size: side of the square views it knows, pixels.
        network: the part that learns.
        fingerprint: sha256 of the weights it was made with, None from scratch.
        untrained: names of the parameters that these weights lack, so that it has to be trained before it is used.
    """

    space: str
    schedule: Schedule
    image_size: int
    network: nn.Module
    fingerprint: str | None = None
    untrained: tuple[str, ...] = ()

    @abstractmethod
    def denoise(self, x_t: Tensor, t: Int[Tensor, "*S"], condition: Condition) -> Prediction:
        """x0 from x_t, in float32 and never clamped. Items with t = -1 are clean and come back unchanged."""

    @abstractmethod
    def condition(
        self, prompts: Sequence[str], cameras: Cameras, background: Float[Tensor, "B 3"] | None = None
    ) -> Condition:
        """The condition for B prompts seen from B x V cameras before a background colour (sRGB in [0, 1], white if None).

        The colour stands in `extra["background"]` for those who composite renders, whether the prior is told it or not.
        """

    def plain_text(self, prompts: Sequence[str], cameras: Cameras) -> Condition:
        """The text of `condition` for prompts taken as they are written, where `condition` would word what a camera sees."""
        return self.condition(prompts, cameras)

    def noise_shape(self, scenes: int, views: int) -> tuple[int, ...]:
        """The shape of what it diffuses."""
        return scenes, views, 3, self.image_size, self.image_size

    def freeze(self, device: torch.device) -> Prior:
        """For inference on a device alone: evaluation mode, no gradients to its parameters. Weights may be kept in less
        precision, and go there so."""
        return self.eval().requires_grad_(False).to(device)

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """Write the weights in float16, so that a config can name them, and `facts` beside them; of a `trainable` prior."""
        raise NotImplementedError(f"{type(self).__name__} is not trainable")

    @abstractmethod
    def encode(self, images: Float[Tensor, "B V 3 H W"]) -> Tensor:
        """Images in [0, 1] to the prior's space, differentiable."""

    @abstractmethod
    def decode(self, x: Tensor) -> Float[Tensor, "B V 3 H W"]:
        """The prior's space to images, not clamped."""

    def warning(self, prompt: str) -> str | None:
        """What to tell someone whose prompt lies outside what the prior knows, as all do of one from scratch; or None."""
        return None

    def predict(self, x_t: Tensor, t: Int[Tensor, "*S"], conditions: Mapping[str, Condition]) -> dict[str, Prediction]:
        """Denoise the same items under several named conditions in one batch."""
        count, size = len(conditions), x_t.shape[0]
        x = x_t.repeat(count, *([1] * (x_t.ndim - 1)))
        levels = t.repeat(count, *([1] * (t.ndim - 1)))
        x0 = self.denoise(x, levels, concatenate(list(conditions.values()))).x0
        return {name: Prediction(x0[i * size : (i + 1) * size]) for i, name in enumerate(conditions)}
