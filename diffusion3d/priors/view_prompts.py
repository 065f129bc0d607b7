"""Words for the side from which a camera sees the object, for priors that see no camera (DreamFusion, section 3.2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError


class ViewPrompts:
    """Words every view's prompt by the azimuth and elevation of its camera.

    Args:
        front, side, back, overhead: the wording, {} is the prompt.
        half_angle: of the front and of the back, degrees of azimuth to either side.
        elevation: from which on a view is from overhead, degrees.
        blend: embeddings change with azimuth from front to side to back (Armandpour et al. 2023, section 4.2), where else one
            wording holds up to `half_angle` and another beyond.

    Raises:
        UserError: a wording without {}, or angles that cannot be.
    """

    def __init__(
        self,
        front: str = "{}, front view",
        side: str = "{}, side view",
        back: str = "{}, back view",
        overhead: str = "{}, overhead view",
        half_angle: float = 45.0,
        elevation: float = 60.0,
        blend: bool = False,
    ) -> None:
        self.wordings = (front, side, back, overhead)
        odd = next((wording for wording in self.wordings if "{}" not in wording), None)
        if odd is not None:
            raise UserError(f"prior.view_prompts: {odd!r} must hold {{}}, where the prompt goes")
        if not 0 < half_angle < 90 or not 0 < elevation <= 90:
            raise UserError(
                f"prior.view_prompts: half_angle={half_angle:g} must lie inside 0 ... 90, elevation={elevation:g} in 0 ... 90"
            )
        self.half_angle, self.elevation, self.blend = half_angle, elevation, blend

    def shares(self, cameras: Cameras) -> Float[Tensor, "B V 4"]:
        """How much of front, side, back and overhead there is in a view; they sum to 1."""
        azimuth = cameras.azimuth.abs()
        if self.blend:
            front, back = (1 - azimuth / 90).clamp(min=0), (azimuth / 90 - 1).clamp(min=0)
        else:
            front, back = (azimuth < self.half_angle).float(), (azimuth > 180 - self.half_angle).float()
        level = torch.stack([front, 1 - front - back, back, torch.zeros_like(front)], -1)
        above = torch.tensor([0.0, 0.0, 0.0, 1.0], device=level.device)
        return torch.where((cameras.elevation >= self.elevation)[..., None], above, level)

    def worded(self, prompt: str) -> list[str]:
        """A prompt as it is said of front, side, back and from overhead."""
        return [wording.replace("{}", prompt) for wording in self.wordings]

    def text(self, prompts: Sequence[str], cameras: Cameras, encode: Callable[[Sequence[str]], Condition]) -> Condition:
        """The text fields of a Condition, a row for every view."""
        shares = self.shares(cameras)
        total = Condition()
        for i in range(len(self.wordings)):
            if not bool((shares[..., i] > 0).any()):
                continue
            said, share = encode([self.worded(prompt)[i] for prompt in prompts]), shares[..., i]
            total = Condition(
                tokens=_add(total.tokens, said.tokens, share[..., None, None]),
                token_mask=_expand(said.token_mask, cameras),
                pooled=_add(total.pooled, said.pooled, share[..., None]),
            )
        return total


def _add(total: Tensor | None, part: Tensor | None, share: Tensor) -> Tensor | None:
    if part is None:
        return None
    return share * part if total is None else total + share * part


def _expand(mask: Tensor | None, cameras: Cameras) -> Tensor | None:
    return None if mask is None else mask.expand(-1, cameras.shape[1], -1)
