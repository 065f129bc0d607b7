"""What the machine is out of, said in one line: errors as the system, numpy and torch raise them."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import diffusion3d
from diffusion3d.errors import RunError, UserError, user_error

TESTS = Path(__file__).parent
TOY = [f"hydra.searchpath=[{TESTS / 'configs'}]", "task=toy", "logger=none", "task.steps=1200"]
LIMIT = 40_000
TOO_MUCH = 10**15


def start(*typed, cwd, limit=None):
    """The command line in a process that cannot write files longer than `limit` bytes."""

    def before():
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    path = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    return subprocess.run(
        [sys.executable, "-m", "diffusion3d.run", *typed],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        preexec_fn=before if limit else None,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_run_that_cannot_write_says_so_keeps_its_checkpoint_and_goes_on_to_the_same_bits(tmp_path):
    done = start(*TOY, "hydra.run.dir=full", cwd=tmp_path, limit=LIMIT)
    *_, last = done.stderr.splitlines()
    assert done.returncode == 1 and "Traceback" not in done.stderr, done.stderr
    assert last.startswith("error: cannot write") and "make room" in last and "File too large" in last
    assert len(list((tmp_path / "full" / "checkpoints").glob("step_*.safetensors"))) == 2
    for typed in (["run.resume=full", "run.trust=[toy_task]"], [*TOY, "hydra.run.dir=whole"]):
        done = start(*typed, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    name = "checkpoints/step_00001200.safetensors"
    assert (tmp_path / "full" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.parametrize("allocate", [torch.empty, lambda n: np.empty(n), bytearray], ids=["torch", "numpy", "python"])
def test_memory_that_is_out_is_advice(allocate):
    with pytest.raises((RuntimeError, MemoryError)) as caught:
        allocate(TOO_MUCH)
    wrapped = RuntimeError("as Hydra wraps it")
    wrapped.__cause__ = caught.value
    for error in (caught.value, wrapped):
        found = user_error(error)
        assert isinstance(found, RunError)
        assert str(found).startswith("out of memory") and "camera.size" in str(found)


def test_a_run_that_asks_for_too_much_memory(tmp_path):
    typed = ["prompt=castle", "logger=none", "representation=image", "camera=front", "representation.size=10000000"]
    with pytest.raises(
        RunError, match=r"^out of memory for \d+ bytes; lower .*task.resolution of an export; checkpoints are kept$"
    ):
        diffusion3d.run([f"hydra.run.dir={tmp_path}", *typed])


def test_what_is_not_out_of_anything_stays_what_it_is():
    for error in (RuntimeError("shape mismatch"), OSError(errno.EACCES, "no"), UserError("bad"), KeyError("x")):
        assert user_error(error) is error
    told = user_error(OSError(errno.ENOSPC, "No space left on device", "/disk/file"))
    assert str(told).startswith(
        "cannot write to /disk/file: No space left on device; make room"
    ) and "if there was one" in str(told)
