"""Files that are whole or not there."""

from __future__ import annotations

import os
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
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        error.filename = error.filename or str(path)  # what is full leaves it out
        raise
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file atomically."""
    with whole(path) as temporary:
        temporary.write_bytes(content)
