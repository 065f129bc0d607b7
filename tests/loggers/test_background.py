"""What a logger in a process of its own is told, and what happens when that process misbehaves."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffusion3d.loggers import background
from diffusion3d.loggers.background import Loggers
from diffusion3d.loggers.base import Logger, RunInfo


class Diary(Logger):
    """Writes down what it hears, and does at a step what is asked of it."""

    label, extra, leftovers = "the diary", "loggers", "; see {directory}"

    def __init__(self, path, at=None, finish_seconds=60.0):
        self.path, self.at, self.finish_seconds = path, at, finish_seconds

    def start(self, info):
        self.write("start", info.id, info.config, info.process, os.getpid())

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


def leave():
    sys.exit("without a word")


def work():
    time.sleep(2)


def hang():
    time.sleep(600)


class Unreadable:
    def __reduce__(self):
        return (miss, ())


def told(*loggers, steps=5, before_the_end=None):
    """All that a run tells its loggers."""
    them = Loggers(loggers)
    them.start(RunInfo("an-id", Path("some/run"), {"prompt": "${x}"}, "toy"))
    them.resume(1)
    for step in range(1, steps):
        them.log(step, {"loss": step / 2})
    them.image(None, "sheet", Path("sheet.png"))
    if before_the_end is not None:
        until(before_the_end)
    begin = time.monotonic()
    them.finish({"norm": 2.0})
    return time.monotonic() - begin


def until(what):
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.fixture
def diary(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)
    module = __import__("test_background")  # as its process will import it
    return lambda at=None, **others: module.Diary(tmp_path / "diary", at and getattr(module, at), **others)


def lines(tmp_path):
    return (tmp_path / "diary").read_text().splitlines()


def heard(path, what):
    return path.exists() and f"\n{what}" in path.read_text()


def ended(number):
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except FileNotFoundError:
        return True


def process(tmp_path):
    """Of the logger that wrote first."""
    return int(lines(tmp_path)[0].split()[-1])


def test_it_hears_all_in_turn_in_another_process_that_ends_with_the_run(diary, tmp_path, caplog):
    told(diary())
    first, *others = lines(tmp_path)
    assert first.split()[:-1] == ["start", "an-id", "{'prompt':", "'${x}'}", str(os.getpid())]
    assert others == [
        "resume 1",
        *[f"log {step} {{'loss': {step / 2}}}" for step in range(1, 5)],
        "image None sheet sheet.png",
        "finish {'norm': 2.0}",
    ]
    assert process(tmp_path) != os.getpid() and ended(process(tmp_path)) and not caplog.records


@pytest.mark.parametrize(
    ("at", "reason"),
    [
        ("die", "its process ended with exit code -9"),
        ("miss", "No module named 'a_package_that_nobody_has'; it comes with: pip install 'diffusion3d[loggers]'"),
        ("leave", "SystemExit: without a word"),
    ],
)
def test_a_failure_is_one_warning_at_once_and_ends_its_process(at, reason, diary, tmp_path, caplog):
    seconds = told(diary(at), before_the_end=lambda: caplog.records)
    assert seconds < 1 and caplog.messages == [f"the diary is off for the rest of this run: {reason}; see some/run"]
    until(lambda: ended(process(tmp_path)))
    assert [line for line in lines(tmp_path) if line.startswith("log")][-1].startswith("log 2")


def test_those_that_hang_cost_no_more_than_their_finish_seconds_and_others_nothing(diary, tmp_path, caplog):
    fine = diary(finish_seconds=2)
    fine.path = tmp_path / "another"
    loggers = [diary("hang", finish_seconds=2), diary("hang", finish_seconds=2), fine]
    assert 1.9 < told(*loggers, before_the_end=lambda: heard(tmp_path / "diary", "log 2")) < 3.5
    warning = "the diary is off for the rest of this run: it did not finish within 2 s; see some/run"
    assert caplog.messages == [warning] * 2 and heard(fine.path, "finish {'norm': 2.0}")
    until(lambda: ended(process(tmp_path)))


def test_one_that_is_busy_until_the_run_ends_hears_the_end_of_a_run_that_went_well(diary, tmp_path, caplog):
    logger = diary("work")
    logger.finish_seconds = 0.5
    told(logger, before_the_end=lambda: heard(tmp_path / "diary", "log 2"))
    assert "it did not finish within 0.5 s" in caplog.text
    until(lambda: heard(tmp_path / "diary", "finish"))
    assert lines(tmp_path)[-1] == "finish {'norm': 2.0}"


def test_one_that_cannot_be_copied_is_a_warning(diary, caplog):
    logger = diary()
    logger.at = Unreadable()
    told(logger, before_the_end=lambda: caplog.records)
    assert "off for the rest of this run: No module named 'a_package_that_nobody_has'" in caplog.text


def test_one_that_falls_behind_is_switched_off(diary, monkeypatch, caplog):
    monkeypatch.setattr(background, "QUEUE_LENGTH", 5)
    assert told(diary("hang"), steps=50) < 1
    assert caplog.messages == ["the diary is off for the rest of this run: it is 5 entries behind; see some/run"]


def test_signals_are_the_runs_to_answer(diary, tmp_path, caplog):
    told(diary("interrupt"))
    assert lines(tmp_path)[-1].startswith("finish") and not caplog.records


def test_one_that_fails_does_not_silence_the_others(diary, tmp_path, caplog):
    fine = diary()
    fine.path = tmp_path / "another"
    told(diary("miss"), fine)
    assert fine.path.read_text().endswith("finish {'norm': 2.0}\n") and len(caplog.messages) == 1


def test_what_lies_in_the_working_directory_is_not_imported(diary, tmp_path, monkeypatch, caplog):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [entry for entry in sys.path if entry not in ("", ".")])
    for name in ("queue", "json", "diffusion3d", "multiprocessing"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit")
    told(diary())
    assert lines(tmp_path)[-1].startswith("finish") and not caplog.records


PROGRAM = """
import sys, time
from pathlib import Path
import test_background
from diffusion3d.loggers.background import Loggers
from diffusion3d.loggers.base import RunInfo

one = Loggers([test_background.Diary(Path(sys.argv[1]), getattr(test_background, sys.argv[2], None))])
one.start(RunInfo("an-id", Path("."), {}, "toy"))
one.log(2, {})
time.sleep(600)
"""


@pytest.mark.parametrize("at", ["hang", "nothing"])
def test_a_killed_runs_logger_ends_too_in_good_order_if_it_can(at, tmp_path):
    path = os.pathsep.join([str(Path(__file__).parent), str(Path(__file__).parents[2])])
    run = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(tmp_path / "diary"), at], env={**os.environ, "PYTHONPATH": path}
    )
    until(lambda: heard(tmp_path / "diary", "log 2"))
    run.kill()
    run.wait()
    until(lambda: ended(process(tmp_path)))
    assert (lines(tmp_path)[-1] == "finish None") == (at == "nothing")
