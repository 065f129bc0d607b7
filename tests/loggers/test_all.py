"""What every logger choice keeps: a run ends well and its CSV is whole, whatever happens to the logger."""

import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate

import diffusion3d
from choices import choices, composed
from diffusion3d.loggers.base import Logger

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.mark.parametrize("choice", choices("logger"))
def test_a_run_ends_well_even_without_the_loggers_package(choice, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
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
