"""The workspace of a sweep, built and serialised, not saved."""

import json

import pytest

from diffusion3d.loggers.workspace import main

pytest.importorskip("wandb_workspaces")


def make_sweep(directory, logger="wandb"):
    for number, guidance in enumerate(["sds", "vsd"]):
        path = directory / f"guidance-{guidance}"
        (path / "videos").mkdir(parents=True)
        (path / "videos" / "rgb.mp4").touch()
        node = {"project": "proj", "entity": None, "_target_": "diffusion3d.loggers.wandb.WandbLogger"}
        (path / "config.yaml").write_text(json.dumps({"task": {}, "logger": {logger: node}}))
        swept = {"guidance": guidance, "task.steps": 3}
        (path / "job.json").write_text(json.dumps({"number": number, "swept": swept, "error": ""}))
        (path / "metrics.json").write_text(json.dumps({"loss": 1.0, "parameters": 7, "test/psnr": 20.0, "seconds": 2}))
        (path / "metrics.csv").write_text("step,loss,sds\n0,1,1\n")


def panels(section):
    return [(panel["viewType"], panel["config"]) for panel in section["panels"]]


def test_a_workspace_has_the_sweeps_runs_columns_media_and_curves(tmp_path, capsys):
    sweep = tmp_path / "sweep_1a2b"
    make_sweep(sweep)
    assert main([str(sweep), "--entity", "me"]) == 0
    view = json.loads(capsys.readouterr().out)
    assert (view["entity"], view["project"], view["displayName"]) == ("me", "proj", "sweep_1a2b")
    [runs] = view["spec"]["section"]["runSets"]
    assert "sweep_1a2b" in json.dumps(runs["filters"]) and '"group"' in json.dumps(runs["filters"])
    columns = json.dumps(runs["runFeed"])
    for name in ("sweep/guidance", "sweep/task/steps", "final/loss", "final/test/psnr", "final/seconds"):
        assert name in columns
    results, curves = view["spec"]["section"]["panelBankConfig"]["sections"]
    assert [(kind, config["metrics"]) for kind, config in panels(curves)] == [
        ("Run History Line Plot", ["loss"]),
        ("Run History Line Plot", ["sds"]),
    ]
    kinds = dict(panels(results))
    assert kinds["Media Browser"]["mediaKeys"] == ["rgb"]
    assert '"results"' in json.dumps(kinds["Weave"])
    axes = json.dumps(kinds["Parallel Coordinates Plot"])
    assert "sweep/guidance" in axes and "final/test/psnr" in axes


def test_what_cannot_work_is_one_line(tmp_path, capsys):
    make_sweep(tmp_path / "other", logger="tensorboard")
    for directory, message in {tmp_path / "none": "it holds no jobs", tmp_path / "other": "logger=wandb"}.items():
        assert main([str(directory), "--entity", "me"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and message in error and error.count("\n") == 1
