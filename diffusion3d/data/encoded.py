"""Data whose views an encoder has seen once."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from diffusion3d.data.base import PosedData
from diffusion3d.files import write_bytes
from diffusion3d.views import PosedViews

log = logging.getLogger(__name__)

CHUNK = 16
"""Scenes of a file of the cache."""
QUIET_SECONDS = 30.0


class Encoded:
    """Scenes as `PosedData` whose batches carry latents (float16 rounded) in the place of pictures.

    Every view is encoded when this is made, before white, one scene after the other. A kill loses at most `CHUNK` scenes.

    Args:
        data: the scenes.
        encode: pictures in [0, 1] [B,V,3,H,W] to latents [B,V,C,h,w].
        size: side of the pictures that it is given, pixels.
        key: names the encoder; another one must have another key.
        cache: a folder for latents, which are found again by the pictures and the key; None keeps none.
    """

    def __init__(
        self, data: PosedData, encode: Callable[[Tensor], Tensor], size: int, key: str, cache: Path | None = None
    ) -> None:
        self.data, self.size = data, size
        self.latents: Float[Tensor, "N V C h w"] = torch.empty(0)
        spoke = time.monotonic()
        for first in range(0, len(data), CHUNK):
            chunk = self._chunk(np.arange(first, min(first + CHUNK, len(data))), encode, key, cache)
            if first == 0:
                # whole: kept pieces, each between the pictures of two chunks, would hold the memory of those
                self.latents = chunk.new_empty(len(data), *chunk.shape[1:])
            self.latents[first : first + CHUNK] = chunk
            if time.monotonic() - spoke > QUIET_SECONDS:
                log.info("encoded %d of %d scenes", first, len(data))
                spoke = time.monotonic()

    def _chunk(
        self, scenes: NDArray[np.integer], encode: Callable[[Tensor], Tensor], key: str, cache: Path | None
    ) -> Float[Tensor, "N V C h w"]:
        views = np.broadcast_to(np.arange(self.views), (len(scenes), self.views))
        pictures = (
            self.data.batch(scenes, views, np.random.default_rng(0)).resize(self.size).over(torch.ones(len(scenes), 3))
        )
        digest = hashlib.blake2b(f"{key} {tuple(pictures.shape)}".encode(), digest_size=16)
        digest.update((pictures * 255).round().byte().numpy().tobytes())
        path = None if cache is None else cache / f"{digest.hexdigest()}.safetensors"
        known = None if path is None else _read(path)
        if known is not None:
            return known
        with torch.no_grad():
            latents = torch.cat([encode(scene[None]).half().cpu() for scene in pictures])
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save({"latents": latents}))
        return latents

    @property
    def views(self) -> int:
        return self.data.views

    @property
    def vocabulary(self) -> Sequence[str]:
        return self.data.vocabulary

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [B, V], each with one of its captions."""
        batch = self.data.batch(indices, views, rng)
        scenes, chosen = torch.from_numpy(np.array(indices))[:, None], torch.from_numpy(np.array(views))
        return PosedViews(
            cameras=batch.cameras.resize(self.size, self.size),
            captions=batch.captions,
            latents=self.latents[scenes, chosen].float(),
        )


def _read(path: Path) -> Float[Tensor, "N V C h w"] | None:
    """A file of the cache, None if it is not there or damaged."""
    try:
        return load_file(path)["latents"]
    except (OSError, SafetensorError):
        return None
