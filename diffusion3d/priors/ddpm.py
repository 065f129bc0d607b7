"""A text- and camera-conditioned multi-view DDPM in pixel space."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError
from safetensors.torch import load as load_safetensors
from torch import Tensor, nn

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.errors import UserError
from diffusion3d.priors.base import Prior
from diffusion3d.priors.text import SentenceEncoder


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
        weights: safetensors file with the network's weights; None starts from scratch.
        sha256: expected hash of that file; None does not check.
        precision: "bf16" runs the network under autocast; conversions stay float32.
    """

    space = "pixel"

    def __init__(
        self,
        network: nn.Module,
        text: SentenceEncoder,
        image_size: int = 128,
        num_timesteps: int = 1000,
        weights: str | None = None,
        sha256: str | None = None,
        precision: str = "fp32",
    ) -> None:
        super().__init__()
        self.network = network.to(memory_format=torch.channels_last)
        self.text = text
        self.image_size = image_size
        self.schedule = Schedule.cosine(num_timesteps, image_size)
        self.precision = precision
        if weights is not None:
            self.network.load_state_dict(read_weights(Path(weights), sha256, self.network))

    def condition(
        self, prompts: Sequence[str], cameras: Cameras, background: Float[Tensor, "B 3"] | None = None
    ) -> Condition:
        text = self.text.encode(prompts)
        if background is None:
            background = torch.ones(len(prompts), 3, device=cameras.c2w.device)
        return Condition(cameras=cameras, extra={"background": background}).with_text(text)

    def encode(self, images: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 3 H W"]:
        return images * 2 - 1

    def decode(self, x: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V 3 H W"]:
        return (x + 1) / 2

    def denoise(self, x_t: Float[Tensor, "B V 3 H W"], t: Int[Tensor, "*S"], condition: Condition) -> Prediction:
        if condition.cameras is None:
            raise ValueError("DDPM.denoise: the condition has no cameras")
        scenes, views, _, height, width = x_t.shape
        levels = t[:, None].expand(scenes, views) if t.ndim == 1 else t
        rays = plucker(condition.cameras, height // self.network.patch, width // self.network.patch)
        text: dict[str, Tensor] = {}
        if condition.tokens is not None and condition.token_mask is not None and condition.pooled is not None:
            text = {
                "tokens": condition.tokens[:, 0],
                "token_mask": condition.token_mask[:, 0],
                "pooled": condition.pooled[:, 0],
            }
        time = (levels + 1).float() / self.schedule.num_timesteps
        time = torch.where(levels < 0, torch.full_like(time, -1.0), time)
        background = condition.extra["background"] * 2 - 1
        with torch.autocast(x_t.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            x0 = self.network(x_t, time, rays, background, **text)
        clean = (levels < 0)[:, :, None, None, None]
        return Prediction(torch.where(clean, x_t, x0.float()))


def read_weights(path: Path, sha256: str | None, network: nn.Module) -> dict[str, Tensor]:
    """Weights for `network` from a safetensors file, in float32.

    Raises:
        UserError: the file is missing, truncated, not the expected one, or made for another network.
    """
    if not path.is_file():
        raise UserError(f"prior.weights={path} does not exist; give a .safetensors file, or null to start from scratch")
    data = path.read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    if sha256 is not None and digest != sha256:
        raise UserError(f"{path} has sha256 {digest[:12]}…, expected {sha256[:12]}…: the download or checkout is damaged")
    try:
        state = load_safetensors(data)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); fetch it again") from None
    want = {name: tuple(value.shape) for name, value in network.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in state.items()}
    if want != have:
        odd = next(name for name in sorted(want.keys() | have.keys()) if want.get(name) != have.get(name))
        raise UserError(
            f"{path} does not fit prior.network: {odd} is {have.get(odd, 'missing')} in the file and "
            f"{want.get(odd, 'absent')} in the network; set prior.network as the weights' card says"
        )
    return {name: value.float() for name, value in state.items()}
