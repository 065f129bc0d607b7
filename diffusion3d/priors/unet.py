"""A multi-view U-Net: V views of one object are denoised jointly, each told its own noise level and camera."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn

from diffusion3d.errors import UserError


def _zero(module: nn.Module) -> nn.Module:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


class ResBlock(nn.Module):
    """Two 3x3 convolutions; the embedding scales and shifts between them (Dhariwal & Nichol 2021)."""

    def __init__(self, inside: int, outside: int, embedding: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(16, inside)
        self.conv1 = nn.Conv2d(inside, outside, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * outside)
        self.norm2 = nn.GroupNorm(16, outside)
        self.conv2 = _zero(nn.Conv2d(outside, outside, 3, padding=1))
        self.skip = nn.Conv2d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Float[Tensor, "N C H W"], embedding: Float[Tensor, "N E"]) -> Float[Tensor, "N D H W"]:
        h = self.conv1(F.silu(self.norm1(x)))
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        h = self.conv2(F.silu(self.norm2(h) * (1 + scale) + shift))
        return self.skip(x) + h


class MultiViewAttention(nn.Module):
    """Attention of every view's tokens to the tokens of all views and to the text, then an MLP.

    Ray features are added to the queries and keys, so that attention can find the same place in another view.
    """

    def __init__(self, channels: int, heads: int, text: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(16, channels)
        self.rays = nn.Conv2d(6, channels, 1)
        self.qkv = nn.Linear(channels, 3 * channels)
        self.text_kv = nn.Linear(text, 2 * channels)
        self.out = _zero(nn.Linear(channels, channels))
        self.mlp = nn.Sequential(
            nn.LayerNorm(channels),
            nn.Linear(channels, 4 * channels),
            nn.GELU(),
            _zero(nn.Linear(4 * channels, channels)),
        )

    def forward(
        self,
        x: Float[Tensor, "BV C h w"],
        rays: Float[Tensor, "BV 6 h w"],
        tokens: Float[Tensor, "B L D"] | None,
        token_mask: Bool[Tensor, "B L"] | None,
        views: int,
    ) -> Float[Tensor, "BV C h w"]:
        n, c, h, w = x.shape
        scenes, length = n // views, views * h * w
        flat = (self.norm(x) + self.rays(rays)).view(scenes, views, c, h * w).transpose(2, 3).reshape(scenes, length, c)
        q, k, v = self.qkv(flat).view(scenes, length, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mask = None
        if tokens is not None and token_mask is not None:
            kv = self.text_kv(tokens).view(scenes, -1, 2, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
            k, v = torch.cat([k, kv[0]], 2), torch.cat([v, kv[1]], 2)
            seen = torch.ones(scenes, length, dtype=torch.bool, device=x.device)
            mask = torch.cat([seen, token_mask], 1)[:, None, None, :]
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        attended = self.out(attended.transpose(1, 2).reshape(scenes, length, c))
        x = x + attended.view(scenes, views, h * w, c).transpose(2, 3).reshape(n, c, h, w)
        return x + self.mlp(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class Refinement(nn.Module):
    """Three 3x3 convolutions at full resolution, added to a picture that came out of a pixel-shuffle: they mend its seams."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.enter = nn.Conv2d(6, channels, 3, padding=1)
        self.modulation = nn.Linear(embedding, 2 * channels)
        self.within = nn.Conv2d(channels, channels, 3, padding=1)
        self.leave = _zero(nn.Conv2d(channels, 3, 3, padding=1))

    def forward(
        self, coarse: Float[Tensor, "N 3 H W"], x: Float[Tensor, "N 3 H W"], embedding: Float[Tensor, "N E"]
    ) -> Float[Tensor, "N 3 H W"]:
        scale, shift = self.modulation(embedding)[:, :, None, None].chunk(2, 1)
        h = self.enter(torch.cat([coarse, x.to(coarse)], 1).contiguous(memory_format=torch.channels_last))
        h = self.within(F.silu(h * (1 + scale) + shift))
        return coarse + self.leave(F.silu(h))


class MultiViewUNet(nn.Module):
    """Predicts x0 of V views jointly.

    Images enter through a pixel-unshuffle, so that all convolutions run at 1/patch of the resolution; with patch 4 a 128-pixel
    view costs what a 64-pixel view costs with patch 2.

    Args:
        patch: side of the pixel-unshuffle.
        channels: width of each level; every level halves the resolution.
        blocks: residual blocks per level (the decoder has as many).
        attention: the levels that attend across views.
        head: channels per attention head.
        embedding: width of the time + text embedding.
        text: width of the text tokens and of the pooled text.
        pose: whether the mean Plücker ray of a view joins its embedding (as MVDream's camera does, Shi et al. 2023, section
            3.1), beside the rays that every pixel sees.
        code: width of a code, the mean of a feature over all views and places, that is added to the text in the decoder, so
            that what the views agree on (what it is, in which colours) reaches all of them; 0 is none.
        refine: width of convolutions at full resolution after the pixel-shuffle; 0 is none.

    Raises:
        UserError: other than one number of blocks a level, or a level to attend that is not there.

    Attributes:
        stride: the sides of views must be multiples of it.
    """

    def __init__(
        self,
        patch: int,
        channels: Sequence[int],
        blocks: Sequence[int],
        attention: Sequence[int],
        head: int,
        embedding: int,
        text: int,
        pose: bool,
        code: int,
        refine: int,
    ) -> None:
        super().__init__()
        if len(blocks) != len(channels) or not set(attention) <= set(range(len(channels))):
            raise UserError(
                f"prior.network: channels={list(channels)} give the levels 0 ... {len(channels) - 1}; blocks={list(blocks)} "
                f"must hold a number for each, attention={list(attention)} none but them"
            )
        self.patch = patch
        self.stride = patch * 2 ** (len(channels) - 1)
        first, last = channels[0], channels[-1]
        self.stem = nn.Conv2d(3 * patch**2 + 6 + 3, first, 3, padding=1)
        self.time = nn.Linear(128, embedding)
        self.clean = nn.Parameter(torch.zeros(embedding))
        self.text = nn.Linear(text, embedding)
        self.pose = (
            nn.Sequential(nn.Linear(6, embedding), nn.SiLU(), _zero(nn.Linear(embedding, embedding))) if pose else None
        )
        self.mix = nn.Sequential(nn.SiLU(), nn.Linear(embedding, embedding), nn.SiLU())

        def attend(level: int) -> nn.Module | None:
            width = channels[level]
            return MultiViewAttention(width, max(1, width // head), text) if level in attention else None

        self.down, self.down_attention, self.shrink = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        width, skips = first, [first]
        for level, (out, count) in enumerate(zip(channels, blocks, strict=True)):
            if level:
                self.shrink.append(nn.Conv2d(width, out, 3, stride=2, padding=1))
                width = out
                skips.append(out)
            for _ in range(count):
                self.down.append(ResBlock(width, out, embedding))
                self.down_attention.append(attend(level) or nn.Identity())
                width = out
                skips.append(out)
        self.middle = nn.ModuleList([ResBlock(last, last, embedding), ResBlock(last, last, embedding)])
        self.code = nn.Sequential(nn.Linear(last, code), nn.SiLU()) if code else None
        self.agree = (
            nn.Sequential(nn.Linear(code, embedding), nn.SiLU(), nn.Linear(embedding, embedding)) if code else None
        )
        self.middle_attention = MultiViewAttention(last, max(1, last // head), text)
        self.up, self.up_attention = nn.ModuleList(), nn.ModuleList()
        for level in reversed(range(len(channels))):
            for _ in range(blocks[level] + 1):
                self.up.append(ResBlock(width + skips.pop(), channels[level], embedding))
                self.up_attention.append(attend(level) or nn.Identity())
                width = channels[level]
        self.blocks = tuple(blocks)
        self.norm = nn.GroupNorm(16, first)
        self.head = _zero(nn.Conv2d(first, 3 * patch**2, 3, padding=1))
        self.refine = Refinement(refine, embedding) if refine else None

    def forward(
        self,
        x: Float[Tensor, "B V 3 H W"],
        time: Float[Tensor, "B V"],
        rays: Float[Tensor, "B V 6 h w"],
        background: Float[Tensor, "B 3"],
        tokens: Float[Tensor, "B L D"] | None = None,
        token_mask: Bool[Tensor, "B L"] | None = None,
        pooled: Float[Tensor, "B D"] | None = None,
    ) -> Float[Tensor, "B V 3 H W"]:
        """x0 of every view.

        Args:
            x: noisy views in [-1, 1].
            time: noise level in [0, 1]; negative for a clean view.
            rays: Plücker coordinates of the rays, at 1/patch of the resolution.
            background: colour behind the object, in [-1, 1].
            tokens, token_mask, pooled: the text; None, or zeros all masked out, drops it.
        """
        scenes, views = x.shape[:2]
        rays = rays.flatten(0, 1)
        frequencies = 1000 * torch.exp(-math.log(1e4) * torch.arange(64, device=x.device) / 64)
        phase = time.clamp(min=0).flatten()[:, None] * frequencies
        embedding = self.time(torch.cat([phase.sin(), phase.cos()], -1))
        embedding = embedding + torch.where(time.flatten()[:, None] < 0, self.clean, torch.zeros_like(self.clean))
        pooled = x.new_zeros(scenes, self.text.in_features) if pooled is None else pooled
        embedding = embedding + self.text(pooled).repeat_interleave(views, 0)
        if self.pose is not None:
            embedding = embedding + self.pose(rays.mean((-2, -1)))
        told = embedding
        embedding = self.mix(told)

        patches = F.pixel_unshuffle(x.flatten(0, 1), self.patch)
        behind = background.repeat_interleave(views, 0)[:, :, None, None].expand(-1, -1, *patches.shape[-2:])
        h = self.stem(torch.cat([patches, rays, behind], 1).contiguous(memory_format=torch.channels_last))
        rays_at = {h.shape[-1]: rays}

        def attend(layer: nn.Module, h: Tensor) -> Tensor:
            if not isinstance(layer, MultiViewAttention):
                return h
            size = h.shape[-1]
            if size not in rays_at:
                rays_at[size] = F.interpolate(rays, size=h.shape[-2:], mode="area")
            return layer(h, rays_at[size], tokens, token_mask, views)

        skips = [h]
        block = iter(zip(self.down, self.down_attention, strict=True))
        for level, count in enumerate(self.blocks):
            if level:
                h = self.shrink[level - 1](h)
                skips.append(h)
            for _ in range(count):
                layer, attention = next(block)
                h = attend(attention, layer(h, embedding))
                skips.append(h)
        h = self.middle[0](h, embedding)
        h = attend(self.middle_attention, h)
        h = self.middle[1](h, embedding)
        if self.code is not None and self.agree is not None:
            seen = self.code(h.permute(0, 2, 3, 1)).unflatten(0, (scenes, views)).mean((1, 2, 3))
            embedding = self.mix(told + self.agree(seen).repeat_interleave(views, 0))
        block = iter(zip(self.up, self.up_attention, strict=True))
        for level in reversed(range(len(self.blocks))):
            for _ in range(self.blocks[level] + 1):
                layer, attention = next(block)
                h = attend(attention, layer(torch.cat([h, skips.pop()], 1), embedding))
            if level:
                h = F.interpolate(h, scale_factor=2.0, mode="nearest")
        out = F.pixel_shuffle(self.head(F.silu(self.norm(h))), self.patch)
        if self.refine is not None:
            out = self.refine(out, x.flatten(0, 1), embedding)
        return out.view(scenes, views, 3, *out.shape[-2:])
