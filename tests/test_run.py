"""The command line, as a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
TOY = [f"hydra.searchpath=[{TESTS / 'configs'}]", "task=toy", "logger=none"]
ENVIRONMENT = {
    **os.environ,
    "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
    "OMP_WAIT_POLICY": "PASSIVE",
}


def start(*arguments, cwd, command=("-m", "diffusion3d.run")):
    return subprocess.Popen(
        [sys.executable, *command, *arguments],
        cwd=cwd,
        env=ENVIRONMENT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process):
    out, err = process.communicate(timeout=120)
    return process.returncode, out, err


def test_bad_input_is_one_line_and_two_before_any_heavy_import(tmp_path):
    program = (
        "import sys; from diffusion3d.run import main; code = main(); "
        "heavy = {'torch', 'numpy', 'wandb', 'transformers', 'diffusers'} & set(sys.modules); "
        "print(code, sorted(heavy))"
    )
    for bad in (["task.stepz=3"], ["task=toi"], ["task.steps=many"], ["castle"], ["--wat"], ["-m", "task=toi"]):
        code, out, err = finish(start(*bad, cwd=tmp_path, command=("-c", program)))
        assert (code, out) == (0, "2 []\n"), (bad, err)
        assert err.startswith("error: "), bad
        assert err.count("\n") == 1, (bad, err)
    assert list(tmp_path.iterdir()) == []


def test_help_shows_groups_choices_and_examples(tmp_path):
    code, out, _ = finish(start("--help", cwd=tmp_path))
    assert code == 0
    assert "logger: none, tensorboard, trackio, wandb" in out
    for group in ["task", "prior", "representation", "guidance", "terms", "camera", "data", "paths"]:
        assert f"\n{group}: " in out
    assert out.count("python -m diffusion3d.run") == 3


@pytest.mark.parametrize("flag", [("--cfg", "job"), ("--cfg=job",)])
def test_cfg_shows_the_config_with_a_literal_prompt(tmp_path, flag):
    code, out, err = finish(start("prompt=a (b", *flag, cwd=tmp_path))
    assert (code, err) == (0, "")
    assert "prompt: a (b" in out


def test_the_shell_completes_groups_choices_and_keys(tmp_path, monkeypatch):
    for line, found in {"diffusion3d guidance=sd": "guidance=sds", "diffusion3d task.st": "task.steps="}.items():
        monkeypatch.setitem(ENVIRONMENT, "COMP_LINE", line)
        monkeypatch.setitem(ENVIRONMENT, "COMP_POINT", str(len(line)))
        code, out, _ = finish(start("-sc", "query=bash", cwd=tmp_path))
        assert code == 0 and found in out.split()
    program = "import sys; sys.argv[0] = '/bin/diffusion3d'; from diffusion3d.run import main; main()"
    code, out, _ = finish(start("-sc", "install=bash", cwd=tmp_path, command=("-c", program)))
    assert code == 0 and out.rstrip().endswith("-F hydra_bash_completion diffusion3d")


def test_a_killed_run_resumes_to_the_same_bits(tmp_path):
    prompt, steps = "prompt=a corgi, standing", "task.steps=600"
    killed = start(*TOY, "hydra.run.dir=killed", prompt, steps, cwd=tmp_path)
    while not (tmp_path / "killed" / "checkpoints" / "step_00000100.safetensors").exists():
        assert killed.poll() is None
        time.sleep(0.001)
    killed.kill()
    killed.communicate()
    assert not (tmp_path / "killed" / "metrics.json").exists()
    for arguments in (["run.resume=killed", "run.trust=[toy_task]"], [*TOY, "hydra.run.dir=whole", prompt, steps]):
        code, _, err = finish(start(*arguments, cwd=tmp_path))
        assert code == 0, err
    name = "checkpoints/step_00000600.safetensors"
    assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_running_directory_is_locked_and_sigterm_saves_and_exits_with_143(tmp_path):
    process = start(*TOY, "hydra.run.dir=run", "task.sleep=0.05", "task.steps=2000", cwd=tmp_path)
    while not (tmp_path / "run" / "previews").exists():
        assert process.poll() is None
        time.sleep(0.01)
    code, _, err = finish(start("run.resume=run", "run.trust=[toy_task]", cwd=tmp_path))
    assert (code, err) == (
        2,
        f"error: {tmp_path / 'run'} is being written by another process: wait for it, or stop it\n",
    )
    process.terminate()
    code, _, err = finish(process)
    assert code == 143
    assert "continue with: python -m diffusion3d.run run.resume=" in err
    assert list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_sweep_goes_on_when_a_job_fails(tmp_path):
    process = start("-m", *TOY, "prompt=castle,'a corgi, standing'", "task.steps=2", "task.nan_at=null,1", cwd=tmp_path)
    code, _, err = finish(process)
    assert code == 1
    assert err.endswith("error: 2 of 4 jobs failed\n")
    [sweep] = (tmp_path / "outputs").iterdir()
    jobs = {path.name: (path / "metrics.json").exists() for path in sweep.iterdir() if path.is_dir()}
    assert len(jobs) == 4
    assert sum(jobs.values()) == 2
    assert any(name.startswith("prompt-a-corgi-standing_nan-at-null_") and done for name, done in jobs.items())


def test_the_function_survives_the_import_of_its_module():
    import diffusion3d.run

    assert callable(diffusion3d.run)
    assert diffusion3d.run.main
