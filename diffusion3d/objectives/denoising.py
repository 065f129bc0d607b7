"""Train a prior to denoise."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion3d import processes
from diffusion3d.backgrounds import Backgrounds
from diffusion3d.cameras import orbit
from diffusion3d.diffusion.condition import Condition
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.objectives.base import Objective, Share
from diffusion3d.priors.base import Prior
from diffusion3d.priors.draw import draw
from diffusion3d.views import PosedViews


class Denoising(Objective):
    """Weighted x0 error at random levels.

    The weight min(SNR + 1, cap) makes it a v loss with a cap (Salimans & Ho 2022, section 4; Hang et al. 2023, section 3.4).
    Levels are drawn as t / T = sigmoid(N(mean, std)) (Esser et al. 2024, eq. 19): a sixth above 0.9 T, where the prompt decides
    what becomes of the noise. All views of a scene share a level, except
    that some scenes have one clean view, which carries no loss.

    Errors of averages over larger places may count more (a multiscale loss, Hoogeboom et al. 2023, section 3.2): the best
    estimate stays the same, and colours, on which all views agree and which single pixels hardly show, are learned sooner.

    Args:
        prior: what learns; it conditions on text, cameras and background.
        level_mean, level_std: of the logit-normal distribution of levels.
        weight_cap: largest weight of the x0 error.
        text_dropout: share of the scenes that see no text.
        text_noise: largest standard deviation of noise on the features of the text, in theirs, drawn uniformly for every scene:
            what the prior makes of a wording depends less on features by which training captions never differed, so that it
            takes words it never saw as their neighbours (as Nukrai et al. 2022 train on noisy CLIP texts).
        clean_view: share of the scenes with several views that have a clean one.
        backgrounds: behind the objects.
        scales: of averaged squares: their `side`, in the prior's space, and the `weight` of the squared error of their
            averages, beside that of single places, whose weight is 1; what does not fill a square is left out.
    """

    def __init__(
        self,
        prior: Prior,
        level_mean: float,
        level_std: float,
        weight_cap: float,
        text_dropout: float,
        text_noise: float,
        clean_view: float,
        backgrounds: Backgrounds | None = None,
        scales: Sequence[Mapping[str, float]] = (),
    ) -> None:
        super().__init__()
        self.prior = prior
        self.level_mean, self.level_std = level_mean, level_std
        self.weight_cap = weight_cap
        self.text_dropout = text_dropout
        self.text_noise = text_noise
        self.clean_view = clean_view
        self.backgrounds = backgrounds or Backgrounds()
        self.scales = [(int(scale["side"]), scale["weight"]) for scale in scales]

    def trained(self) -> nn.Module:
        return self.prior.network

    def draw_levels(self, scenes: int, views: int) -> Int[Tensor, "B V"]:
        T = self.prior.schedule.num_timesteps
        time = torch.sigmoid(self.level_mean + self.level_std * torch.randn(scenes, 1))
        t = (time * T).long().clamp(0, T - 1).expand(-1, views).clone()
        if views > 1:
            chosen = torch.rand(scenes) < self.clean_view
            t[chosen, torch.randint(views, (scenes,))[chosen]] = -1
        return t

    def blur_text(self, condition: Condition, share: Share | None = None) -> Condition:
        """The condition with noise on the features of its text, another amount for every scene."""
        tokens = condition.tokens
        assert tokens is not None
        share = share or Share.of(len(tokens))
        amount = share.own(self.text_noise * torch.rand(share.scenes))

        def blurred(features: Float[Tensor, "B ... D"], noise: Float[Tensor, "B ... D"]) -> Tensor:
            size = features.square().mean(-1, keepdim=True).sqrt()
            strength = amount.view(-1, *[1] * (features.ndim - 1)).to(features)
            return features + strength * size * noise.to(features)

        pooled = condition.pooled
        if pooled is not None:
            pooled = blurred(pooled, share.own(torch.randn(share.scenes, *pooled.shape[1:])))
        _, texts, length, width = tokens.shape
        noise = share.own(torch.randn(share.scenes, texts, processes.largest(length), width))[:, :, :length]
        text = Condition(tokens=blurred(tokens, noise), token_mask=condition.token_mask, pooled=pooled)
        return condition.with_text(text)

    def drop_text(self, condition: Condition, dropped: Tensor) -> Condition:
        """The condition without text for the scenes in `dropped` [B] (as concatenating null conditions would)."""
        tokens, mask, pooled = condition.tokens, condition.token_mask, condition.pooled
        assert tokens is not None and mask is not None
        text = Condition(
            tokens=tokens * ~dropped[:, None, None, None],
            token_mask=mask & ~dropped[:, None, None],
            pooled=None if pooled is None else pooled * ~dropped[:, None, None],
        )
        return condition.with_text(text)

    def clean(self, batch: PosedViews, background: Float[Tensor, "B 3"]) -> Tensor:
        """The views in the prior's space."""
        return self.prior.encode(batch.over(background))

    def told(self, batch: PosedViews, background: Float[Tensor, "B 3"], share: Share | None = None) -> Condition:
        """What the prior is told of the views."""
        assert batch.captions is not None
        return self.prior.condition(batch.captions, batch.cameras, background)

    def difference(
        self, batch: PosedViews, background: Tensor, t: Tensor, condition: Condition, noise: Tensor
    ) -> Tensor:
        """Estimate minus truth, in the prior's space."""
        x0 = self.clean(batch, background)
        x_t = self.prior.schedule.add_noise(x0, noise, t)
        return self.prior.denoise(x_t, t, condition).x0 - x0

    def loss(self, batch: PosedViews, share: Share | None = None) -> dict[str, Tensor]:
        scenes, views = batch.cameras.shape
        share = share or Share.of(scenes)
        device = batch.cameras.c2w.device
        background = share.own(self.backgrounds.sample(share.scenes)).to(device)
        levels = self.draw_levels(share.scenes, views)
        t = share.own(levels).to(device)
        dropped = share.own(torch.rand(share.scenes) < self.text_dropout).to(device)
        noise = share.own(torch.randn(self.prior.noise_shape(share.scenes, views))).to(device)
        told = self.told(batch, background, share)
        if self.text_noise:
            told = self.blur_text(told, share)
        difference = self.difference(batch, background, t, self.drop_text(told, dropped), noise)
        error = difference.square().flatten(2).mean(2)
        for side, strength in self.scales:
            coarse = F.avg_pool2d(difference.flatten(0, 1), min(side, *difference.shape[-2:])).view(scenes, views, -1)
            error = error + strength * coarse.square().mean(2)
        weight = (self.prior.schedule.snr(t) + 1).clamp(max=self.weight_cap) * (t >= 0)
        return {"denoising": (weight * error).sum() / int((levels >= 0).sum())}

    @torch.no_grad()
    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        """x0 error at five noise levels, with text, on white."""
        totals: dict[str, list[float]] = {}
        T = self.prior.schedule.num_timesteps
        generator = torch.Generator().manual_seed(0)
        for batch in batches:
            scenes, views = batch.cameras.shape
            device = batch.cameras.c2w.device
            noise = torch.randn(self.prior.noise_shape(scenes, views), generator=generator)
            for share in (0.1, 0.3, 0.5, 0.7, 0.9):
                t = torch.full((scenes, views), int(share * T), device=device)
                white = torch.ones(scenes, 3, device=device)
                error = self.difference(batch, white, t, self.told(batch, white), noise.to(device)).square().mean()
                totals.setdefault(f"validation/x0_error_t{int(share * T)}", []).append(float(error))
        return {name: sum(values) / len(values) for name, values in totals.items()}

    @torch.no_grad()
    def preview(self, prompts: Sequence[str], batches: Sequence[PosedViews]) -> dict[str, Float[Tensor, "V 3 H W"]]:
        """Four views of every prompt: DDIM in 20 steps, guidance 3."""
        if not prompts:
            return {}
        device = next(self.prior.parameters()).device
        azimuth = torch.tensor([[30.0, 120.0, 210.0, 300.0]], device=device).expand(len(prompts), -1)
        size = self.prior.image_size
        cameras = orbit(azimuth, torch.full_like(azimuth, 15.0), 3.0, 40.0, size, size)
        condition = self.prior.condition(prompts, cameras)
        drawn = draw(self.prior, Sampler(20), condition, generator=torch.Generator().manual_seed(0))
        return dict(zip(prompts, drawn, strict=True))

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        self.prior.export(folder, facts)
