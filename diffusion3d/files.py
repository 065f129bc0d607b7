"""Files and folders that are whole or not there."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically: a kill leaves the old content or the new."""
    write_bytes(path, text.encode())


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """A path of the same suffix to write to: it becomes `path` when the block ends, and nothing stays when it fails."""
    temporary = path.with_name(f".{path.stem}.tmp{path.suffix}")
    try:
        yield temporary
        _sync(temporary)
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # what is full leaves it out
        raise
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path) -> Iterator[Path]:
    """An empty folder to fill: it replaces `path`, with all that it held, when the block ends, and nothing stays when it fails.

    A kill in the instant between two renames leaves the old folder as `.NAME.old`; the next call gives it its name back.
    """
    temporary, old = (path.with_name(f".{path.name}.{kind}") for kind in ("tmp", "old"))
    if old.exists() and not path.exists():
        old.rename(path)
    for left in (temporary, old):
        shutil.rmtree(left, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync(file)
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with whole(path) as temporary:
        temporary.write_bytes(content)


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
