"""What a figure depends on besides what it measures: the machine, its threads, the packages and the code."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).resolve().parent.parent.parent


def circumstances(threads: Iterable[int] | None) -> dict[str, Any]:
    """Machine, packages and numbers of threads, for a script's JSON.

    Args:
        threads: of torch in what was measured, see `threads_of`; None where torch was no part of it.
    """
    from diffusion3d.tasks.facts import versions

    facts = versions()
    packages = facts.pop("packages")
    if threads is not None:
        facts["threads"] = sorted(set(threads))
        assert facts["threads"], "the threads of what was measured are unknown"
    return {"machine": facts, "packages": packages}


def threads_of(run: Path) -> int:
    """Threads that torch had in a run, which its versions.json tells."""
    return json.loads((run / "versions.json").read_text())["threads"]


def code_hash(*more: Path) -> str:
    """A hash of all files of the package but compiled ones, of its configuration and of `more`."""
    found = hashlib.sha256()
    folders = [CHECKOUT / "diffusion3d", CHECKOUT / "conf"]
    files = [path for folder in folders for path in folder.rglob("*") if path.suffix not in (".pyc", ".so")]
    for path in sorted([*filter(Path.is_file, files), *more]):
        content = path.read_bytes()
        found.update(f"{path.relative_to(CHECKOUT)} {len(content)}\n".encode() + content)
    return found.hexdigest()[:16]
