"""A background of the scene's own."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.representations.encodings import Frequency
from diffusion3d.representations.heads import MLP

PREFIX = "background_"


class LearnedBackground:
    """sRGB of every direction by a small MLP (Poole et al. 2023, section 3.2), so that the scene need not explain it.

    Args:
        degree: octaves of the directions' encoding.
        width, layers: of the hidden layers.
    """

    def __init__(self, degree: int = 4, width: int = 32, layers: int = 1) -> None:
        self.encoding = Frequency(degree)
        self.mlp = MLP(width, layers, outputs=3)
        self.names = tuple(PREFIX + name for name in self.mlp.names)

    def init(self, scenes: int, generator: torch.Generator | None = None) -> dict[str, Tensor]:
        return {
            PREFIX + name: value for name, value in self.mlp.init(self.encoding.channels, scenes, generator).items()
        }

    def __call__(self, raw: Mapping[str, Tensor], directions: Float[Tensor, "B N 3"]) -> Float[Tensor, "B N 3"]:
        own = {name.removeprefix(PREFIX): raw[name] for name in self.names}
        return self.mlp(own, self.encoding({}, F.normalize(directions, dim=-1))).sigmoid()
