"""What the page shows besides itself: files beside it, or text inside it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffusion3d.files import write_bytes
from diffusion3d.naming import slug

OURS = re.compile(r"\.?[a-z0-9-]*\.[0-9a-f]{16}(?:\.tmp)?\.(?:mp4|png|js)")
"""The names that are given here, also while a file is written; nothing else is ever removed."""
LABEL = 40


class Media:
    """Files named by a label and their content, so that writing a new page changes nothing of the old one's.

    Attributes:
        folder: where they are.
        inline: put them into the page instead, as JSON that is not read before it is needed.
    """

    def __init__(self, folder: Path, inline: bool) -> None:
        self.folder, self.inline = folder, inline
        self._names: set[str] = set()
        self._tags: dict[str, str] = {}

    def file(self, label: str, path: Path) -> str:
        """Take a video or a picture; returns its name."""
        content = path.read_bytes()
        return self._add(label, path.suffix, content, _base64(content))

    def data(self, label: str, content: bytes | Mapping[str, Any]) -> str:
        """Take bytes, or numbers for JSON, for the page's scripts; returns their name.

        A page from disk can load nothing but scripts, so that is what they become.
        """
        value = _base64(content) if isinstance(content, bytes) else json.dumps(content, separators=(",", ":"))
        return self._add(label, ".js", None, value)

    def html(self) -> str:
        """The tags that the page has to hold."""
        return "\n".join(self._tags.values())

    def clear_others(self) -> None:
        """Remove what former pages showed."""
        for path in self.folder.glob("*"):
            if path.name not in self._names and OURS.fullmatch(path.name):
                path.unlink()

    def _add(self, label: str, suffix: str, content: bytes | None, value: str) -> str:
        """A file's content, None for a script; the same as JSON, as the page reads it."""
        digest = hashlib.sha256(value.encode()).hexdigest()[:16]
        name = f"{slug(label, LABEL)}.{digest}{suffix}"
        if self.inline:
            self._tags[name] = f'<script type="application/json" data-file="{name}">{value}</script>'
            return name
        self._names.add(name)
        if not (self.folder / name).exists():
            self.folder.mkdir(exist_ok=True)
            write_bytes(self.folder / name, f'received("{name}", {value});\n'.encode() if content is None else content)
        return name


def _base64(content: bytes) -> str:
    return f'"{base64.b64encode(content).decode()}"'
