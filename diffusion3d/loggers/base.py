"""The contract of loggers."""

from __future__ import annotations

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
    """

    id: str
    directory: Path
    config: dict[str, Any]
    job_type: str
    group: str | None = None
    tags: list[str] = field(default_factory=list)


class Logger:
    """Gets everything that a run logs, besides the files that the run writes itself. All methods return at once."""

    def start(self, info: RunInfo) -> None:
        """Called once, before all others."""

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """The figures of one step."""

    def image(self, step: int | None, name: str, path: Path) -> None:
        """A picture, as an encoded file; `step` is None for one of the result."""

    def video(self, name: str, path: Path) -> None:
        """A video, as an encoded file."""

    def artifact(self, name: str, path: Path) -> None:
        """A result file, such as a scene."""

    def finish(self, metrics: dict[str, float] | None) -> None:
        """The end, with the final metrics, or None for a run that stopped early. Returns within seconds."""
