"""The contract of loggers."""

from __future__ import annotations

import os
from collections.abc import Mapping
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
        process: the id of the run's process.
    """

    id: str
    directory: Path
    config: dict[str, Any]
    job_type: str
    group: str | None = None
    tags: list[str] = field(default_factory=list)
    swept: Mapping[str, Any] = field(default_factory=dict)
    process: int = field(default_factory=os.getpid)


class Logger:
    """Gets everything that a run logs, besides the files that the run writes itself.

    A run pickles each into a process of its own (`diffusion3d.loggers.background`): a method may take its time and may raise,
    the class is one that can be imported there, and nothing is opened before `start`.

    Attributes:
        label: its name for people.
        extra: the optional dependencies of this package that it needs.
        leftovers: of a logger that was given up: what to do about it, `{directory}` being the run's.
        finish_seconds: how long the end of a run may wait for it.
    """

    label = "a logger"
    extra: str | None = None
    leftovers = ""
    finish_seconds = 8.0

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
        """The end, with the final metrics, or None for a run that stopped early or gave this logger up."""
