import re
import sys
from pathlib import Path

import pytest
import torch

from diffusion3d.tasks.facts import versions


@pytest.mark.skipif(sys.platform != "linux", reason="the reference is Linux's own figure")
def test_the_machine_is_named():
    facts = versions()
    [kilobytes] = re.findall(r"^MemTotal:\s*(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    assert facts["memory_gib"] == pytest.approx(int(kilobytes) / 2**20, abs=0.6)
    assert len(facts["gpus"]) == torch.cuda.device_count() and facts["cpu"]
