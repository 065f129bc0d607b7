"""Captioned views so plain that anything learns them in a few steps."""

import torch

from choices import SIZE, cameras
from diffusion3d.data.base import InMemory
from diffusion3d.views import PosedViews


def views_of(scenes=4, views=2):
    """Discs of one colour per scene, which the caption names."""
    place = (torch.arange(SIZE) + 0.5 - SIZE / 2) / SIZE
    disc = ((place[:, None] ** 2 + place**2) < 0.1).float().expand(scenes, views, 1, SIZE, SIZE)
    colours = torch.tensor([[1.0, 0, 0], [0, 0, 1.0]]).repeat(scenes // 2, 1)[:, None, :, None, None]
    captions = ("a red ball", "a blue ball") * (scenes // 2)
    return PosedViews(cameras(scenes, views), disc * colours, disc.clone(), captions=captions)


def data_of(scenes=4, views=2):
    """The same as data."""
    made = views_of(scenes, views)
    pixels = (torch.cat([made.images, made.alpha], 2) * 255).round().byte()
    return InMemory(made.cameras, pixels, [(caption,) for caption in made.captions])
