"""The contract of loggers."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffusion3d.errors import one_line

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RunInfo:
    """What a logger may know of a run.

    Attributes:
        id: the same for every process that works on this run directory.
        directory: the run directory; a logger keeps its own files inside.
        config: resolved, free of secrets.
        job_type: the kind of task.
        group: the name that the jobs of one sweep share; None outside sweeps.
        swept: {key or group: value or choice} of what the sweep varies.
    """

    id: str
    directory: Path
    config: dict[str, Any]
    job_type: str
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    swept: Mapping[str, Any] = field(default_factory=dict)


class Logger:
    """Gets everything that a run logs, besides the files that the run writes itself. All methods return at once."""

    def start(self, info: RunInfo) -> None:
        """Called once, before all others."""

    def resume(self, step: int) -> None:
        """The run goes on with this step: what was logged for it and later ones is void."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The figures of one step, or more figures of the step before."""

    def image(self, step: int | None, name: str, path: Path) -> None:
        """A picture, as an encoded file; `step` is None for one of the result."""

    def video(self, name: str, path: Path) -> None:
        """A video, as an encoded file."""

    def artifact(self, name: str, path: Path) -> None:
        """A result file, such as a scene."""

    def finish(self, metrics: dict[str, float] | None) -> None:
        """The end, with the final metrics, or None for a run that stopped early. Returns within seconds."""


class Loggers(Logger):
    """Several as one; what a logger raises is one warning, and it hears nothing more."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._on = list(loggers)

    def start(self, info: RunInfo) -> None:
        self._tell("start", info)

    def resume(self, step: int) -> None:
        self._tell("resume", step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._tell("log", step, metrics)

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._tell("image", step, name, path)

    def video(self, name: str, path: Path) -> None:
        self._tell("video", name, path)

    def artifact(self, name: str, path: Path) -> None:
        self._tell("artifact", name, path)

    def finish(self, metrics: dict[str, float] | None) -> None:
        self._tell("finish", metrics)

    def _tell(self, method: str, *values: Any) -> None:
        for logger in list(self._on):
            try:
                getattr(logger, method)(*values)
            except Exception as error:  # whatever goes wrong with a logger, the run goes on
                self._on.remove(logger)
                name = type(logger).__name__
                log.warning("%s is off for the rest of this run: %s: %s", name, type(error).__name__, one_line(error))
