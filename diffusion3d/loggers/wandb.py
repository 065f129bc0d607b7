"""Weights & Biases: one W&B run per run directory, grouped by sweep."""

from __future__ import annotations

import logging
import os
import re
import signal
import sys
from pathlib import Path
from typing import Any

from diffusion3d.errors import UserError, one_line
from diffusion3d.loggers.base import Logger, RunInfo

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline")
TABLE = "results"
"""A table of one row: the prompt, the variant, the media of the result and its final metrics. W&B joins those of all runs."""


class WandbLogger(Logger):
    """One W&B run per run directory. A resumed run keeps its id; offline that makes a second segment of it.

    What a sweep varies is in the W&B config as `sweep/KEY`, for its columns, groups and filters.
    """

    label = "W&B"
    leftovers = "; what it has can be sent by: wandb sync {directory}/wandb/*run-*"

    def __init__(
        self, project: str, entity: str | None = None, mode: str = "auto", finish_seconds: float = 8.0
    ) -> None:
        """
        Args:
            project: the W&B project.
            entity: user or team, None for the account's default.
            mode: "auto" is the environment's WANDB_MODE, else online when there is a key, else offline.
            finish_seconds: how long the end of a run may wait for it.

        Raises:
            UserError: no such mode.
        """
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode={mode} is not one of {', '.join(MODES)}")
        self.project, self.entity, self.mode = project, entity, mode
        self.finish_seconds = finish_seconds
        self._wandb: Any = None
        self._run: Any = None
        self._row: dict[str, Any] = {}
        self._media: dict[str, Any] = {}

    def start(self, info: RunInfo) -> None:
        import wandb

        os.environ.pop("WANDB_SERVICE", None)  # that of a process which started the run, and outlives this one
        self._wandb = wandb
        self._row = {"prompt": info.config.get("prompt"), "variant": variant(info)}
        mode: Any = (
            self.mode
            if self.mode != "auto"
            else os.environ.get("WANDB_MODE") or ("online" if _logged_in(wandb) else "offline")
        )
        settings = wandb.Settings(
            silent=True,
            console="off",
            disable_git=True,
            disable_code=True,
            disable_job_creation=True,
            init_timeout=60,
            program=sys.argv[0],
            x_stats_pid=info.process,
            stop_fn=lambda: os.kill(info.process, signal.SIGINT),
        )
        self._run = wandb.init(
            project=self.project,
            entity=self.entity,
            mode=mode,
            dir=str(info.directory),
            id=info.id,
            resume="allow" if mode == "online" else None,
            name=info.directory.name,
            group=info.group,
            job_type=info.job_type,
            tags=info.tags,
            config={**info.config, **{column(key): value for key, value in info.swept.items()}},
            settings=settings,
        )
        if mode == "online":
            log.info(self._run.url)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log(metrics, step=step)

    def image(self, step: int | None, name: str, path: Path) -> None:
        picture = self._wandb.Image(str(path))
        if step is None:
            self._media[name] = picture
        self._run.log({name: picture}, step=step)

    def video(self, name: str, path: Path) -> None:
        self._media[name] = self._wandb.Video(str(path), format=path.suffix[1:])
        self._run.log({name: self._media[name]})

    def artifact(self, name: str, path: Path) -> None:
        artifact = self._wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{self._run.id}-{name}"), type=name)
        artifact.add_file(str(path))
        self._run.log_artifact(artifact)

    def finish(self, metrics: dict[str, float] | None) -> None:
        if metrics is not None:
            self._run.summary.update({f"final/{name}": value for name, value in metrics.items()})
            row = {**self._row, **self._media, **metrics}
            self._run.log({TABLE: self._wandb.Table(columns=list(row), data=[list(row.values())])})
        self._run.finish(exit_code=0 if metrics is not None else 1)


def variant(info: RunInfo) -> str:
    """What makes a run another than those with the same prompt: `guidance=vsd seed=1`, outside sweeps its directory."""
    others = [f"{key}={value}" for key, value in info.swept.items() if key != "prompt"]
    return " ".join(others) if info.swept else info.directory.name


def column(key: str) -> str:
    """The name of a swept key in the W&B config, where dots would mean nesting."""
    return f"sweep/{key.replace('.', '/')}"


def _logged_in(wandb: Any) -> bool:
    """Whether W&B finds a key for the host in use, as its own commands do."""
    wandb.setup(wandb.Settings(silent=True))  # else it asks the server who that is, to print it
    try:
        return bool(wandb.login(verify=False))
    except wandb.errors.UsageError:
        return False
    except wandb.errors.AuthenticationError as error:
        log.warning("offline, for the key is none: %s", one_line(error))
        return False
