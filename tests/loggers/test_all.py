"""What every logger choice keeps: a run ends well and its CSV is whole, whatever happens to the logger."""

import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

import diffusion3d
from choices import choices, composed
from diffusion3d.errors import UserError
from diffusion3d.loggers.base import Logger, Loggers

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("choice", choices("logger"))
def test_a_run_ends_well_even_without_the_loggers_package(choice, tmp_path, monkeypatch):
    for package in ("wandb", "tensorboard", "trackio"):
        monkeypatch.setitem(sys.modules, package, None)
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", f"logger={choice}", f"hydra.run.dir={tmp_path / 'run'}"]
    assert diffusion3d.run([*typed, "task.steps=3"])["norm"] > 0
    assert [row.split(",")[0] for row in (tmp_path / "run" / "metrics.csv").read_text().splitlines()] == [
        "step",
        *"012",
    ]


@pytest.mark.parametrize("choice", choices("logger"))
def test_every_logger_of_a_choice_is_one(choice):
    for node in composed(f"logger={choice}").logger.values():
        assert isinstance(instantiate(node), Logger)


def test_several_loggers_share_a_run(tmp_path):
    names = [*composed("logger=[wandb,tensorboard,trackio]").logger]
    assert names == ["wandb", "tensorboard", "trackio"]
    with pytest.raises(UserError, match="no logger.tensorboard.finish in the config; did you mean"):
        composed("logger=[wandb,tensorboard]", "logger.tensorboard.finish=3")
    with pytest.raises(
        UserError, match="logger=wanbd does not exist; choices of logger: none, tensorboard, trackio, wandb"
    ):
        composed("logger=[tensorboard,wanbd]")


class Heard(Logger):
    def __init__(self):
        self.heard = []

    def log(self, step, metrics):
        self.heard.append((step, metrics))


class Rude(Logger):
    calls = 0

    def log(self, step, metrics):
        self.calls += 1
        raise KeyError("who\nare you")


def test_a_logger_that_raises_is_one_warning_and_the_others_go_on(caplog):
    rude, heard = Rude(), Heard()
    both = Loggers([rude, heard])
    for step in range(3):
        both.log(step, {"loss": 1.0})
    both.finish({"loss": 1.0})
    assert (rude.calls, len(heard.heard)) == (1, 3)
    assert [entry.getMessage() for entry in caplog.records] == [
        "Rude is off for the rest of this run: KeyError: 'who\\nare you'"
    ]
