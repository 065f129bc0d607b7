"""Train a latent prior's autoencoder."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.errors import UserError
from diffusion3d.metrics.images import psnr
from diffusion3d.objectives.base import Objective, Share
from diffusion3d.precision import autocast
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.views import PosedViews

SCALES = (1, 2, 4)
"""Sides of the squares, in pixels, whose averages are compared."""
SHOWN = 4
"""Scenes in a preview."""


class Autoencoder(Objective):
    """Absolute errors of averages over squares and of their differences between neighbours, and a small KL divergence.

    loss = sum over SCALES of mean |e| + edges * mean |grad e|, with e = decoded - image, both in [-1, 1], averaged over
    squares; plus kl * KL(q(z|x), N(0, 1)) over the number of the image's values (Rombach et al. 2022, appendix G).

    Args:
        prior: whose VAE learns.
        edges: weight of the differences.
        kl: weight of the divergence.
        backgrounds: behind the objects.
        crop: side of the square of every image that it learns from, pixels; None: whole images.

    Raises:
        UserError: the VAE cannot encode squares of that side.
    """

    def __init__(
        self,
        prior: StableDiffusion,
        edges: float = 1.0,
        kl: float = 1e-6,
        backgrounds: Backgrounds | None = None,
        crop: int | None = None,
    ) -> None:
        super().__init__()
        assert prior.vae is not None
        self.prior, self.vae = prior, prior.vae.requires_grad_(True)
        factor = prior.image_size // prior.side
        if crop is not None and (crop <= 0 or crop % factor):
            raise UserError(
                f"objective.crop={crop} must be a positive multiple of {factor}, what this VAE shrinks images by"
            )
        self.edges, self.kl, self.crop = edges, kl, crop
        self.backgrounds = backgrounds or Backgrounds()

    def trained(self) -> nn.Module:
        return self.vae

    def posterior(self, images: Float[Tensor, "N 3 H W"]) -> Any:
        """Of the latents of images in [-1, 1]."""
        with autocast(images.device, self.prior.vae_precision):
            return self.vae.encode(images).latent_dist

    def decoded(self, latents: Float[Tensor, "N C h w"]) -> Float[Tensor, "N 3 H W"]:
        with autocast(latents.device, self.prior.vae_precision):
            return self.vae.decode(latents).sample.float()

    def loss(self, batch: PosedViews, share: Share | None = None) -> dict[str, Tensor]:
        scenes, views = batch.cameras.shape
        share = share or Share.of(scenes)
        background = share.own(self.backgrounds.sample(share.scenes)).to(batch.cameras.c2w.device)
        images = batch.over(background) * 2 - 1
        if self.crop is not None:
            images = _crop(images, share.own(torch.rand(share.scenes, views, 2)), self.crop)
        images = images.flatten(0, 1)
        posterior = self.posterior(images)
        noise = share.own(torch.randn(share.scenes, views, *posterior.mean.shape[1:])).flatten(0, 1).to(images.device)
        error = self.decoded(posterior.mean.float() + posterior.std.float() * noise) - images
        values = torch.zeros((), device=images.device)
        edges = torch.zeros((), device=images.device)
        for side in SCALES:
            e = F.avg_pool2d(error, side)
            values = values + e.abs().mean()
            edges = edges + (e.diff(dim=-1).abs().mean() + e.diff(dim=-2).abs().mean())
        divergence = posterior.kl().float().mean() / images[0].numel()
        terms = {"values": values, "edges": self.edges * edges, "kl": self.kl * divergence}
        return {name: share.part * term for name, term in terms.items()}

    def _decode_modes(self, images: Float[Tensor, "N 3 H W"]) -> tuple[Tensor, Tensor]:
        """Latents, and the images in [0, 1] that they become."""
        latents = self.posterior(images * 2 - 1).mode().float()
        return latents, ((self.decoded(latents) + 1) / 2).clamp(0, 1)

    @torch.no_grad()
    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        """PSNR before white, of whole images and of the object alone, dB, and the latents' standard deviation."""
        whole, inside, modes = [], [], []
        for batch in batches:
            images = _on_white(batch).flatten(0, 1)
            latents, decoded = self._decode_modes(images)
            modes.append(latents)
            whole.append(psnr(decoded, images))
            if batch.alpha is not None:
                inside.append(psnr(decoded, images, batch.alpha.flatten(0, 1) > 0))
        found = {"validation/psnr": float(torch.cat(whole).mean())}
        if inside:
            found["validation/psnr_object"] = float(torch.cat(inside).nanmean())
        return {**found, "validation/latent_std": float(torch.cat(modes).std())}

    @torch.no_grad()
    def preview(self, prompts: Sequence[str], batches: Sequence[PosedViews]) -> dict[str, Float[Tensor, "V 3 H W"]]:
        """Images and, right of them, what is decoded."""
        images = _on_white(batches[0])[:SHOWN]
        decoded = self._decode_modes(images.flatten(0, 1))[1].unflatten(0, images.shape[:2])
        captions = batches[0].captions or [""] * len(images)
        return {
            f"{number}: {captions[number]}": torch.cat([images[number], decoded[number]])
            for number in range(len(images))
        }

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        """The prior, which from now on scales latents to a standard deviation of 1."""
        self.vae.register_to_config(scaling_factor=1 / facts["scores"]["validation/latent_std"])
        self.prior.export(folder, facts)


def _crop(
    images: Float[Tensor, "B V 3 H W"], places: Float[Tensor, "B V 2"], side: int
) -> Float[Tensor, "B V 3 side side"]:
    """A square of every image; places in [0, 1), of rows and columns, from the first possible to the last."""
    height, width = images.shape[-2:]
    if side > min(height, width):
        raise UserError(
            f"objective.crop={side} is more than images of {width} x {height} pixels have; null takes them whole"
        )
    corners = (places * torch.tensor([height - side + 1, width - side + 1])).long()
    squares = [
        image[:, row : row + side, column : column + side]
        for image, (row, column) in zip(images.flatten(0, 1), corners.flatten(0, 1).tolist(), strict=True)
    ]
    return torch.stack(squares).unflatten(0, images.shape[:2])


def _on_white(batch: PosedViews) -> Float[Tensor, "B V 3 H W"]:
    return batch.over(torch.ones(batch.cameras.shape[0], 3, device=batch.cameras.c2w.device))
