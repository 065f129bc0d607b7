"""Loggers that talk to a library or a service: all of it in a thread, so that nothing can stop, slow or lose a run."""

from __future__ import annotations

import logging
import queue
import threading
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any

from diffusion3d.errors import one_line
from diffusion3d.loggers.base import Logger, RunInfo

log = logging.getLogger(__name__)

QUEUE_LENGTH = 10_000

Action = Callable[[Any], object]
"""Something to do with what `open` gave."""


class Background(Logger):
    """Queues what to do and does it in its thread. On an error, or when it falls behind, it is off for the rest of the run.

    A subclass `open`s what it writes to, says by `put` what to do with it, and says by `close` how to end.

    Attributes:
        label: its name for people.
        extra: the optional dependencies of this package that it needs.
        directory: of the run.
    """

    label: str
    extra: str | None = None

    def __init__(self, finish_seconds: float = 8.0) -> None:
        """
        Args:
            finish_seconds: how long `finish` may wait.
        """
        self.finish_seconds = finish_seconds
        self.directory = Path()
        self._actions: queue.Queue[Action | None] = queue.Queue(QUEUE_LENGTH)
        self._thread: threading.Thread | None = None
        self._off = False

    @abstractmethod
    def open(self, info: RunInfo) -> Any:
        """What the actions get. Called in the thread, before all of them."""

    @abstractmethod
    def close(self, metrics: dict[str, float] | None) -> None:
        """`put` what ends the run, with its final metrics, or None for a run that stopped early."""

    def leftovers(self) -> str:
        """A clause about what was not sent."""
        return ""

    def abandon(self) -> None:
        """Let the process end without waiting for the library."""

    def start(self, info: RunInfo) -> None:
        self.directory = info.directory
        self._thread = threading.Thread(target=self._work, args=[info], name=self.label, daemon=True)
        self._thread.start()

    def put(self, action: Action | None) -> None:
        """Have it done in the thread, after all that was put before; None ends the thread."""
        if self._off:
            return
        try:
            self._actions.put_nowait(action)
        except queue.Full:
            self._give_up(f"it is {QUEUE_LENGTH} entries behind")

    def finish(self, metrics: dict[str, float] | None) -> None:
        self.close(metrics)
        self.put(None)
        if self._thread is not None:
            self._thread.join(self.finish_seconds)
            if self._thread.is_alive():
                self._give_up(f"it did not finish within {self.finish_seconds:g} s")

    def _give_up(self, reason: str) -> None:
        if not self._off:
            self._off = True
            log.warning("%s is off for the rest of this run: %s%s", self.label, reason, self.leftovers())
            self.abandon()

    def _work(self, info: RunInfo) -> None:
        try:
            opened = self.open(info)
            while (action := self._actions.get()) is not None and not self._off:
                action(opened)
        except ImportError as error:
            advice = "" if self.extra is None else f"; it comes with: pip install 'diffusion3d[{self.extra}]'"
            self._give_up(f"{one_line(error)}{advice}")
        except Exception as error:  # whatever goes wrong with it, the run goes on
            self._give_up(f"{type(error).__name__}: {one_line(error)[:200]}")
