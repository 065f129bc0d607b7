"""What all tasks share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from omegaconf import DictConfig
from torch import Tensor

from diffusion3d import processes
from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import UserError
from diffusion3d.precision import pick_device
from diffusion3d.priors.base import Prior
from diffusion3d.representations.base import Representation
from diffusion3d.tasks.build import build, build_camera
from diffusion3d.tasks.loop import Watch
from diffusion3d.tasks.run_dir import Run

log = logging.getLogger(__name__)


class Task(ABC):
    """Runs once, in the directory of its run.

    Args:
        config: composed and checked.
        run: owns the directory.

    Attributes:
        several_processes: whether several can share the work.
    """

    several_processes = False

    def __init__(self, config: DictConfig, run: Run) -> None:
        self.config, self.files = config, run
        self.device = processes.own_device(pick_device(config.device))

    @abstractmethod
    def run(self) -> dict[str, float]:
        """Do it; {metric: final value}."""

    def prior(self) -> Prior:
        """The prior of the config, where it was made; the run's record names its weights."""
        prior: Prior = build(self.config.prior)
        self.files.record(prior_weights=prior.fingerprint)
        return prior

    def frozen_prior(self) -> Prior:
        """The prior of the config for inference; says so when the prompt lies outside what it knows.

        Raises:
            UserError: its weights are incomplete.
        """
        prior = self.prior().freeze(self.device)
        if prior.untrained:
            raise UserError(
                f"prior.weights={self.config.prior.weights} lacks {len(prior.untrained)} parameters of prior.network "
                f"({prior.untrained[0]}, …): set prior.network as the weights' card says, or train it first (task=train)"
            )
        warning = prior.warning(self.config.prompt)
        if warning is not None:
            log.warning(warning)
        return prior

    def camera(self, prior: Prior) -> Orbit:
        """The cameras of the config, with views of the prior's size where it says none."""
        return build_camera(self.config.camera, prior.image_size)

    @contextmanager
    def watch(
        self, representation: Representation, raw: Callable[[], Mapping[str, Tensor]], camera: Orbit
    ) -> Iterator[Watch | None]:
        """The loop's `watch`: with `viewer=true` a page that shows what `raw` gives, None without.

        Raises:
            UserError: the page cannot be served.
        """
        settings = self.config.viewer
        if not settings.enabled:
            yield None
            return
        from diffusion3d.viewer.viewer import Viewer
        from diffusion3d.viewer.watch import Watcher

        with Viewer(representation, raw, camera, settings.host, settings.port) as viewer:
            log.info("watch it at %s", viewer.url)
            yield Watcher(viewer, self.config.task.steps, settings.every)
