"""What all tasks share."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod

from omegaconf import DictConfig

from diffusion3d.precision import pick_device
from diffusion3d.priors.base import Prior
from diffusion3d.tasks.build import build
from diffusion3d.tasks.run_dir import Run

log = logging.getLogger(__name__)


class Task(ABC):
    """Runs once, in the directory of its run.

    Args:
        config: composed and checked.
        run: owns the directory.
    """

    def __init__(self, config: DictConfig, run: Run) -> None:
        self.config, self.files = config, run
        self.device = pick_device(config.device)

    @abstractmethod
    def run(self) -> dict[str, float]:
        """Do it; {metric: final value}."""

    def prior(self) -> Prior:
        """The prior of the config; the run's record names its weights."""
        prior: Prior = build(self.config.prior).to(self.device)
        self.files.record(prior_weights=prior.fingerprint)
        return prior

    def frozen_prior(self) -> Prior:
        """The prior of the config for inference; says so when the prompt lies outside what it knows."""
        prior = self.prior().eval().requires_grad_(False)
        warning = prior.warning(self.config.prompt)
        if warning is not None:
            log.warning(warning)
        return prior
