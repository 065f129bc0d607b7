"""What a logger in a process of its own is told, and what happens when that process misbehaves."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from diffusion3d.loggers import background
from diffusion3d.loggers.background import Background
from diffusion3d.loggers.base import Logger, Loggers, RunInfo


class Diary(Logger):
    """Writes down what it hears, and does at a step what is asked of it."""

    label, extra = "the diary", "loggers"

    def __init__(self, path, at=None, finish_seconds=60.0):
        super().__init__(finish_seconds)
        self.path, self.at = path, at

    def start(self, info):
        self.write("start", info.id, info.config, os.getpid())

    def resume(self, step):
        self.write("resume", step)

    def log(self, step, metrics):
        self.write("log", step, metrics)
        if step == 2 and self.at is not None:
            self.at()

    def image(self, step, name, path):
        self.write("image", step, name, path)

    def finish(self, metrics):
        self.write("finish", metrics)

    def leftovers(self, directory):
        return f"; see {directory}"

    def write(self, *what):
        with self.path.open("a") as file:
            print(*what, file=file)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def interrupt():
    for number in (signal.SIGINT, signal.SIGTERM):
        os.kill(os.getpid(), number)


def miss():
    import a_package_that_nobody_has  # noqa: F401


def hang():
    time.sleep(600)


class Unreadable:
    def __reduce__(self):
        return (miss, ())


def told(logger, steps=5):
    """Run through all a run tells its loggers."""
    one = Background(logger)
    one.start(RunInfo("an-id", Path("some/run"), {"prompt": "${x}"}, "toy"))
    one.resume(1)
    for step in range(1, steps):
        one.log(step, {"loss": step / 2})
    one.image(None, "sheet", Path("sheet.png"))
    one.finish({"norm": 2.0})
    return one


@pytest.fixture
def diary(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    module = __import__("test_background")  # as its process will import it
    return lambda at=None, **others: module.Diary(tmp_path / "diary", at and getattr(module, at), **others)


def lines(tmp_path):
    return (tmp_path / "diary").read_text().splitlines()


def gone(number):
    """Whether a process has ended, within a few seconds."""
    for _ in range(100):
        try:
            os.kill(number, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.1)
    return False


def test_it_hears_all_in_turn_in_another_process_that_ends_with_the_run(diary, tmp_path, caplog):
    told(diary())
    first, *others = lines(tmp_path)
    *words, number = first.split()
    assert words == ["start", "an-id", "{'prompt':", "'${x}'}"]
    assert others == [
        "resume 1",
        *[f"log {step} {{'loss': {step / 2}}}" for step in range(1, 5)],
        "image None sheet sheet.png",
        "finish {'norm': 2.0}",
    ]
    assert int(number) != os.getpid() and gone(int(number)) and not caplog.records


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("die", "its process ended"),
        ("miss", "No module named 'a_package_that_nobody_has'; it comes with: pip install 'diffusion3d[loggers]'"),
        ("hang", "it did not finish within 0.5 s"),
    ],
)
def test_a_failure_is_one_warning_and_ends_its_process(at, reason, diary, tmp_path, caplog):
    begin = time.monotonic()
    told(diary(at, finish_seconds=0.5 if at == "hang" else 60.0))
    assert time.monotonic() - begin < 30
    assert caplog.messages == [f"the diary is off for the rest of this run: {reason}; see some/run"]
    written = lines(tmp_path)
    assert written[-1].startswith("log 2") and gone(int(written[0].split()[-1]))


def test_one_that_cannot_be_had_elsewhere_is_a_warning(diary, caplog):
    logger = diary()
    logger.at = Unreadable()
    told(logger)
    assert [message.partition(":")[0] for message in caplog.messages] == ["the diary is off for the rest of this run"]


def test_one_that_falls_behind_is_switched_off(diary, monkeypatch, caplog):
    monkeypatch.setattr(background, "QUEUE_LENGTH", 5)
    told(diary("hang"), steps=50)
    assert caplog.messages == ["the diary is off for the rest of this run: it is 5 entries behind; see some/run"]


def test_signals_are_the_runs_to_answer(diary, tmp_path, caplog):
    told(diary("interrupt"))
    assert lines(tmp_path)[-1].startswith("finish") and not caplog.records


def test_one_that_fails_does_not_silence_the_others(diary, tmp_path, caplog):
    both = Loggers([Background(diary("miss")), Background(diary())])
    both.start(RunInfo("an-id", Path("some/run"), {}, "toy"))
    for step in range(4):
        both.log(step, {"loss": 1.0})
    both.finish(None)
    assert [line for line in lines(tmp_path) if line.startswith(("log 3", "finish"))] == [
        "log 3 {'loss': 1.0}",
        "finish None",
    ]
    assert len(caplog.messages) == 1


PROGRAM = """
import sys, time
from pathlib import Path
from test_background import Diary, hang
from diffusion3d.loggers.background import Background
from diffusion3d.loggers.base import RunInfo

one = Background(Diary(Path(sys.argv[1]), hang))
one.start(RunInfo("an-id", Path("."), {}, "toy"))
one.log(2, {})
time.sleep(600)
"""


def test_a_killed_run_takes_a_hanging_logger_with_it(tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "diary")], env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 60
    while not (tmp_path / "diary").exists() or len(lines(tmp_path)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    run.kill()
    run.wait()
    assert gone(int(lines(tmp_path)[0].split()[-1]))


def test_a_run_that_ends_at_once_ends_a_process_that_is_only_starting(diary, caplog):
    logger = diary(finish_seconds=0.0)
    one = Background(logger)
    one.start(RunInfo("an-id", Path("some/run"), {}, "toy"))
    one.finish(None)
    assert "it did not finish within 0 s" in caplog.text
    assert one._thread is not None and isinstance(one._thread, threading.Thread)
    one._thread.join(10)
    assert one._process.poll() is not None
