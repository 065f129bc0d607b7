"""Weights & Biases. All of it happens in a background thread, so that nothing about it can stop, slow or lose a run."""

from __future__ import annotations

import logging
import netrc
import os
import queue
import re
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

from diffusion3d.errors import UserError, one_line
from diffusion3d.loggers.base import Logger, RunInfo

log = logging.getLogger(__name__)

MODES = ("auto", "online", "offline")
QUEUE_LENGTH = 10_000

Action = Callable[[Any, Any], object]
"""Something to do with (the wandb module, the wandb run)."""


class WandbLogger(Logger):
    """One W&B run per run directory. A resumed run keeps its id; offline that makes a second segment of it."""

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
        self.project, self.entity, self.mode, self.finish_seconds = project, entity, mode, finish_seconds
        self._actions: queue.Queue[Action | None] = queue.Queue(QUEUE_LENGTH)
        self._thread: threading.Thread | None = None
        self._off = False
        self._directory = Path()

    def start(self, info: RunInfo) -> None:
        self._directory = info.directory
        self._thread = threading.Thread(target=self._work, args=[info], name="wandb", daemon=True)
        self._thread.start()

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._put(lambda wandb, run: run.log(metrics, step=step))

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._put(lambda wandb, run: run.log({name: wandb.Image(str(path))}, step=step))

    def video(self, name: str, path: Path) -> None:
        self._put(lambda wandb, run: run.log({name: wandb.Video(str(path), format=path.suffix[1:])}))

    def artifact(self, name: str, path: Path) -> None:
        def action(wandb: Any, run: Any) -> None:
            artifact = wandb.Artifact(re.sub(r"[^\w.-]", "-", f"{run.id}-{name}"), type=name)
            artifact.add_file(str(path))
            run.log_artifact(artifact)

        self._put(action)

    def finish(self, metrics: dict[str, float] | None) -> None:
        if metrics is not None:
            self._put(
                lambda wandb, run: run.summary.update({f"final/{name}": value for name, value in metrics.items()})
            )
        self._put(lambda wandb, run: run.finish(exit_code=0 if metrics is not None else 1))
        self._put(None)
        if self._thread is not None:
            self._thread.join(self.finish_seconds)
            if self._thread.is_alive():
                self._give_up(f"it did not finish within {self.finish_seconds:g} s")

    def _put(self, action: Action | None) -> None:
        if self._off:
            return
        try:
            self._actions.put_nowait(action)
        except queue.Full:
            self._give_up(f"it is {QUEUE_LENGTH} entries behind")

    def _give_up(self, reason: str) -> None:
        if not self._off:
            self._off = True
            hint = f"; what it has can be sent by: wandb sync {self._directory}/wandb/*run-*"
            log.warning("W&B is off for the rest of this run: %s%s", reason, hint)
            _abandon()

    def _work(self, info: RunInfo) -> None:
        try:
            import wandb

            run = self._init(wandb, info)
            while (action := self._actions.get()) is not None and not self._off:
                action(wandb, run)
        except Exception as error:  # whatever goes wrong with W&B, the run goes on
            self._give_up(f"{type(error).__name__}: {one_line(error)[:200]}")

    def _init(self, wandb: Any, info: RunInfo) -> Any:
        mode = (
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
            config=info.config,
            settings=settings,
        )
        if mode == "online":
            log.info("W&B: %s", run.url)
        return run


def _logged_in(wandb: Any) -> bool:
    """Whether there is a W&B key, in the environment or in the netrc file, for the host in use (`wandb login --host`)."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = urlparse(str(wandb.setup().settings.base_url)).hostname or ""
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _abandon() -> None:
    """Let the process end without W&B's service: at exit wandb would wait for it, without limit if a server is silent."""
    try:
        from wandb.sdk import wandb_setup

        connection = wandb_setup.singleton()._connection
        if connection is not None and connection._cleanup is not None:
            connection._cleanup()
    except Exception as error:  # no public way to do this: where wandb has changed, its exit may take longer
        log.debug("wandb's service was not let go: %s", one_line(error))
