"""Runs loggers in processes of their own, so that nothing they do can stop, slow or lose a run."""

from __future__ import annotations

import logging
import os
import pickle
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from operator import methodcaller
from pathlib import Path
from typing import Any

from diffusion3d.errors import one_line
from diffusion3d.loggers.base import Logger, RunInfo

log = logging.getLogger(__name__)

QUEUE_LENGTH = 10_000
IGNORED = (signal.SIGINT, signal.SIGTERM)
"""Signals that are the run's to answer; it says how a logger ends."""
PERIOD_SECONDS = 1.0
"""Between the times at which a process is told what came up: each interrupts what the run computes on all cores."""
POLL_SECONDS = 0.2
LAST_SECONDS = 8.0
"""For a logger to finish in when its run is gone."""
PROGRAM = """
import os, sys
os.setpgid(0, 0)
sys.path[:] = filter(None, sys.path)
from multiprocessing.connection import Connection
connection = Connection(int(sys.argv[1]))
sys.path[:], sys.argv[:] = connection.recv()
from diffusion3d.loggers.background import main
main(connection)
"""
"""Finds modules where the run does, and looks for none in the working directory if the run does not. Ctrl-C is not for it."""

Call = tuple[str, tuple[Any, ...]]
"""A method of a logger, and its arguments."""


class Loggers(Logger):
    """Several as one: each is copied to a process of its own and hears there, in turn, all that this one hears.

    All methods but `finish` return at once. A logger that raises, whose process dies or that falls behind is off for the rest
    of the run, with one warning.
    """

    def __init__(self, loggers: Sequence[Logger]) -> None:
        self._processes = [_Process(logger) for logger in loggers]

    def start(self, info: RunInfo) -> None:
        for process in self._processes:
            process.directory = info.directory
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
        """Waits for each no longer than its `finish_seconds`, and for all at once."""
        begin = time.monotonic()
        self._tell("finish", metrics)
        for process in self._processes:
            process.wait(begin)

    def _tell(self, method: str, *values: Any) -> None:
        for process in self._processes:
            process.tell(method, values)


class _Process:
    """A logger in a process of its own, and the thread that talks with it."""

    def __init__(self, logger: Logger) -> None:
        self.logger, self.directory = logger, Path()
        self._off = False
        self._calls: queue.Queue[Call] = queue.Queue(QUEUE_LENGTH)
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._work, name=logger.label, daemon=True)
        self._thread.start()

    def tell(self, method: str, values: tuple[Any, ...]) -> None:
        if self._off:
            return
        try:
            self._calls.put_nowait((method, values))
        except queue.Full:
            self._give_up(f"it is {QUEUE_LENGTH} entries behind")
        if method == "finish":
            self._ending.set()

    def wait(self, begin: float) -> None:
        """For its end, which was asked for at this time."""
        seconds = self.logger.finish_seconds
        if not self._off:
            self._thread.join(max(0.0, begin + seconds - time.monotonic()))
        if self._thread.is_alive():
            self._give_up(f"it did not finish within {seconds:g} s")

    def _give_up(self, reason: str) -> None:
        if not self._off:
            self._off = True
            leftovers = self.logger.leftovers.replace("{directory}", str(self.directory))
            log.warning("%s is off for the rest of this run: %s%s", self.logger.label, reason, leftovers)

    def _work(self) -> None:
        process = None
        try:
            copy = pickle.dumps(self.logger)
            ours, theirs = Pipe()
            with ours:
                with theirs:
                    process = _start(theirs)
                ours.send(([entry for entry in sys.path if isinstance(entry, str)], sys.argv))
                ours.send_bytes(copy)
                self._talk(ours)
        except (EOFError, BrokenPipeError, ConnectionResetError):
            self._give_up(f"its process ended{'' if process is None else f' with exit code {process.wait()}'}")
        except Exception as error:  # whatever goes wrong with it, the run goes on
            self._give_up(f"{type(error).__name__}: {one_line(error)[:200]}")
        if process is not None:
            process.wait()  # the closed pipe ends it

    def _talk(self, connection: Connection) -> None:
        """Pass on the calls, a list at a time; the next one when that is done, or when the run ends."""
        unanswered, finished = 0, False
        while not self._off and (unanswered or not finished):
            calls = []
            if not unanswered or self._ending.is_set():
                calls = [self._calls.get_nowait() for _ in range(self._calls.qsize())]
            if calls:
                connection.send(calls)
                unanswered += 1
                finished = calls[-1][0] == "finish"
            ending = self._ending.wait(PERIOD_SECONDS)
            if unanswered and connection.poll(POLL_SECONDS if ending else 0):
                unanswered -= 1
                self._hear(*connection.recv())

    def _hear(self, said: Sequence[tuple[int, str]], wrong: str | None) -> None:
        for level, message in said:
            log.log(level, "%s: %s", self.logger.label, message)
        if wrong is not None:
            self._give_up(wrong)


def _start(connection: Connection) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(connection.fileno())],
        pass_fds=[connection.fileno()],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def main(connection: Connection) -> None:
    """Have the logger that comes first do what comes then, until it has finished, or as well as it can when the run is gone."""
    for number in IGNORED:
        signal.signal(number, lambda *_: None)
    inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=[connection, inbox], daemon=True).start()
    said = _Said()
    logging.getLogger("diffusion3d").addHandler(said)
    logging.getLogger("diffusion3d").setLevel(logging.INFO)
    logger, wrong = _try(pickle.loads, inbox.get())
    finished = False
    while not finished:
        for method, values in pickle.loads(inbox.get()):
            finished = method == "finish"
            if wrong is None or finished:
                _, failed = _try(methodcaller(method, *values), logger)
                wrong = wrong or failed
        with suppress(OSError):
            connection.send((said.taken(), wrong))


def _try(action: Callable[[Any], Any], subject: Any) -> tuple[Any, str | None]:
    """(what the action gives, None), or (None, one line about what went wrong)."""
    try:
        return action(subject), None
    except ImportError as error:
        extra = getattr(subject, "extra", None)
        return None, one_line(error) + (f"; it comes with: pip install 'diffusion3d[{extra}]'" if extra else "")
    except BaseException as error:
        return None, f"{type(error).__name__}: {one_line(error)[:200]}"


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


def _listen(connection: Connection, inbox: queue.SimpleQueue[bytes]) -> None:
    """Receive until the run is gone; then the logger is to finish, and its process ends soon, whatever hangs in it."""
    with suppress(EOFError, OSError):
        while True:
            inbox.put(connection.recv_bytes())
    inbox.put(pickle.dumps([("finish", (None,))]))
    time.sleep(LAST_SECONDS)
    os._exit(1)
