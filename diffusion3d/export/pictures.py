"""Turntables, contact sheets and grids; their files are whole or not there."""

from __future__ import annotations

import dataclasses
import errno
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.files import whole
from diffusion3d.rendering.depth import seen_normals
from diffusion3d.rendering.render import EMPTY_ALPHA, Render, composite
from diffusion3d.representations.base import Scene

log = logging.getLogger(__name__)

TELL_SECONDS = 10.0


def to_uint8(image: Float[Tensor, "*S H W 3"]) -> UInt8[np.ndarray, "*S H W 3"]:
    return (image.detach().clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()


@torch.no_grad()
def render_views(scene: Scene, cameras: Cameras, chunk: int = 8) -> Render:
    """All views without extras, rendered a few at a time."""
    starts = range(0, cameras.shape[1], chunk)
    parts, told = [], time.monotonic()
    for start in starts:
        parts.append(scene.render(cameras.select(views=slice(start, start + chunk))))
        if time.monotonic() - told > TELL_SECONDS and start + chunk < cameras.shape[1]:
            told = time.monotonic()
            log.info("%d of %d views", start + chunk, cameras.shape[1])
    normals = [part.normals for part in parts if part.normals is not None]
    behind = [part.behind for part in parts if part.behind is not None]
    variance = [part.depth_variance for part in parts if part.depth_variance is not None]
    return Render(
        torch.cat([part.rgb for part in parts], 1),
        torch.cat([part.alpha for part in parts], 1),
        torch.cat([part.depth for part in parts], 1),
        torch.cat(normals, 1) if normals else None,
        torch.cat(variance, 1) if variance else None,
        behind=torch.cat(behind, 1) if behind else None,
    )


def depth_frames(render: Render) -> Float[Tensor, "F 1 H W"]:
    """Depth of scene 0 in [0, 1], normalised once over all frames, so it does not flicker: near is bright, 0 is empty, edges
    fade with alpha."""
    depth, alpha = render.depth[0], render.alpha[0]
    seen = alpha > 0.5
    if not bool(seen.any()):
        return torch.zeros_like(depth)
    near, far = depth[seen].min(), depth[seen].max()
    shown = 1 - 0.8 * (depth - near) / (far - near).clamp(min=1e-6)
    return torch.where(alpha > EMPTY_ALPHA, shown.clamp(0, 1) * alpha, torch.zeros_like(depth))


def normal_frames(render: Render, cameras: Cameras, background: Float[Tensor, "1 3"]) -> Float[Tensor, "F 3 H W"]:
    """Normals of scene 0 seen from the camera, as colours in [0, 1]: red right, green up, blue towards the viewer."""
    axes = cameras.c2w[:, :, :3, :3] * cameras.c2w.new_tensor([1.0, -1.0, -1.0])
    shown = 0.5 + 0.5 * torch.einsum("bvij,bvihw->bvjhw", axes, seen_normals(render, cameras))
    return composite(dataclasses.replace(render, rgb=shown * render.alpha, behind=None), background)[0]


def render_frames(
    scene: Scene, cameras: Cameras, background: Float[Tensor, "1 3"], chunk: int = 8
) -> tuple[Float[Tensor, "F 3 H W"], Float[Tensor, "F 1 H W"]]:
    """All views of scene 0: rgb over the background, and depth (see `depth_frames`), both in [0, 1]."""
    render = render_views(scene, cameras, chunk)
    return composite(render, background)[0], depth_frames(render)


def write_video(path: Path, frames: Float[Tensor, "F C H W"], fps: int = 25) -> Path:
    """H.264 mp4 (yuv420p, so that every browser plays it); an odd size loses its last row or column."""
    frames = frames.expand(-1, 3, -1, -1)
    frames = frames[..., : frames.shape[-2] // 2 * 2, : frames.shape[-1] // 2 * 2]
    pictures = to_uint8(frames.movedim(1, -1))
    with whole(path) as temporary:
        imageio.imwrite(
            temporary, pictures, fps=fps, codec="libx264", quality=8, macro_block_size=1, pixelformat="yuv420p"
        )
        if b"moov" not in temporary.read_bytes():  # the index, written last; imageio does not ask how ffmpeg ended
            raise OSError(errno.ENOSPC, "ffmpeg stopped before its end, as it does where there is no room", str(path))
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
    duration = round(1000 / fps)
    with whole(path) as temporary:
        indexed[0].save(temporary, save_all=True, append_images=indexed[1:], duration=duration, loop=0, optimize=True)
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
    with whole(path) as temporary:
        sheet.save(temporary)
    return path
