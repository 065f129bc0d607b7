"""Weights & Biases: one W&B run per run directory, grouped by sweep."""

from __future__ import annotations

import logging
import netrc
import os
import re
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from diffusion3d.errors import UserError, one_line
from diffusion3d.loggers.background import Background
from diffusion3d.loggers.base import RunInfo

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline")
TABLE = "results"
"""A table of one row: the prompt, the variant, the media of the result and its final metrics. W&B joins those of all runs."""


class WandbLogger(Background):
    """One W&B run per run directory. A resumed run keeps its id; offline that makes a second segment of it.

    What a sweep varies is in the W&B config as `sweep/KEY`, for its columns, groups and filters.
    """

    label = "W&B"

    def __init__(
        self, project: str, entity: str | None = None, mode: str = "auto", finish_seconds: float = 8.0
    ) -> None:
        """
        Args:
            project: the W&B project.
            entity: user or team, None for the account's default.
            mode: "auto" is the environment's WANDB_MODE, else online when there is a key, else offline.
            finish_seconds: how long `finish` may wait.

        Raises:
            UserError: no such mode.
        """
        if mode not in MODES:
            raise UserError(f"logger.wandb.mode={mode} is not one of {', '.join(MODES)}")
        super().__init__(finish_seconds)
        self.project, self.entity, self.mode = project, entity, mode
        self._wandb: Any = None
        self._row: dict[str, Any] = {}
        self._media: dict[str, tuple[str, Path]] = {}

    def open(self, info: RunInfo) -> Any:
        import wandb

        self._wandb = wandb
        wandb.setup()  # starts its service
        if self._off:
            self.abandon()  # there was nothing to abandon before
            raise TimeoutError("given up")
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
            reinit="create_new",  # a sweep's jobs share a process: each has its own run, even if the last one hangs
        )
        run = wandb.init(
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
            log.info("W&B: %s", run.url)
        return run

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self.put(lambda run: run.log(metrics, step=step))

    def image(self, step: int | None, name: str, path: Path) -> None:
        if step is None:
            self._media[name] = ("Image", path)
        self.put(lambda run: run.log({name: self._wandb.Image(str(path))}, step=step))

    def video(self, name: str, path: Path) -> None:
        self._media[name] = ("Video", path)
        self.put(lambda run: run.log({name: self._video(path)}))

    def artifact(self, name: str, path: Path) -> None:
        def action(run: Any) -> None:
            artifact = self._wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{run.id}-{name}"), type=name)
            artifact.add_file(str(path))
            run.log_artifact(artifact)

        self.put(action)

    def close(self, metrics: dict[str, float] | None) -> None:
        if metrics is not None:
            final = {f"final/{name}": value for name, value in metrics.items()}
            self.put(lambda run: run.summary.update(final))
            self.put(lambda run: run.log({TABLE: self._table(metrics)}))
        self.put(lambda run: run.finish(exit_code=0 if metrics is not None else 1))

    def leftovers(self) -> str:
        return f"; what it has can be sent by: wandb sync {self.directory}/wandb/*run-*"

    def abandon(self) -> None:
        """At exit wandb would wait for its service, without limit if a server is silent."""
        try:
            from wandb.sdk import wandb_setup

            setup = wandb_setup._singleton  # singleton() waits for a lock that is held while the service starts
            connection = setup and setup._connection
            if connection and connection._cleanup:
                connection._cleanup()
        except Exception as error:  # no public way to do this: where wandb has changed, its exit may take longer
            log.debug("wandb's service was not let go: %s", one_line(error))

    def _video(self, path: Path) -> Any:
        return self._wandb.Video(str(path), format=path.suffix[1:])

    def _table(self, metrics: dict[str, float]) -> Any:
        make = {"Image": lambda path: self._wandb.Image(str(path)), "Video": self._video}
        row = {**self._row, **{name: make[kind](path) for name, (kind, path) in self._media.items()}, **metrics}
        return self._wandb.Table(columns=list(row), data=[list(row.values())])


def variant(info: RunInfo) -> str:
    """What makes a run another than those with the same prompt: `guidance=vsd seed=1`, outside sweeps its directory."""
    others = [f"{key}={value}" for key, value in info.swept.items() if key != "prompt"]
    return " ".join(others) if info.swept else info.directory.name


def column(key: str) -> str:
    """The name of a swept key in the W&B config, where dots would mean nesting."""
    return f"sweep/{key.replace('.', '/')}"


def _logged_in(wandb: Any) -> bool:
    """Whether there is a W&B key, in the environment or in the netrc file, for the host in use (`wandb login --host`)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(str(wandb.setup().settings.base_url)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
