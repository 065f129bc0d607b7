"""Stable Diffusion and its kin as priors, from a folder in diffusers' format or from the hub, in latents and in pixels."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.errors import UserError
from diffusion3d.files import whole_folder, write_text
from diffusion3d.precision import autocast, compute_dtype
from diffusion3d.priors import hub
from diffusion3d.priors.base import Prior
from diffusion3d.priors.pipelines import Pipeline
from diffusion3d.priors.text_embeddings import TextEmbeddings
from diffusion3d.priors.view_prompts import ViewPrompts
from diffusion3d.priors.weights import forget_origin, halve


class StableDiffusion(Prior):
    """A text-to-image model. What is known of its kind stands in `pipelines.KINDS` and in the folder's own settings.

    Its views are judged one by one, unless the kind is a multi-view one. The null text is that of "", or zeros where the
    pipeline wants them.

    Args:
        model: a local folder, or an id on the hub.
        family: of the model, `Kind.family`, which says what it can; another is refused, and none if None.
        image_size: side of the images that it denoises, pixels; others are resized before they are encoded. None is the size
            that the model was trained with.
        view_prompts: words the side that a camera sees; None leaves prompts as they are.
        distilled: whether it was trained to need no classifier-free guidance, so that it has no estimate without text; None
            says so of models that embed the scale of guidance (LCM) and of those with "turbo" in their name.
        embedded_scale: of classifier-free guidance, for models that embed it.
        variant: of the weights, such as "fp16", where there are several.
        precision: of UNet and text encoders, as `compute_dtype` reads it.
        vae_precision: of the VAE, through which gradients flow.
        vae_slicing, vae_tiling: encode and decode one image at a time, or one part of it.
        attention_slicing: compute attention in parts.
        text_offload: keep text encoders on the CPU.
        text_cache: a folder for the embeddings of prompts; None keeps none.

    Raises:
        UserError: the model cannot be found, is of an unknown kind or another family, or damaged; a size that it cannot have.
    """

    network: Any
    vae: Any

    def __init__(
        self,
        model: str,
        family: str | None = None,
        image_size: int | None = None,
        view_prompts: ViewPrompts | None = None,
        distilled: bool | None = None,
        embedded_scale: float = 7.5,
        variant: str | None = None,
        precision: str = "auto",
        vae_precision: str = "fp32",
        vae_slicing: bool = False,
        vae_tiling: bool = False,
        attention_slicing: bool = False,
        text_offload: bool = False,
        text_cache: str | None = None,
    ) -> None:
        super().__init__()
        self.pipeline = Pipeline(hub.find(model, variant, family), variant)
        self.kind = self.pipeline.kind
        self.space = self.kind.space
        self.schedule, self.prediction = self.pipeline.schedule()
        self.precision, self.vae_precision = precision, vae_precision
        if self.kind.views:
            from diffusion3d.priors.mvdream import load_unet

            self.network = load_unet(self.pipeline)
        else:
            self.network = self.pipeline.load("unet")
        self.network.requires_grad_(True)
        self.vae = self.pipeline.load("vae") if self.space == "latent" else None
        self._check_widths()
        if self.vae is not None:
            self.vae.use_slicing, self.vae.use_tiling = vae_slicing, vae_tiling
        if attention_slicing:
            if self.kind.views:
                raise UserError("prior.attention_slicing is not for multi-view models: set it to false")
            self.network.set_attention_slice("auto")
        factor = 1 if self.vae is None else 2 ** (len(self.vae.config.block_out_channels) - 1)
        self.image_size = image_size or self.network.config.sample_size * factor
        self.side: int = self.image_size // factor
        stride = factor * 2 ** (len(self.network.config.block_out_channels) - 1)
        if self.image_size % stride:
            raise UserError(f"prior.image_size={image_size} must be a multiple of {stride} for this model")
        self.embeddings = TextEmbeddings(
            self.pipeline, Path(text_cache).expanduser() if text_cache else None, precision, text_offload
        )
        self.view_prompts, self.embedded_scale = view_prompts, embedded_scale
        name = f"{Path(model).name} {self.pipeline.config('unet').get('_name_or_path')}".lower()
        embeds = self.network.config.time_cond_proj_dim is not None
        self.distilled = (embeds or "turbo" in name) if distilled is None else distilled
        self.fingerprint = self.pipeline.digest(sorted(self.kind.parts))

    def _check_widths(self) -> None:
        network = self.network.config
        channels = 3 if self.vae is None else self.vae.config.latent_channels
        if network.in_channels != channels or network.out_channels not in (channels, 2 * channels):
            raise UserError(
                f"{self.pipeline.path / 'unet'} takes {network.in_channels} channels and answers {network.out_channels}; a "
                f"text-to-image model takes {channels} (others inpaint, or need a depth map)"
            )
        configs = [self.pipeline.config(part.encoder) for part in self.kind.text]
        made = sum(config.get("hidden_size") or config.get("d_model") or 0 for config in configs)
        read = getattr(network, "encoder_hid_dim", None) or network.cross_attention_dim
        if {made} != set(read if isinstance(read, list | tuple) else [read]):
            raise UserError(
                f"{self.pipeline.path / 'unet'} reads text of width {read}, and the text encoders beside it make {made}: they "
                "are not of one model"
            )

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def train(self, mode: bool = True) -> StableDiffusion:
        """The VAE, which does not learn, stays in evaluation mode."""
        super().train(mode)
        if self.vae is not None:
            self.vae.eval()
        return self

    def freeze(self, device: torch.device) -> StableDiffusion:
        nn.Module.to(self.network, compute_dtype(device, self.precision))
        super().freeze(device)
        return self

    def warning(self, prompt: str) -> str | None:
        said = [prompt] if self.view_prompts is None else self.view_prompts.worded(prompt)
        length = next(filter(None, map(self.embeddings.too_long, said)), None)
        return None if length is None else f"the prompt is cut to the {length} tokens that the text encoder reads"

    def noise_shape(self, scenes: int, views: int) -> tuple[int, ...]:
        return scenes, views, self.network.config.in_channels, self.side, self.side

    def condition(
        self, prompts: Sequence[str], cameras: Cameras, background: Float[Tensor, "B 3"] | None = None
    ) -> Condition:
        """What is said of the background is for those who composite renders; no model of this kind is told a colour."""
        if background is None:
            background = torch.ones(len(prompts), 3, device=cameras.c2w.device)
        if self.view_prompts is None:
            text = self._encode_text(prompts)
        else:
            text = self.view_prompts.text(prompts, cameras, self._encode_text)
        return Condition(cameras=cameras, extra={"background": background}).with_text(text)

    def plain_text(self, prompts: Sequence[str], cameras: Cameras) -> Condition:
        return self._encode_text(prompts)

    def _encode_text(self, prompts: Sequence[str]) -> Condition:
        return self.embeddings.encode(prompts, self.device)

    def encode(self, images: Float[Tensor, "B V 3 H W"]) -> Float[Tensor, "B V C h w"]:
        """The mode of the VAE's posterior, scaled as the UNet knows it; for pixels, images in [-1, 1]."""
        flat = images.flatten(0, 1)
        if flat.shape[-2:] != (self.image_size, self.image_size):
            flat = F.interpolate(flat, (self.image_size, self.image_size), mode="bilinear", antialias=True)
        x = flat * 2 - 1
        if self.vae is not None:
            with autocast(x.device, self.vae_precision):
                mode = self.vae.encode(x).latent_dist.mode()
            x = (mode.float() - self._shift) * self.vae.config.scaling_factor
        return x.unflatten(0, images.shape[:2])

    def decode(self, x: Float[Tensor, "B V C h w"]) -> Float[Tensor, "B V 3 H W"]:
        flat = x.flatten(0, 1)
        if self.vae is not None:
            with autocast(x.device, self.vae_precision):
                flat = self.vae.decode(flat / self.vae.config.scaling_factor + self._shift).sample
        return (flat.float().unflatten(0, x.shape[:2]) + 1) / 2

    @property
    def _shift(self) -> float:
        assert self.vae is not None
        return self.vae.config.shift_factor or 0.0

    def denoise(self, x_t: Float[Tensor, "B V C h w"], t: Int[Tensor, "*S"], condition: Condition) -> Prediction:
        scenes, views, channels = x_t.shape[:3]
        levels = t[:, None].expand(scenes, views) if t.ndim == 1 else t
        tokens, pooled = self._text(condition, scenes, views)
        dtype = self.network.dtype
        with autocast(x_t.device, self.precision):
            answer = self.network(
                x_t.flatten(0, 1).to(dtype),
                levels.clamp(min=0).flatten(),
                encoder_hidden_states=tokens.to(dtype),
                **self._inputs(condition, pooled, scenes, views),
            ).sample
        # the other channels of DeepFloyd's answer are a variance
        answer = answer.float().unflatten(0, (scenes, views))[:, :, :channels]
        if self.prediction == "epsilon":
            answer = self.schedule.x0_from_eps(x_t, answer, levels)
        elif self.prediction == "v_prediction":
            answer = self.schedule.x0_from_v(x_t, answer, levels)
        return Prediction(torch.where((levels < 0)[:, :, None, None, None], x_t, answer))

    def _text(self, condition: Condition, scenes: int, views: int) -> tuple[Tensor, Tensor | None]:
        """Tokens [B V,L,D] and pooled text [B V,E], the null text's where a condition has none."""
        null = self._null()
        assert null.tokens is not None
        tokens, pooled, mask = condition.tokens, condition.pooled, condition.token_mask
        if tokens is None or mask is None:
            tokens, pooled = null.tokens, null.pooled
            dropped = torch.ones(1, 1, dtype=torch.bool, device=tokens.device)
        else:
            dropped = ~mask.any(-1)
            tokens = torch.where(dropped[..., None, None], null.tokens, tokens)
            if pooled is not None and null.pooled is not None:
                pooled = torch.where(dropped[..., None], null.pooled, pooled)
        if self.distilled and bool(dropped.any()):
            raise UserError(
                f"prior.model={self.pipeline.path} was distilled to need no classifier-free guidance and has no estimate "
                "without text: set guidance.scale=1 in a scheme that asks for none then, such as sds (task.scale=1 for "
                "task=sample); prior.distilled=false takes it for another"
            )

        def rows(value: Tensor) -> Tensor:
            return value.expand(scenes, views, *value.shape[2:]).flatten(0, 1)

        return rows(tokens), None if pooled is None else rows(pooled)

    def _null(self) -> Condition:
        null = self._encode_text([""])
        if self.kind.sized and self.pipeline.index.get("force_zeros_for_empty_prompt", True):
            assert null.tokens is not None and null.pooled is not None
            return Condition(torch.zeros_like(null.tokens), null.token_mask, torch.zeros_like(null.pooled))
        return null

    def _inputs(self, condition: Condition, pooled: Tensor | None, scenes: int, views: int) -> dict[str, Any]:
        """What a UNet of this kind is told beside levels and tokens."""
        inputs: dict[str, Any] = {}
        dtype, device = self.network.dtype, self.device
        if self.kind.sized:
            assert pooled is not None
            size = [self.image_size, self.image_size, 0, 0, self.image_size, self.image_size]
            times = torch.tensor([size], device=device).expand(scenes * views, -1)
            inputs["added_cond_kwargs"] = {"text_embeds": pooled.to(dtype), "time_ids": times}
        if self.network.config.time_cond_proj_dim is not None:
            scale = scale_embedding(self.embedded_scale, self.network.config.time_cond_proj_dim)
            inputs["timestep_cond"] = scale.to(device, dtype).expand(scenes * views, -1)
        if self.kind.views:
            from diffusion3d.priors.mvdream import camera_numbers

            if condition.cameras is None:
                raise ValueError("StableDiffusion.denoise: the condition has no cameras")
            inputs["class_labels"] = camera_numbers(condition.cameras).flatten(0, 1).to(dtype)
            inputs["cross_attention_kwargs"] = {"views": views}
        return inputs

    def save(self, folder: Path) -> None:
        """Write the pipeline as it is now in diffusers' format; UNet and VAE as they are, the rest as it came.

        Of a kind that diffusers knows, `DiffusionPipeline.from_pretrained(folder)` draws with it. It takes the place of all
        that the folder held before.
        """
        parts = self.kind.parts
        index = {
            name: [None, None] if isinstance(value, list) and name not in parts else value
            for name, value in self.pipeline.index.items()
        }
        index["unet"] = ["diffusers", "UNet2DConditionModel"]
        if "requires_safety_checker" in index:
            index["requires_safety_checker"] = False
        with whole_folder(folder) as new:
            self.network.save_pretrained(new / "unet")
            if self.vae is not None:
                self.vae.save_pretrained(new / "vae")
            for part in set(parts) - {"unet", "vae"}:
                shutil.copytree(self.pipeline.path / part, new / part)
            write_text(new / "model_index.json", json.dumps(index, indent=2) + "\n")

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """A pipeline, for `prior.model`; the facts are in training.json."""
        with whole_folder(folder) as new:
            self.save(new)
            halve(new)
            forget_origin(new)
            write_text(new / "training.json", json.dumps(facts, indent=1) + "\n")


def scale_embedding(scale: float, width: int) -> Float[Tensor, "1 D"]:
    """How a latent consistency model is told the scale of guidance (Luo et al. 2023, section 4.2): sines and cosines of
    1000 (scale - 1), with diffusers' meaning of the scale.
    """
    half = width // 2
    rates = torch.exp(torch.arange(half) * (-torch.log(torch.tensor(10_000.0)) / (half - 1)))
    angles = 1000 * (scale - 1) * rates
    return F.pad(torch.cat([angles.sin(), angles.cos()])[None], (0, width % 2))
