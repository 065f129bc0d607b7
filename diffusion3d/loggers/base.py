"""The contract of loggers."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


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
    """Gets everything that a run logs, besides the files that the run writes itself.

    A run has each in a process of its own (`diffusion3d.loggers.background`): a method may take its time and may raise.

    Attributes:
        label: its name for people.
        extra: the optional dependencies of this package that it needs.
        finish_seconds: how long the end of a run may wait for it.
    """

    label = "a logger"
    extra: str | None = None

    def __init__(self, finish_seconds: float = 8.0) -> None:
        """
        Args:
            finish_seconds: how long the end of a run may wait for it.
        """
        self.finish_seconds = finish_seconds

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
        """The end, with the final metrics, or None for a run that stopped early."""

    def leftovers(self, directory: Path) -> str:
        """A clause about what was not sent of a run in this directory, when the logger was given up."""
        return ""


class Relay(Logger):
    """Tells others all that it hears."""

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

    @abstractmethod
    def _tell(self, method: str, *values: Any) -> None: ...


class Loggers(Relay):
    """Several as one."""

    def __init__(self, loggers: Sequence[Logger]) -> None:
        super().__init__()
        self._loggers = loggers

    def _tell(self, method: str, *values: Any) -> None:
        for logger in self._loggers:
            getattr(logger, method)(*values)
