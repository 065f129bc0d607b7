"""The loop, through runs of the toy task in this process."""

import csv
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

import diffusion3d
from diffusion3d.errors import Interrupted, RunError, UserError
from diffusion3d.tasks.checkpoint import load_checkpoint, read_checkpoint

CONFIGS = Path(__file__).parent.parent / "configs"


def toy(directory, *overrides):
    return diffusion3d.run(
        [f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=none", f"hydra.run.dir={directory}", *overrides]
    )


def resume(directory, *overrides):
    return diffusion3d.run([f"run.resume={directory}", "run.trust=[toy_task]", *overrides])


def table(directory):
    """The rows of metrics.csv without the times."""
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def checkpoint(directory, step):
    return (directory / "checkpoints" / f"step_{step:08d}.safetensors").read_bytes()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An undisturbed run of 40 steps."""
    directory = tmp_path_factory.mktemp("whole") / "run"
    toy(directory)
    return directory


def test_a_run_leaves_everything_behind(whole):
    names = {path.name for path in whole.iterdir()}
    assert names == {
        ".lock",
        "config.yaml",
        "overrides.yaml",
        "versions.json",
        "metrics.csv",
        "metrics.json",
        "run.log",
        "checkpoints",
        "previews",
    }
    rows = table(whole)
    assert [int(row["step"]) for row in rows] == list(range(40))
    assert rows[0]["late"] == ""
    row = rows[30]
    assert float(row["loss"]) == pytest.approx(float(row["fit"]) + float(row["late"]))
    assert json.loads((whole / "metrics.json").read_text())["norm"] == pytest.approx(float(rows[-1]["norm"]))
    facts = json.loads((whole / "versions.json").read_text())
    assert facts["seed"] == 0
    assert facts["packages"]["torch"]
    assert facts["threads"] >= 1
    assert "outputs in" in (whole / "run.log").read_text()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_cleanly_and_the_resumed_run_is_bit_identical(number, whole, tmp_path):
    before = signal.getsignal(number)
    stopped = tmp_path / "it's (cut)"

    def stop():
        while not (stopped / "previews" / "000015.txt").exists():
            time.sleep(0.001)
        os.kill(os.getpid(), number)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    with pytest.raises(Interrupted, match="run.resume=") as caught:
        toy(stopped, "task.sleep=0.02")
    thread.join(5)
    assert caught.value.exit_code == 128 + number
    assert signal.getsignal(number) is before
    step, _ = load_checkpoint(stopped / "checkpoints")
    assert 15 <= step < 40
    assert len(table(stopped)) == step
    assert not (stopped / "metrics.json").exists()

    resume(stopped)
    assert table(stopped) == table(whole)
    assert checkpoint(stopped, 40) == checkpoint(whole, 40)
    assert (stopped / "previews" / "000030.txt").read_text() == (whole / "previews" / "000030.txt").read_text()


def test_a_kill_between_checkpoints_loses_only_the_steps_since(whole, tmp_path):
    """What a SIGKILL at step 34 leaves: the checkpoint of step 30, rows beyond it, and half a checkpoint."""
    killed = tmp_path / "killed"
    toy(killed, "task.steps=34")
    newest = killed / "checkpoints" / "step_00000034.safetensors"
    newest.rename(newest.with_name(".step_00000034.tmp.safetensors"))
    (killed / "metrics.json").unlink()
    resume(killed, "task.steps=40")
    assert table(killed) == table(whole)
    assert checkpoint(killed, 40) == checkpoint(whole, 40)


def test_a_torn_checkpoint_costs_only_its_steps(whole, tmp_path, caplog):
    torn = tmp_path / "torn"
    toy(torn, "task.steps=34")
    newest = torn / "checkpoints" / "step_00000034.safetensors"
    newest.write_bytes(newest.read_bytes()[:-9])
    resume(torn, "task.steps=40")
    assert "step_00000034.safetensors is damaged" in caplog.text
    assert checkpoint(torn, 40) == checkpoint(whole, 40)


def test_a_finished_run_can_go_on(whole, tmp_path):
    short = tmp_path / "short"
    toy(short, "task.steps=20")
    assert json.loads((short / "metrics.json").read_text())["norm"] == pytest.approx(float(table(short)[-1]["norm"]))
    resume(short, "task.steps=40")
    assert checkpoint(short, 40) == checkpoint(whole, 40)


def test_a_resume_that_fails_leaves_a_finished_run_finished(tmp_path):
    directory = tmp_path / "run"
    toy(directory, "task.steps=20")
    result = (directory / "metrics.json").read_bytes()
    for path in (directory / "checkpoints").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    before = {path: path.read_bytes() for path in directory.rglob("step_*")} | {"rows": table(directory)}
    with pytest.raises(
        RunError, match=r"no checkpoint in .*/run/checkpoints can be read, all 2 are damaged: put whole"
    ):
        resume(directory, "task.steps=40")
    assert (directory / "metrics.json").read_bytes() == result
    assert before == {path: path.read_bytes() for path in directory.rglob("step_*")} | {"rows": table(directory)}


def test_a_finished_run_is_unfinished_from_its_first_new_step_on(tmp_path):
    directory = tmp_path / "run"
    toy(directory, "task.steps=20", "task.nan_at=21", "task.scores=true")
    first = json.loads((directory / "metrics.json").read_text())
    resume(directory)
    again = json.loads((directory / "metrics.json").read_text())
    assert again["score"] == first["score"] and again["seconds"] != first["seconds"], "made again"
    with pytest.raises(RunError, match="is nan at step 21"):
        resume(directory, "task.steps=40")
    assert not (directory / "metrics.json").exists()


def test_a_signal_saves_before_the_preview_which_the_resumed_run_makes(tmp_path):
    stopped, whole = tmp_path / "stopped", tmp_path / "whole"
    with pytest.raises(Interrupted, match="stopped at step 15 of 40"):
        toy(stopped, "task.stop_at=14", "task.scores=true")
    assert load_checkpoint(stopped / "checkpoints")[0] == 15
    assert not (stopped / "previews").exists()
    assert len(table(stopped)) == 15
    resume(stopped)
    toy(whole, "task.scores=true")
    assert [row["step"] for row in table(whole) if row["score"]] == ["14", "29", "39"]
    assert table(stopped) == table(whole)
    assert checkpoint(stopped, 40) == checkpoint(whole, 40)
    previews = {path.name: path.read_text() for path in (whole / "previews").iterdir()}
    assert previews == {path.name: path.read_text() for path in (stopped / "previews").iterdir()}


def test_what_is_ruined_is_not_shown(tmp_path):
    directory = tmp_path / "spoiled"
    with pytest.raises(RunError, match=r"state.x is not finite after step 14; .*step_00000010"):
        toy(directory, "task.spoil_at=14")
    assert not (directory / "previews").exists()


def test_nan_stops_before_the_update_and_names_the_term(whole, tmp_path):
    directory = tmp_path / "nan"
    with pytest.raises(RunError, match=r"loss term 'fit' is nan at step 17; the last good checkpoint is step_00000010"):
        toy(directory, "task.nan_at=17")
    assert [path.stem for path in (directory / "checkpoints").iterdir()] == ["step_00000010"]
    assert table(directory) == [{k: v for k, v in row.items() if k != "late"} for row in table(whole)[:17]]


def test_ruined_parameters_never_reach_a_checkpoint(tmp_path):
    directory = tmp_path / "spoiled"
    with pytest.raises(RunError, match=r"state.x is not finite after step 19; .*step_00000010"):
        toy(directory, "task.spoil_at=19")
    read_checkpoint(directory / "checkpoints" / "step_00000010.safetensors")


def test_minutes_end_a_run_early_but_whole(tmp_path):
    directory = tmp_path / "timed"
    toy(directory, "task.minutes=0.005", "task.sleep=0.05")
    step, _ = load_checkpoint(directory / "checkpoints")
    assert 1 <= step < 40
    assert (directory / "metrics.json").exists()


def test_a_bug_is_logged_with_its_traceback(tmp_path):
    directory = tmp_path / "bug"
    with pytest.raises(RuntimeError, match="boom"):
        toy(directory, "task.fail=boom")
    text = (directory / "run.log").read_text()
    assert "Traceback" in text
    assert "RuntimeError: boom" in text


def test_equal_runs_get_directories_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(3):
        diffusion3d.run([f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=none", "task.steps=1", "prompt=../../x"])
    names = sorted(path.name for path in (tmp_path / "outputs").iterdir())
    assert names == [names[0], f"{names[0]}-2", f"{names[0]}-3"]
    assert names[0].startswith("x_toy_")


def test_a_directory_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"cannot write .*; choose another place, such as paths.output="):
        toy(tmp_path / "file" / "run")


def test_resume_refuses_a_config_that_has_changed(whole, tmp_path):
    other = tmp_path / "other"
    toy(other, "task.steps=10")
    config = other / "config.yaml"
    config.write_text(config.read_text().replace("limit: 0.1", "limit: 0.2"))
    assert resume(other)["norm"] > 0, "the toy task uses no terms"
    config.write_text(config.read_text().replace("checkpoint_every: 10", "checkpoint_every: 20"))
    with pytest.raises(UserError, match="task.checkpoint_every was 20 when it was started and is 10 now"):
        resume(other)


def test_resume_needs_trust_in_classes_of_others(whole):
    with pytest.raises(UserError, match=r"add run.trust=\[toy_task\]"):
        diffusion3d.run([f"run.resume={whole}"])


@pytest.mark.parametrize(
    "granted", ["run.trust=[toy_task]", "run={trust:[toy_task]}", "+run={trust:[toy_task]}", "experiment=evil"]
)
def test_a_run_directory_cannot_grant_itself_trust(granted, whole, tmp_path):
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment" / "evil.yaml").write_text("# @package _global_\nrun: {trust: [toy_task]}\n")
    (tmp_path / "config.yaml").write_text((whole / "config.yaml").read_text())
    typed = [f"hydra.searchpath=['{CONFIGS}','{tmp_path}']", "task=toy", "logger=none", granted]
    (tmp_path / "overrides.yaml").write_text(json.dumps(typed))
    with pytest.raises(UserError, match=r"add run.trust=\[toy_task\]"):
        diffusion3d.run([f"run.resume={tmp_path}", "run.dry_run=true"])
    diffusion3d.run([f"run.resume={tmp_path}", "run.dry_run=true", "run.trust=[toy_task]"])


def test_a_run_directory_cannot_have_a_package_imported(tmp_path, monkeypatch):
    (tmp_path / "evilpkg").mkdir()
    (tmp_path / "evilpkg" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "overrides.yaml").write_text("['hydra.searchpath=[pkg://evilpkg]']")
    with pytest.raises(UserError, match=r"if you trust it, add hydra.searchpath=\[pkg://evilpkg\]$"):
        diffusion3d.run([f"run.resume={tmp_path}"])
    assert "evilpkg" not in sys.modules
