import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from diffusion3d.tasks.facts import git_commit, versions


@pytest.mark.skipif(sys.platform != "linux", reason="the reference is Linux's own figure")
def test_the_machine_is_named():
    facts = versions()
    [kilobytes] = re.findall(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert facts["memory_gib"] == pytest.approx(int(kilobytes) / 2**20, abs=0.6)
    assert len(facts["gpus"]) == torch.cuda.device_count() and facts["cpu"]


def test_a_commit_is_dirty_where_the_code_differs_and_not_where_results_do(tmp_path):
    def git(*typed):
        identity = ["-c", "user.name=a", "-c", "user.email=a@b.c"]
        return subprocess.run(
            ["git", "-C", str(tmp_path), *identity, *typed], check=True, capture_output=True, text=True
        )

    assert git_commit(tmp_path) is None
    git("init")
    for folder in ("diffusion3d", "conf", "results"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.py").write_text("")
    git("add", ".")
    git("commit", "-m", "a")
    head = git("rev-parse", "HEAD").stdout.strip()
    assert git_commit(tmp_path) == head
    (tmp_path / "results" / "a.py").write_text("1")
    (tmp_path / "conf" / "new.py").write_text("1")
    assert git_commit(tmp_path) == head
    (tmp_path / "conf" / "a.py").write_text("1")
    assert git_commit(tmp_path) == f"{head}-dirty"
