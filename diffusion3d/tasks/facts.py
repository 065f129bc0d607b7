"""What is worth knowing about the machine, the versions and the process that made a result."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

from diffusion3d.files import write_text
from diffusion3d.version import __version__

PACKAGES = (
    "torch",
    "numpy",
    "hydra-core",
    "omegaconf",
    "diffusers",
    "transformers",
    "tokenizers",
    "peft",
    "safetensors",
    "nerfacc",
    "gsplat",
    "wandb",
    "imageio",
    "imageio-ffmpeg",
    "pillow",
    "trimesh",
    "embreex",
)


def versions() -> dict[str, Any]:
    """Versions of this package, of Python and of what we compute with; CPU, cores, memory in GiB, GPUs; git commit of a
    checkout."""
    import torch

    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "diffusion3d": __version__,
        "git": git_commit(Path(__file__).resolve().parents[2]),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "memory_gib": memory(),
        "gpus": [torch.cuda.get_device_name(number) for number in range(torch.cuda.device_count())],
        "packages": found,
    }


def git_commit(checkout: Path) -> str | None:
    """The commit of a checkout, "-dirty" appended where the package or its configs differ from it; None where it is none."""
    if not (checkout / ".git").exists():
        return None
    asked = ["status", "--porcelain=v2", "--branch", "--untracked-files=no", "--", "diffusion3d", "conf"]
    command = ["git", "-C", str(checkout), *asked]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.TimeoutExpired):
        return None
    told = [line for line in done.stdout.splitlines() if not line.startswith("# branch.") or "# branch.oid " in line]
    if done.returncode or not told:
        return None
    return told[0].split()[-1] + ("-dirty" if len(told) > 1 else "")


def cpu_name() -> str:
    """The processor's name, as well as the system tells it."""
    cpuinfo = Path("/proc/cpuinfo")
    found = re.search(r"^model name\s*:\s*(.+)$", cpuinfo.read_text(), re.MULTILINE) if cpuinfo.exists() else None
    return found[1] if found else platform.processor() or platform.machine()


def memory() -> int | None:
    """The machine's memory in GiB; None where the system does not tell (Windows)."""
    try:
        return round(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") / 2**30)
    except (AttributeError, ValueError, OSError):
        return None


def reset_peak_memory() -> None:
    """Let `peak_memory` count from now, where the system can (Linux); elsewhere it counts from the process's start."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> dict[str, float]:
    """{"peak_memory_mb": ...} of this process; empty where the system does not tell."""
    with suppress(OSError):
        found = re.search(r"^VmHWM:\s*(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
        if found is not None:
            return {"peak_memory_mb": round(int(found[1]) / 2**10, 1)}
    try:
        import resource
    except ImportError:  # Windows
        return {}
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return {"peak_memory_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 1)}


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically."""
    write_text(path, json.dumps(content, indent=2) + "\n")
