"""What every logger choice keeps: a run ends well and its CSV is whole, whatever happens to the logger."""

from pathlib import Path

import pytest
from hydra.utils import instantiate

import diffusion3d
from choices import choices, composed
from diffusion3d.errors import UserError
from diffusion3d.loggers.base import Logger

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("choice", choices("logger"))
def test_a_run_ends_well_even_without_the_loggers_package(choice, tmp_path, monkeypatch, caplog):
    for package in ("wandb", "tensorboard", "trackio"):
        (tmp_path / f"{package}.py").write_text(f"raise ModuleNotFoundError('no {package}')")
    monkeypatch.syspath_prepend(tmp_path)
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", f"logger={choice}", f"hydra.run.dir={tmp_path / 'run'}"]
    typed += [f"logger.{name}.finish_seconds=60" for name in composed(f"logger={choice}").logger]
    assert diffusion3d.run([*typed, "task.steps=3"])["norm"] > 0
    assert [row.split(",")[0] for row in (tmp_path / "run" / "metrics.csv").read_text().splitlines()] == [
        "step",
        *"012",
    ]
    assert len([r for r in caplog.records if "is off for the rest of this run: no" in r.getMessage()]) == (
        choice != "none"
    )


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
