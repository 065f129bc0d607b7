"""Sample then reconstruct: views drawn from the prior are what the scene is fitted to."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.sampler import Clamp, Sampler
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Scheduled, Step
from diffusion3d.guidance.prompted import Prompted
from diffusion3d.priors.base import Prior
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene


class Reconstruct(Prompted):
    """Fits one scene to views that the prior has drawn, and draws them anew from the scene, round by round.

    Rounds are evenly spread over the run. At the start of one, new cameras look at the scene, and its renders are noised to the
    round's level and denoised by a sampler (SDEdit, Meng et al. 2022, algorithm 1); from level 1 nothing of the scene is left,
    so that the first round draws from the prior alone. Until the next round the prior is not asked: steps render some of these
    cameras, and the loss is huber² (sqrt(1 + |render - target|² / huber²) - 1), summed over pixels, on average over views: half
    the squared error where that is small.

    Args:
        prior: frozen; it sees cameras and judges views jointly.
        sampler: of the views; a round takes those of its levels that lie below the round's.
        views: drawn in a round, evenly spaced in azimuth.
        joint: views drawn at a time: first so many that are far apart, then the others, beside these, which are clean by then.
        levels: of the rounds, as shares of T; 0 keeps the renders.
        huber: error of a pixel's colour from which on the loss is linear.
        background: behind the object in all steps, sRGB.
        weight: of the loss.
        asking: of `Prompted`.

    Raises:
        UserError: a number that cannot be.
    """

    unlit = True
    targets: Float[Tensor, "1 V 3 H W"]
    c2w: Float[Tensor, "1 V 4 4"]
    K: Float[Tensor, "1 V 3 3"]
    rounds: Tensor

    def __init__(
        self,
        prior: Prior,
        sampler: Sampler,
        views: int = 8,
        joint: int = 4,
        levels: Sequence[float] = (1.0, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1),
        huber: float = 0.1,
        background: Sequence[float] = (1.0, 1.0, 1.0),
        weight: Scheduled = 1.0,
        **asking: Any,
    ) -> None:
        super().__init__(prior, **asking)
        if joint < 1 or views < 1 or views % joint:
            raise UserError(f"guidance.views={views} must be a multiple of guidance.joint={joint}, both at least 1")
        if not levels or not all(0 <= level <= 1 for level in levels):
            raise UserError(f"guidance.levels={list(levels)} must be shares of T in 0 ... 1, one for each round")
        if huber <= 0:
            raise UserError(f"guidance.huber={huber:.3g} must be positive")
        if len(background) != 3 or not all(0 <= value <= 1 for value in background):
            raise UserError(f"guidance.background={list(background)} must be red, green and blue in 0 ... 1")
        self.sampler, self.levels, self.huber, self.weight = sampler, tuple(levels), huber, weight
        self.colour = torch.tensor([list(background)], dtype=torch.float32)
        self.groups = torch.arange(views).view(joint, -1).T
        self.chosen = torch.arange(views)
        self.register_buffer("targets", torch.zeros(1, views, 3, 0, 0))
        self.register_buffer("c2w", torch.zeros(1, views, 4, 4))
        self.register_buffer("K", torch.zeros(1, views, 3, 3))
        self.register_buffer("rounds", torch.zeros((), dtype=torch.int64))

    def due(self, step: Step) -> bool:
        """Whether a round starts with this step."""
        done, rounds = int(self.rounds), len(self.levels)
        return done < rounds and step.index * rounds >= done * step.total

    def cameras(self, camera: Orbit, step: Step) -> Cameras:
        """All that a new round draws, or as many of the targets' as a step renders."""
        views = self.targets.shape[1]
        if self.due(step):
            fresh = camera.sample(views=views).to(self.targets.device)
            self.c2w, self.K, self.chosen = fresh.c2w, fresh.K, torch.arange(views)
        else:
            self.chosen = torch.randperm(views)[: camera.views]
        return dataclasses.replace(camera.turntable(1), c2w=self.c2w, K=self.K).select(views=self.chosen)

    def background(self, backgrounds: Backgrounds, step: Step) -> Float[Tensor, "1 3"]:
        return self.colour

    def forward(
        self, scene: Scene, render: Render, cameras: Cameras, condition: Condition, step: Step
    ) -> dict[str, Tensor]:
        image = composite(render, condition.extra["background"])
        if self.due(step):
            self.targets = self.drawn(image, condition, step)
            self.rounds = self.rounds + 1
        error = (image - self.targets[:, self.chosen]).square().sum(2) / self.huber**2
        loss = self.huber**2 * ((1 + error).sqrt() - 1).sum() / len(self.chosen)
        return {"reconstruct": step.value(self.weight) * loss}

    @torch.no_grad()
    def drawn(self, image: Float[Tensor, "1 V 3 H W"], condition: Condition, step: Step) -> Float[Tensor, "1 V 3 H W"]:
        """The images after a round, in [0, 1]; random numbers come from torch's global CPU generator."""
        schedule = self.prior.schedule
        top = round(self.levels[int(self.rounds)] * schedule.num_timesteps)
        timesteps = [t for t in self.sampler.timesteps(schedule) if t < top]
        x = self.prior.encode(image)
        noise = torch.randn(x.shape).to(x.device)
        start = torch.full(x.shape[:2], timesteps[0], device=x.device)
        x = noise if top == schedule.num_timesteps else schedule.add_noise(x, noise, start)
        hooks = [Clamp()] if self.prior.space == "pixel" else []
        clean = torch.zeros(x.shape[:2], dtype=torch.bool, device=x.device)
        for group in self.groups:
            views = torch.cat([self.groups[0], group]).unique()
            told = condition.select(views)

            def denoiser(x_t: Tensor, t: Tensor, told: Condition = told) -> Prediction:
                return Prediction(self.guided(x_t, t, told, step.value(self.scale)))

            x[:, views] = self.sampler.sample(denoiser, schedule, x[:, views], timesteps, hooks, clean[:, views]).x0
            clean[:, group] = True
        return self.decoded(x, image).clamp(0, 1)

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.targets = torch.zeros_like(state["targets"], device=self.targets.device)  # a fresh one has no pixels yet
        super().load_state(state)
