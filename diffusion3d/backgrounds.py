"""Colours behind objects."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.errors import UserError


class Backgrounds:
    """Random plain backgrounds.

    Args:
        white, grey, colour: how often the background is white, any grey, any colour, relative to one another.
    """

    def __init__(self, white: float = 0.3, grey: float = 0.5, colour: float = 0.2) -> None:
        self.shares = torch.tensor([white, grey, colour], dtype=torch.float32)
        if bool((self.shares < 0).any()) or float(self.shares.sum()) == 0:
            raise UserError(f"backgrounds: white={white}, grey={grey}, colour={colour} must be >= 0, one of them > 0")

    def sample(self, scenes: int) -> Float[Tensor, "B 3"]:
        """sRGB colours, drawn from torch's global CPU generator."""
        kind = torch.multinomial(self.shares, scenes, True)
        grey, colour = torch.rand(scenes, 1).expand(-1, 3), torch.rand(scenes, 3)
        return torch.stack([torch.ones(scenes, 3), grey, colour])[kind, torch.arange(scenes)]
