"""Opening and closing a run directory, whatever goes wrong."""

import errno
import logging
import shlex
from pathlib import Path

import pytest

from choices import composed
from diffusion3d.loggers.background import Loggers
from diffusion3d.loggers.base import Logger
from diffusion3d.tasks import run_dir
from diffusion3d.tasks.run_dir import Run

CONFIGS = Path(__file__).parent.parent / "configs"


def config(*typed):
    return composed(f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=none", *typed)


def test_a_run_that_cannot_be_opened_leaves_neither_lock_nor_log_handler(tmp_path, monkeypatch):
    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    before = [*logging.getLogger().handlers]
    monkeypatch.setattr(run_dir, "save_config", full)
    with pytest.raises(OSError, match="No space left"):
        Run(config(), tmp_path / "run", [])
    assert logging.getLogger().handlers == before
    monkeypatch.undo()
    with Run(config(), tmp_path / "run", [], group="sweep"):
        pass
    assert logging.getLogger().handlers == before


def test_who_interrupts_a_run_is_told_how_to_go_on(tmp_path, caplog):
    def interrupted():
        with Run(config(), tmp_path / "run", []):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert f"run.resume={tmp_path / 'run'}" in caplog.messages[-1]


class Noting(Logger):
    """Writes down what it is told."""

    finish_seconds = 60.0

    def __init__(self, file):
        self.file = file

    def log(self, step, metrics):
        with Path(self.file).open("a") as file:
            file.write(f"{step} {metrics}\n")


def test_loggers_get_the_preview_of_the_step_before_a_resume(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parent)  # where the logger's process finds this module, too
    noted = tmp_path / "noted"
    logger = f"+logger.it={{_target_:{Path(__file__).stem}.Noting,file:'{noted}'}}"
    with Run(config(logger), tmp_path / "run", []) as run:
        run.log(1, {"loss": 1.0})
        run.save(2, {})
    with Run(config(logger, f"run.resume={run.dir}"), run.dir, []) as run:
        run.start_loggers()
        assert run.load() == (2, {})
        run.log(1, {"score": 3.0})
        run.log(2, {"loss": 0.5})
    assert noted.read_text() == "1 {'score': 3.0}\n2 {'loss': 0.5}\n"


def test_how_to_resume_names_what_must_be_typed_again(tmp_path):
    foreign = "hydra.searchpath=[pkg://choices]"
    with Run(config(), tmp_path / "run", ["task=toy", foreign]) as run:
        command = shlex.split(run.how_to_resume())
    assert command[-3:] == [f"run.resume={run.dir}", "run.trust=[toy_task]", foreign]


def test_loggers_that_were_interrupted_at_the_end_are_not_ended_twice(tmp_path, monkeypatch):
    ends = []

    def interrupted(self, metrics):
        ends.append(metrics)
        raise KeyboardInterrupt

    monkeypatch.setattr(Loggers, "finish", interrupted)

    def run_and_finish():
        with Run(config(), tmp_path, []) as run:
            run.start_loggers()
            run.finish({})

    with pytest.raises(KeyboardInterrupt):
        run_and_finish()
    assert len(ends) == 1 and ends[0] is not None and (tmp_path / "metrics.json").exists()
