"""Worker processes of a sweep."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock, Timeout

TESTS = Path(__file__).parent


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="the kernel must tell")
def test_jobs_end_with_their_sweep(tmp_path):
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    typed = [
        "-m",
        f"hydra.searchpath=[{TESTS / 'configs'}]",
        "task=toy",
        "logger=none",
        "task.steps=6000",
        "task.sleep=0.05",
    ]
    typed += ["hydra/launcher=parallel", "hydra.launcher.n_jobs=2", "seed=0,1", f"hydra.sweep.dir={tmp_path}"]
    sweep = subprocess.Popen(
        [sys.executable, "-m", "diffusion3d.run", *typed],
        env={**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{TESTS.parent}"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while len(begun := [*tmp_path.glob("*/metrics.csv")]) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    with pytest.raises(Timeout):
        FileLock(begun[0].parent / ".lock", timeout=0).acquire()
    os.kill(sweep.pid, signal.SIGKILL)
    sweep.wait()
    for path in begun:
        with FileLock(path.parent / ".lock", timeout=10):
            assert not (path.parent / "metrics.json").exists()
    assert len(begun) == 2
