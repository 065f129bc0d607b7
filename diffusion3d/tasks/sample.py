"""Draw samples from a prior: pictures and a labelled grid."""

from __future__ import annotations

import logging

import torch

from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.export.pictures import write_grid
from diffusion3d.priors.draw import draw
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.build import build

log = logging.getLogger(__name__)


class Sample(Task):
    """`task.count` objects for the prompt, `task.views` views each; object n is the same whatever the count."""

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        prior = self.frozen_prior()
        sampler: Sampler = build(config.sampler)
        cameras = self.camera(prior).turntable(task.views, size=prior.image_size).to(self.device)
        condition = prior.condition([config.prompt], cameras)
        rows = []
        for number in range(task.count):
            generator = torch.Generator().manual_seed(config.seed + number)
            views = draw(prior, sampler, condition, task.scale, task.rescale, generator)[0].cpu()
            write_grid(self.files.path("samples", f"{number:03d}.png"), [views])
            rows.append(views)
            log.info("drew %d of %d", number + 1, task.count)
        labels = [f"seed {config.seed + number}   {config.prompt}" for number in range(task.count)]
        write_grid(self.files.dir / "grid.png", rows, labels)
        self.files.image(None, "samples", self.files.dir / "grid.png")
        return {"samples": task.count}
