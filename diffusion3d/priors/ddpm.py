"""A text- and camera-conditioned multi-view DDPM in pixel space."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.errors import UserError
from diffusion3d.precision import autocast
from diffusion3d.priors.base import Prior
from diffusion3d.priors.text import SentenceEncoder
from diffusion3d.priors.unet import MultiViewUNet
from diffusion3d.priors.weights import find_weights, read_weights, write_weights

log = logging.getLogger(__name__)

FAMILIAR = 0.45
"""Cosine similarity to the nearest known subject below which a prompt is unknown."""


def plucker(cameras: Cameras, height: int, width: int) -> Float[Tensor, "B V 6 H W"]:
    """Plücker coordinates (d, o x d) of the rays through a height x width grid, d of unit length."""
    rays_o, rays_d = cameras.resize(height, width).rays()
    d = torch.nn.functional.normalize(rays_d, dim=-1)
    return torch.cat([d, torch.linalg.cross(rays_o, d)], -1).movedim(-1, -3)


class DDPM(Prior):
    """V views denoised jointly by a network that sees their cameras (V = 1 included; each view has its own level).

    Args:
        network: predicts x0 from (x, time, rays, background, tokens, token_mask, pooled).
        text: encodes prompts.
        image_size: side of the views, pixels.
        num_timesteps: levels of the cosine schedule.
        weights: safetensors file with the network's weights, a path or one that ships; None starts from scratch.
        precision: "bf16" runs the network under autocast; conversions stay float32. "auto" does where it is fast.
    """

    space = "pixel"

    def __init__(
        self,
        network: MultiViewUNet,
        text: SentenceEncoder,
        image_size: int = 64,
        num_timesteps: int = 1000,
        weights: str | None = None,
        precision: str = "auto",
    ) -> None:
        super().__init__()
        if image_size % network.stride:
            raise UserError(
                f"prior.image_size={image_size} must be a multiple of {network.stride}, what the network shrinks views by"
            )
        if text.dim != network.text.in_features:
            raise UserError(
                f"prior.network.text={network.text.in_features} must be the text encoder's width, {text.dim}"
            )
        self.network = network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # absent from the stubs
        self.patch, self.stride = network.patch, network.stride
        self.text = text
        self.image_size = image_size
        self.schedule = Schedule.cosine(num_timesteps, image_size)
        self.precision = precision
        self.vocabulary: tuple[str, ...] = ()
        if weights is not None:
            state, facts = read_weights(find_weights(weights), self.network)
            self.untrained = tuple(self.network.load_state_dict(state, strict=False).missing_keys)
            self.vocabulary = tuple(facts.get("vocabulary", ()))
            self.fingerprint = facts["sha256"]
            for name, value in (("image_size", image_size), ("num_timesteps", num_timesteps)):
                if facts.get(name, value) != value:
                    log.warning(
                        "%s was trained with prior.%s=%s and is used with %s: it needs training to go on from there",
                        weights,
                        name,
                        facts[name],
                        value,
                    )

    def condition(
        self, prompts: Sequence[str], cameras: Cameras, background: Float[Tensor, "B 3"] | None = None
    ) -> Condition:
        text = self.text.encode(prompts)
        if background is None:
            background = torch.ones(len(prompts), 3, device=cameras.c2w.device)
        return Condition(cameras=cameras, extra={"background": background}).with_text(text)

    @torch.no_grad()
    def warning(self, prompt: str) -> str | None:
        if self.fingerprint is None:
            return "prior.weights=null: the prior has learnt nothing, and draws nothing"
        if not self.vocabulary or not prompt.strip():
            return None
        pooled = self.text.encode([prompt, *self.vocabulary]).pooled
        assert pooled is not None
        similarity = torch.nn.functional.cosine_similarity(pooled[:1, 0], pooled[1:, 0])
        if float(similarity.max()) >= FAMILIAR:
            return None
        near = [self.vocabulary[i] for i in similarity.topk(min(3, len(self.vocabulary))).indices.tolist()]
        return (
            f"the prior has never seen anything like {prompt[:60]!r}; nearest of the {len(self.vocabulary)} subjects it "
            f"knows: {', '.join(near)}. Other subjects need a prior trained on open-vocabulary images."
        )

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """weights.safetensors, for `prior.weights`."""
        write_weights(folder / "weights.safetensors", self.network, facts)

    def encode(self, images: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 3 H W"]:
        return images * 2 - 1

    def decode(self, x: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 3 H W"]:
        return (x + 1) / 2

    def denoise(self, x_t: Float[Tensor, "B V 3 H W"], t: Int[Tensor, "*S"], condition: Condition) -> Prediction:
        if condition.cameras is None:
            raise ValueError("DDPM.denoise: the condition has no cameras")
        scenes, views, _, height, width = x_t.shape
        if height % self.stride or width % self.stride:
            raise UserError(f"views of {height} x {width} pixels: both must be multiples of {self.stride}")
        levels = t[:, None].expand(scenes, views) if t.ndim == 1 else t
        rays = plucker(condition.cameras, height // self.patch, width // self.patch)
        text: dict[str, Tensor] = {}
        if condition.tokens is not None and condition.token_mask is not None and condition.pooled is not None:
            if condition.tokens.shape[1] != 1:
                raise ValueError("DDPM.denoise: one text per scene, not one per view")
            text = {
                "tokens": condition.tokens[:, 0],
                "token_mask": condition.token_mask[:, 0],
                "pooled": condition.pooled[:, 0],
            }
        time = (levels + 1).float() / self.schedule.num_timesteps
        time = torch.where(levels < 0, torch.full_like(time, -1.0), time)
        background = condition.extra["background"] * 2 - 1
        with autocast(x_t.device, self.precision):
            x0 = self.network(x_t, time, rays, background, **text)
        clean = (levels < 0)[:, :, None, None, None]
        return Prediction(torch.where(clean, x_t, x0.float()))
