"""Scenes to look at, each as a representation and its raw tensors."""

import torch

from analytic_scenes import Sphere
from diffusion3d.representations.base import Representation
from diffusion3d.representations.gsplat import GaussianSplats


class Ball(Representation):
    """A sphere whose place is its only raw tensor, [B, 3]."""

    learning_rates = {"center": 0.1}  # noqa: RUF012

    def init(self, scenes, generator=None, views=None, points=None):
        return {"center": torch.zeros(scenes, 3)}

    def scene(self, raw):
        return Sphere(tuple(raw["center"][0].tolist()), 0.6)


def ball(scenes=1):
    return Ball(), Ball().init(scenes)


def splats(count=40, sh_degree=0, scenes=1):
    """A cloud of reds."""
    names = ("means", "quats", "scales", "opacities", "colors", "sh")
    representation = GaussianSplats(dict.fromkeys(names, 0.01), count, radius=0.5, scale=0.15, sh_degree=sh_degree)
    generator = torch.Generator().manual_seed(0)
    raw = representation.init(scenes, generator)
    raw["colors"] = torch.tensor([3.0, -3.0, -3.0]) + torch.rand(raw["colors"].shape, generator=generator)
    raw["opacities"] = 4 * torch.rand(raw["opacities"].shape, generator=generator)
    return representation, raw
