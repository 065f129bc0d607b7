"""Train a text-to-image prior to denoise latents."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d import processes
from diffusion3d.data.base import PosedData
from diffusion3d.data.encoded import Encoded
from diffusion3d.diffusion.condition import Condition, concatenate
from diffusion3d.objectives.base import Share
from diffusion3d.objectives.denoising import Denoising
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.views import PosedViews


class LatentDenoising(Denoising):
    """`Denoising` on latents of views before white, which are encoded once.

    With a UNet that predicts v the weight min(SNR + 1, cap) on x0 is min(1, cap / (SNR + 1)) on v (the min-SNR weight of Hang
    et al. 2023, section 3.4).

    Args:
        prior: whose UNet learns.
        worded: share of the scenes whose caption says what side the camera sees, in the prior's own words; the others' do not.
        cache: a folder for latents; None encodes in every run.
        settings: of `Denoising`; no view is clean, since none sees another.
    """

    prior: StableDiffusion

    def __init__(self, prior: StableDiffusion, worded: float = 0.5, cache: str | None = None, **settings: Any) -> None:
        super().__init__(prior, clean_view=0.0, **settings)
        self.worded = worded
        self.cache = None if cache is None else Path(cache).expanduser()

    def prepare(self, data: PosedData) -> PosedData:
        prior = self.prior
        key = f"{prior.pipeline.digest(['vae'])} {prior.vae_precision}"
        with nullcontext() if self.cache is None else processes.in_turn():
            return Encoded(
                data, lambda images: prior.encode(images.to(prior.device)), prior.image_size, key, self.cache
            )

    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        with torch.random.fork_rng(devices=[]):  # the same captions are worded at every call
            torch.default_generator.manual_seed(0)
            return super().validate(batches)

    def clean(self, batch: PosedViews, background: Float[Tensor, "B 3"]) -> Tensor:
        assert batch.latents is not None
        return batch.latents

    def told(self, batch: PosedViews, background: Float[Tensor, "B 3"], share: Share | None = None) -> Condition:
        assert batch.captions is not None
        share = share or Share.of(len(batch.captions))
        worded = share.own(torch.rand(share.scenes) < self.worded)
        conditions = []
        for i, caption in enumerate(batch.captions):
            scene = batch.cameras.select(scenes=slice(i, i + 1))
            text = self.prior.condition([caption], scene) if worded[i] else self.prior.plain_text([caption], scene)
            conditions.append(Condition().with_text(text))
        return Condition(cameras=batch.cameras).with_text(concatenate(conditions))
