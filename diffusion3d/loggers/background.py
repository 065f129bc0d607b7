"""Runs a logger in a process of its own, so that nothing it does can stop, slow or lose a run."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any

from diffusion3d.errors import one_line
from diffusion3d.loggers.base import Logger, Relay, RunInfo

log = logging.getLogger(__name__)

QUEUE_LENGTH = 10_000
FORWARDED = (signal.SIGINT, signal.SIGTERM)
"""Signals that are the run's to answer: it says how the logger ends."""

Call = tuple[str, tuple[Any, ...]]
"""A method of a logger, and its arguments."""
Answer = tuple[list[tuple[int, str]], str | None]
"""What was said meanwhile, as (level, message), and what went wrong."""


class Background(Relay):
    """Starts a process, gives it a copy of the logger, and passes on there, in turn, what it is told.

    All methods but `finish` return at once. If the logger raises, if its process dies or if it falls behind, it is off for the
    rest of the run, with one warning.
    """

    def __init__(self, logger: Logger) -> None:
        super().__init__(logger.finish_seconds)
        self.logger, self.label = logger, logger.label
        self._calls: queue.Queue[Call | None] = queue.Queue(QUEUE_LENGTH)
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._off = False
        self._leftovers = ""

    def start(self, info: RunInfo) -> None:
        self._leftovers = self.logger.leftovers(info.directory)
        self._thread = threading.Thread(target=self._work, name=self.label, daemon=True)
        self._thread.start()
        super().start(info)

    def finish(self, metrics: dict[str, float] | None) -> None:
        super().finish(metrics)
        self._put(None)
        if self._thread is not None:
            self._thread.join(self.finish_seconds)
            if self._thread.is_alive():
                self._give_up(f"it did not finish within {self.finish_seconds:g} s")

    def _tell(self, method: str, *values: Any) -> None:
        self._put((method, values))

    def _put(self, call: Call | None) -> None:
        if self._off:
            return
        try:
            self._calls.put_nowait(call)
        except queue.Full:
            self._give_up(f"it is {QUEUE_LENGTH} entries behind")

    def _give_up(self, reason: str) -> None:
        if not self._off:
            self._off = True
            log.warning("%s is off for the rest of this run: %s%s", self.label, reason, self._leftovers)
            if self._process is not None:
                self._process.kill()

    def _work(self) -> None:
        ours, theirs = Pipe()
        try:
            self._process = _start(theirs)
            theirs.close()
            ours.send(self.logger)
            while (call := self._calls.get()) is not None and not self._off:
                ours.send(call)
                said, wrong = ours.recv()
                for level, message in said:
                    log.log(level, "%s: %s", self.label, message)
                if wrong is not None:
                    self._give_up(wrong)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._give_up("its process ended")
        except Exception as error:  # whatever goes wrong with it, the run goes on
            self._give_up(f"{type(error).__name__}: {one_line(error)[:200]}")
        finally:
            ours.close()
            if self._process is not None:
                if self._off:
                    self._process.kill()  # it was given up while it started
                self._process.wait()


def _start(connection: Connection) -> subprocess.Popen[bytes]:
    """A process that runs `main` with this end of the pipe; it finds what is imported where this one does."""
    path = os.pathsep.join(entry or os.getcwd() for entry in sys.path)
    return subprocess.Popen(
        [sys.executable, "-m", __name__, str(connection.fileno())],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": path},
    )


def main(connection: Connection) -> None:
    """Have a logger do what the run tells it, until it has finished."""
    for number in FORWARDED:
        signal.signal(number, lambda *_: None)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    finished = threading.Event()
    threading.Thread(target=_listen, args=[connection, inbox, finished], daemon=True).start()
    said = _Said()
    logging.getLogger("diffusion3d").addHandler(said)
    logging.getLogger("diffusion3d").setLevel(logging.INFO)
    logger = None
    try:
        logger = pickle.loads(inbox.get())
        while not finished.is_set():
            method, values = pickle.loads(inbox.get())
            getattr(logger, method)(*values)
            if method == "finish":
                finished.set()
            connection.send((said.taken(), None))
    except ImportError as error:
        extra = getattr(logger, "extra", None)
        _fail(connection, one_line(error) + (f"; it comes with: pip install 'diffusion3d[{extra}]'" if extra else ""))
    except Exception as error:
        _fail(connection, f"{type(error).__name__}: {one_line(error)[:200]}")


def _fail(connection: Connection, wrong: str) -> None:
    connection.send(([], wrong))
    threading.Event().wait()  # for the run, which ends this process


class _Said(logging.Handler):
    """Keeps records until they are taken."""

    def __init__(self) -> None:
        super().__init__()
        self._records: list[tuple[int, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self._records.append((record.levelno, record.getMessage()))

    def taken(self) -> list[tuple[int, str]]:
        records, self._records = self._records, []
        return records


def _listen(connection: Connection, inbox: queue.SimpleQueue[bytes], finished: threading.Event) -> None:
    """Receive until the run is gone; then the process goes, too, whatever hangs in it, unless it is ending anyway."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    if not finished.is_set():
        os._exit(1)


if __name__ == "__main__":
    main(Connection(int(sys.argv[1])))
