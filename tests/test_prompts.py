"""Any prompt reaches the run directory as it was typed, and comes back when the run is resumed."""

from pathlib import Path

import pytest

import diffusion3d
from diffusion3d.config import load_config
from diffusion3d.errors import UserError
from test_overrides import LISTED, PROMPTS

CONFIGS = Path(__file__).parent / "configs"
INTERPOLATIONS = [prompt for prompt in PROMPTS if "${" in prompt]


@pytest.mark.parametrize("prompt", [*LISTED, *INTERPOLATIONS])
def test_a_prompt_reaches_the_run_directory_unharmed(prompt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=none", "task.steps=1", f"prompt={prompt}"]
    diffusion3d.run(typed)
    [directory] = (tmp_path / "outputs").iterdir()
    assert list(tmp_path.iterdir()) == [tmp_path / "outputs"]
    assert len(directory.name.encode()) <= 80
    assert load_config(directory, ["toy_task"]).prompt == prompt
    if prompt in INTERPOLATIONS:
        diffusion3d.run([f"run.resume={directory}", "run.trust=[toy_task]", "task.steps=2"])
        assert load_config(directory, ["toy_task"]).prompt == prompt
        assert len((directory / "metrics.csv").read_text().splitlines()) == 3


@pytest.mark.parametrize("task", ["distill", "sample"])
@pytest.mark.parametrize("prompt", ["", "  \n"])
def test_tasks_that_need_a_prompt_refuse_an_empty_one(task, prompt, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='needs a prompt and it is empty; give one, such as prompt="a castle"'):
        diffusion3d.run([f"task={task}", "logger=none", f"prompt={prompt}"])
    assert list(tmp_path.iterdir()) == []
