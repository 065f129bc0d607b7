"""Distil a prior into a scene: random views, guidance and terms, gradient descent on the representation."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.errors import UserError
from diffusion3d.export.pictures import write_grid
from diffusion3d.guidance.base import Guidance, Step, Term
from diffusion3d.guidance.measurements import Observation
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Representation, Scene
from diffusion3d.shading import Shadings
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.build import CAPABILITIES, build
from diffusion3d.tasks.loop import loop
from diffusion3d.tasks.media import write_scene
from diffusion3d.tasks.render import load_scene
from diffusion3d.tasks.scene_optimizer import SceneOptimizer

log = logging.getLogger(__name__)


class Distill(Task):
    """Text to 3D, or with `run=DIR` from the scene of a finished run, which editing schemes compare with.

    It knows the prior, the representation, the guidance and the cameras by their contracts only.
    """

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        shadings: Shadings = build(task.shading)
        if shadings.lit and "normals" not in config.representation.provides:
            raise UserError(
                "task.shading lights the views, which needs a representation with normals, such as representation=nerf"
            )
        terms: dict[str, Term] = {
            str(name): build(node).to(self.device)
            for name, node in config.terms.items()
            if node and name not in CAPABILITIES
        }
        for name, term in terms.items():
            if term.lit and not shadings.lit:
                raise UserError(
                    f"terms.{name} needs lit views, and task.shading={shadings.weights} lights none: set "
                    f"task.shading.lambertian=1.0 or terms.{name}=null"
                )
        if config.representation.get("background") is not None and "background" in config.prior.provides:
            raise UserError(
                "representation.background is for priors that are told no colour, and this one is: set it to null"
            )
        observation: Observation = build(config.observation, normals="normals" in config.representation.provides)
        prior = self.frozen_prior()
        camera = self.camera(prior)
        turntable = camera.turntable(size=task.video_size)
        backgrounds: Backgrounds = build(task.background)
        representation: Representation = build(config.representation)
        guidance: Guidance = build(config.guidance, prior=prior).to(self.device)
        if guidance.unlit and shadings.lit:
            raise UserError(
                f"task.shading={shadings.weights} lights the views, and this guidance compares them with pictures that "
                "are not: take another one, or leave only albedo above 0"
            )
        raw, source = self.start(representation)
        optimizer = SceneOptimizer(representation, raw, task.lr)
        self.files.record(renderer=representation.renderer(self.device))
        log.info("rendered by %s", representation.renderer(self.device))
        first = prior.condition([config.prompt], camera.turntable(1).to(self.device))
        guidance.prepare(optimizer.scene() if source is None else source, first)
        self.render: Render | None = None

        def losses(index: int) -> dict[str, Tensor]:
            step = Step(index, task.steps)
            cameras = guidance.cameras(camera, step).to(self.device)
            background = guidance.background(backgrounds, step).to(self.device)
            condition = prior.condition([config.prompt], cameras, background)
            scene = optimizer.scene()
            self.render = scene.render(cameras, shading=shadings.sample(step))
            views = (scene, self.render, cameras, condition, step)
            beside = {f"terms/{name}": term(*views) for name, term in terms.items()}
            seen = {f"observation/{name}": loss for name, loss in observation(scene, condition, step).items()}
            return {**guidance(*views), **beside, **seen}

        def update(index: int) -> None:
            step = Step(index, task.steps)
            assert self.render is not None
            optimizer.step(step, self.render)
            guidance.update(step)

        def load(state: dict[str, Any]) -> None:
            optimizer.load_state(state)
            guidance.load_state(state["guidance"])

        white = torch.ones(1, 3, device=self.device)

        @torch.no_grad()
        def preview(done: int) -> None:
            path = self.files.path("previews", f"step_{done:05d}.png")
            views = composite(optimizer.scene().render(camera.turntable(4).to(self.device)), white)
            write_grid(path, [views[0].cpu()])
            self.files.image(done, "preview", path)

        done = loop(
            self.files,
            losses,
            update,
            steps=task.steps,
            minutes=task.minutes,
            state=lambda: {**optimizer.state(), "guidance": guidance.state()},
            load_state=load,
            checkpoint_every=task.checkpoint_every,
            preview=preview,
            preview_every=task.preview_every,
            watch=self.watch(representation, lambda: optimizer.raw, camera),
        )
        write_scene(self.files, representation, optimizer.raw, turntable.to(self.device), white, task.fps)
        return {"steps": done, "parameters": sum(value.numel() for value in optimizer.raw.values())}

    def start(self, representation: Representation) -> tuple[dict[str, Tensor], Scene | None]:
        """Raw tensors to start from, and with `run=DIR` the scene of that run, which stays as it is.

        Raises:
            UserError: that run's scene is of another kind than the representation's.
        """
        raw = {name: value.to(self.device) for name, value in representation.init(1).items()}
        run = self.config.run
        if run.source is None:
            return raw, None
        owner, kept, _ = load_scene(run.source, list(run.trust), self.device)
        if {name: value.shape[2:] for name, value in kept.items()} != {n: value.shape[2:] for n, value in raw.items()}:
            raise UserError(
                f"{run.source} holds a scene of another kind than representation={self.config.representation._target_}: "
                "choose the representation, with the settings, that the run had"
            )
        return {name: value.clone() for name, value in kept.items()}, owner.scene(kept)
