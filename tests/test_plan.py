"""`run.dry_run=true` says what would be done and does nothing; `debug=fast` does everything twice."""

import json
import shlex
from pathlib import Path

import pytest

import diffusion3d
from choices import choices, composed
from diffusion3d.errors import UserError
from diffusion3d.hydra_cli import sweep
from diffusion3d.run import job

TOY = [f"hydra.searchpath=[{Path(__file__).parent / 'configs'}]", "task=toy", "logger=none"]


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)


def test_a_plan_names_choices_weights_steps_and_place_and_writes_nothing(tmp_path, capsys):
    typed = ["prompt=a (red) ${castle", "task.minutes=3", "logger=[wandb,tensorboard]"]
    assert diffusion3d.run([*typed, "run.dry_run=true"]) == {}
    shown = capsys.readouterr().out
    assert "prompt: a (red) ${castle\n" in shown and "\ndata:" not in shown, "the config, of what takes part"
    config, plan = shown.split("\n\n")
    assert "\n  _target_: diffusion3d.tasks.distill.Distill\n" in config
    lines = plan.splitlines()
    assert lines[0].startswith("would run task=distill in outputs/a-red-castle_distill_gsplat_sds_")
    assert "  guidance=sds: Score distillation" in plan
    assert "priors/weights/toybox.safetensors (" in plan
    assert "  steps: 400 or 3 minutes; checkpoint every 200, preview every 100" in plan
    assert lines[-2:] == ["  loggers: metrics.csv, wandb, tensorboard", "  state: new"]
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(UserError, match="did you mean"):
        diffusion3d.run(["prompt=a castle", "task.stepz=3", "run.dry_run=true"])


def test_a_plan_says_what_is_there_already(capsys):
    (Path("cut") / "checkpoints").mkdir(parents=True)
    (Path("cut") / "checkpoints" / "step_00000010.safetensors").touch()
    Path("done").mkdir()
    (Path("done") / "metrics.json").write_text(json.dumps({"loss": 1.0}))
    for directory, state in {
        "cut": "begun before; its last checkpoint is step_00000010",
        "done": "done before",
    }.items():
        diffusion3d.run(
            ["prompt=a", "prior.weights=none.safetensors", f"hydra.run.dir={directory}", "run.dry_run=true"]
        )
        shown = capsys.readouterr().out
        assert shown.endswith(f"  state: {state}\n")
        assert "prior weights: none.safetensors, which is not there" in shown


def test_a_sweeps_plan_has_all_jobs(tmp_path, capsys):
    sweep([*TOY, "task.steps=3,4", "prompt='a, b',c", "run.dry_run=true", "hydra.sweep.dir=sweep"], job)
    shown = capsys.readouterr().out
    assert [f"--- job {n} of 4" in shown for n in range(6)] == [False, True, True, True, True, False]
    assert shown.count("would run task=toy in sweep/prompt-a-b_steps-") == 2
    assert [line for line in shown.splitlines() if line.startswith("  steps: ") and ";" in line] == [
        f"  steps: {steps}; checkpoint every 10" for steps in (3, 3, 4, 4)
    ]
    assert list(tmp_path.iterdir()) == []


def test_external_configs_are_found_and_checked(tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("SCRATCH", str(tmp_path / "scratch"))
    monkeypatch.chdir(Path(__file__).parent.parent)
    text = Path("experiments/external_configs/README.md").read_text()
    [line] = [line for line in text.splitlines() if line.startswith("python -m diffusion3d.run ")]
    diffusion3d.run(shlex.split(line)[3:])
    shown = capsys.readouterr().out
    assert f"would run task=distill in {tmp_path}/scratch/outputs/a-castle-on-a-hill_distill_gsplat_csd_" in shown
    assert "prompt: a castle on a hill\n" in shown
    with pytest.raises(UserError, match="did you mean representation.count"):
        diffusion3d.run([*shlex.split(line)[3:], "representation.counts=3"])


@pytest.mark.parametrize("task", choices("task"))
def test_every_task_has_a_fast_version(task, tmp_path):
    run = [f"run={Path(__file__).parent / 'guidance' / 'source_run'}"] if task in ("render", "export") else []
    data = ["data=toybox_scenes"] if task == "fit" else []
    config = composed("debug=fast", f"task={task}", *run, *data)
    assert list(config.tags) == ["debug"] and not config.logger
    if "steps" in config.task:
        assert (config.task.steps, config.task.checkpoint_every, config.task.preview_every) == (2, 1, 1)
    else:
        assert f"fast_{task}" in choices("debug/task")


@pytest.mark.slow
def test_debug_fast_does_everything(tmp_path):
    metrics = diffusion3d.run(["debug=fast", "prompt=castle", "hydra.run.dir=run"])
    assert metrics["steps"] == 2
    made = {str(path.relative_to("run")) for path in Path("run").rglob("*")}
    assert {"videos/rgb.mp4", "contact_sheet.png", "export/scene.ply", "previews/step_00001.png"} <= made
    assert {"checkpoints/step_00000001.safetensors", "checkpoints/step_00000002.safetensors"} <= made
