"""Multi-view latent diffusion of MVDream's kind (Shi et al. 2024): Stable Diffusion's UNet whose self-attention spans all views
of a scene and whose time embedding is told their cameras.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.errors import UserError
from diffusion3d.priors.pipelines import Pipeline

CAMERA = 16
"""Numbers that say a camera."""


def camera_numbers(cameras: Cameras) -> Float[Tensor, "B V 16"]:
    """Camera-to-world transforms by rows, OpenGL axes (x right, y up, z backward), every centre at distance 1 from the origin.

    The world has z up and the front along +x, as here.
    """
    c2w = cameras.c2w.clone()
    c2w[..., :3, 1:3] *= -1
    c2w[..., :3, 3] = F.normalize(c2w[..., :3, 3], dim=-1)
    return c2w.flatten(-2)


class ViewAttention(AttnProcessor2_0):
    """Attention of a UNet whose batch holds the views of a scene side by side.

    Args:
        joint: whether a pixel attends to those of all views, where else to its own view's.
    """

    def __init__(self, joint: bool) -> None:
        super().__init__()
        self.joint = joint

    def __call__(
        self,
        attn: Attention,
        hidden_states: Float[Tensor, "N L D"],
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
        views: int = 1,
    ) -> Float[Tensor, "N L D"]:
        if not self.joint:
            return super().__call__(attn, hidden_states, encoder_hidden_states, attention_mask, temb)
        number, length, width = hidden_states.shape
        together = hidden_states.reshape(number // views, views * length, width)
        return super().__call__(attn, together, None, attention_mask, temb).reshape(number, length, width)


def join_views(unet: Any) -> None:
    """Let self-attention of a UNet2DConditionModel span the views; a call says how many: cross_attention_kwargs={"views": V}.

    Raises:
        UserError: the UNet is told no cameras.
    """
    if unet.config.class_embed_type != "projection" or unet.config.projection_class_embeddings_input_dim != CAMERA:
        raise UserError(
            "a multi-view UNet must embed cameras: class_embed_type=projection of 16 numbers in unet/config.json"
        )
    unet.set_attn_processor({name: ViewAttention(".attn1." in name) for name in unet.attn_processors})


def load_unet(pipeline: Pipeline) -> Any:
    """The UNet of a folder, in diffusers' own format or with the published program's settings and names of weights.

    Raises:
        UserError: settings that are not read here, or weights that do not fit them.
    """
    config = pipeline.config("unet")
    if config.get("_class_name") == "UNet2DConditionModel":
        unet: Any = pipeline.load("unet")
    else:
        unet = UNet2DConditionModel(**diffusers_config(config))
        names = dict(ldm_names(unet.config))
        try:
            state = {name: value for path in pipeline.weights("unet") for name, value in load_file(path).items()}
            state = {names.get(name, name): value.float() for name, value in state.items()}
            unet.load_state_dict(state)
        except (OSError, SafetensorError, RuntimeError) as error:
            raise UserError(f"{pipeline.path / 'unet'} does not fit its config.json: {str(error)[:200]}") from None
        unet.eval().requires_grad_(False)
    join_views(unet)
    return unet


def diffusers_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of diffusers' UNet from those of the published one (`MultiViewUNetModel`).

    Raises:
        UserError: it has what MVDream has not, such as an image to start from (ImageDream).
    """
    if config.get("ip_dim") or config.get("camera_dim") != CAMERA or config.get("num_classes"):
        raise UserError(
            f"the multi-view UNet has ip_dim={config.get('ip_dim')}, camera_dim={config.get('camera_dim')} and num_classes="
            f"{config.get('num_classes')}; only MVDream's are known: 0, {CAMERA} and null"
        )
    needed = ("in_channels", "out_channels", "model_channels", "channel_mult", "num_res_blocks", "context_dim")
    absent = next(
        (name for name in (*needed, "attention_resolutions", "num_head_channels") if name not in config), None
    )
    if absent is not None:
        raise UserError(f"the multi-view UNet's config.json does not say its {absent}: fetch it again")
    channels = [config["model_channels"] * factor for factor in config["channel_mult"]]
    attends = [2**level in config["attention_resolutions"] for level in range(len(channels))]
    return {
        "sample_size": config.get("image_size", 32),
        "in_channels": config["in_channels"],
        "out_channels": config["out_channels"],
        "down_block_types": ["CrossAttnDownBlock2D" if there else "DownBlock2D" for there in attends],
        "up_block_types": ["CrossAttnUpBlock2D" if there else "UpBlock2D" for there in reversed(attends)],
        "block_out_channels": channels,
        "layers_per_block": config["num_res_blocks"],
        "transformer_layers_per_block": config.get("transformer_depth", 1),
        "cross_attention_dim": config["context_dim"],
        # diffusers means the number of heads by it
        "attention_head_dim": [width // config["num_head_channels"] for width in channels],
        "use_linear_projection": True,
        "class_embed_type": "projection",
        "projection_class_embeddings_input_dim": CAMERA,
    }


RESNET = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "time_emb_proj",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "conv_shortcut",
}
OUTSIDE = {
    "time_embed.0": "time_embedding.linear_1",
    "time_embed.2": "time_embedding.linear_2",
    "camera_embed.0": "class_embedding.linear_1",
    "camera_embed.2": "class_embedding.linear_2",
    "input_blocks.0.0": "conv_in",
    "out.0": "conv_norm_out",
    "out.2": "conv_out",
}


def ldm_names(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(the name of a weight in the published program, in diffusers' UNet) for all that such a UNet may have."""
    levels, layers = len(config["block_out_channels"]), config["layers_per_block"]
    places: list[tuple[str, str, Mapping[str, str]]] = [(old, new, {"": ""}) for old, new in OUTSIDE.items()]
    spatial = list(_spatial(config))

    def block(old: str, new: str, layer: int, attention: bool) -> None:
        places.append((f"{old}.0", f"{new}.resnets.{layer}", RESNET))
        if attention:
            places.extend((f"{old}.1.{a}", f"{new}.attentions.{layer}.{b}", {"": ""}) for a, b in spatial)

    for level in range(levels):
        down, up = f"down_blocks.{level}", f"up_blocks.{level}"
        attends = "CrossAttn" in config["down_block_types"][level], "CrossAttn" in config["up_block_types"][level]
        for layer in range(layers):
            block(f"input_blocks.{1 + level * (layers + 1) + layer}", down, layer, attends[0])
        places.append((f"input_blocks.{(level + 1) * (layers + 1)}.0.op", f"{down}.downsamplers.0.conv", {"": ""}))
        for layer in range(layers + 1):
            block(f"output_blocks.{level * (layers + 1) + layer}", up, layer, attends[1])
        last = f"output_blocks.{level * (layers + 1) + layers}.{1 + attends[1]}.conv"
        places.append((last, f"{up}.upsamplers.0.conv", {"": ""}))
    places.append(("middle_block.0", "mid_block.resnets.0", RESNET))
    places.extend((f"middle_block.1.{a}", f"mid_block.attentions.0.{b}", {"": ""}) for a, b in spatial)
    places.append(("middle_block.2", "mid_block.resnets.1", RESNET))
    for old, new, inner in places:
        for (a, b), leaf in product(inner.items(), ("weight", "bias")):
            yield ".".join(filter(None, (old, a, leaf))), ".".join(filter(None, (new, b, leaf)))


def _spatial(config: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The layers of a spatial transformer, which have one name in both."""
    depth = config["transformer_layers_per_block"]
    attention = [f"{name}.{layer}" for name, layer in product(("attn1", "attn2"), ("to_q", "to_k", "to_v", "to_out.0"))]
    inside = [*attention, "ff.net.0.proj", "ff.net.2", "norm1", "norm2", "norm3"]
    for name in (
        "norm",
        "proj_in",
        "proj_out",
        *(f"transformer_blocks.{i}.{x}" for i, x in product(range(depth), inside)),
    ):
        yield name, name
