"""Draw samples from a prior: pictures and a labelled grid."""

from __future__ import annotations

import logging

import torch
from omegaconf import DictConfig

from diffusion3d.camera_sampling import Orbit
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.export.pictures import write_grid
from diffusion3d.precision import pick_device
from diffusion3d.priors.base import Prior
from diffusion3d.priors.draw import draw
from diffusion3d.tasks.build import build
from diffusion3d.tasks.run_dir import Run

log = logging.getLogger(__name__)


class Sample:
    """`task.count` objects for the prompt, `task.views` views each; object n is the same whatever the count."""

    def __init__(self, config: DictConfig, run: Run) -> None:
        self.config, self.files = config, run
        self.device = pick_device(config.device)

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        prior: Prior = build(config.prior).to(self.device).eval().requires_grad_(False)
        warning = prior.warning(config.prompt)
        if warning is not None:
            log.warning(warning)
        sampler: Sampler = build(config.sampler)
        camera: Orbit = build(config.camera)
        cameras = camera.turntable(task.views, size=prior.image_size).to(self.device)
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
