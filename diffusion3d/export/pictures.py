"""Turntables, contact sheets and grids."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.rendering.render import EMPTY_ALPHA, composite
from diffusion3d.representations.base import Scene


def to_uint8(image: Float[Tensor, "*S H W 3"]) -> UInt8[np.ndarray, "*S H W 3"]:
    return (image.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


@torch.no_grad()
def render_frames(
    scene: Scene, cameras: Cameras, background: Float[Tensor, "1 3"], chunk: int = 8
) -> tuple[Float[Tensor, "F 3 H W"], Float[Tensor, "F 1 H W"]]:
    """Render all views of scene 0, a few at a time: rgb over the background, and depth, both in [0, 1].

    Depth is normalised once over all frames, so it does not flicker: near is bright, 0 is empty, edges fade with alpha.
    """
    renders = []
    for start in range(0, cameras.shape[1], chunk):
        views = scene.render(cameras.select(views=slice(start, start + chunk)))
        renders.append((composite(views, background)[0], views.depth[0], views.alpha[0]))
    rgb, depth, alpha = (torch.cat(parts) for parts in zip(*renders, strict=True))
    seen = alpha > 0.5
    if bool(seen.any()):
        near, far = depth[seen].min(), depth[seen].max()
        shown = 1 - 0.8 * (depth - near) / (far - near).clamp(min=1e-6)
        depth = torch.where(alpha > EMPTY_ALPHA, shown.clamp(0, 1) * alpha, torch.zeros_like(depth))
    else:
        depth = torch.zeros_like(depth)
    return rgb, depth


def write_video(path: Path, frames: Float[Tensor, "F C H W"], fps: int = 25) -> Path:
    """H.264 mp4 (yuv420p, so that every browser plays it); an odd size loses its last row or column."""
    frames = frames.expand(-1, 3, -1, -1)
    frames = frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2]
    pictures = to_uint8(frames.movedim(1, -1))
    imageio.imwrite(path, pictures, fps=fps, codec="libx264", quality=8, macro_block_size=1, pixelformat="yuv420p")
    return path


def write_gif(path: Path, frames: Float[Tensor, "F 3 H W"], fps: int = 20) -> Path:
    """A looping GIF with one palette for all frames."""
    images = [Image.fromarray(frame) for frame in to_uint8(frames.movedim(1, -1))]
    width, height = images[0].size
    strip = Image.new("RGB", (width, height * len(images)))
    for row, image in enumerate(images):
        strip.paste(image, (0, row * height))
    palette = strip.quantize(128, method=Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    indexed = [image.quantize(palette=palette, dither=Image.Dither.NONE) for image in images]
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=round(1000 / fps), loop=0, optimize=True)
    return path


def write_grid(
    path: Path, rows: Sequence[Float[Tensor, "V 3 H W"]], labels: Sequence[str] | None = None, scale: int = 1
) -> Path:
    """A PNG with one row of views per item, its label above it."""
    margin = 16 if labels else 0
    count, _, height, width = rows[0].shape
    sheet = Image.new("RGB", (count * width * scale, len(rows) * (height * scale + margin)), "white")
    draw = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        top = i * (height * scale + margin)
        if labels:
            draw.text((4, top + 2), labels[i][:120], fill="black")
        picture = Image.fromarray(np.concatenate(list(to_uint8(row.movedim(1, -1))), 1))
        sheet.paste(
            picture.resize((count * width * scale, height * scale), Image.Resampling.LANCZOS), (0, top + margin)
        )
    sheet.save(path)
    return path
