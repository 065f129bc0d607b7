"""Names of run directories: readable, safe on every file system, at most 80 bytes."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

MAX_BYTES = 76
"""Four less than promised: room for the "-2" of a second run of the same name."""

SLUG_BYTES = 28

INCIDENTAL = r"(logger|viewer)(\..*)?|tags|run\.(resume|trust|debug|dry_run)"
"""Keys, as a regular expression, that shape no result: they say how a run is found, watched and begun."""


def slug(text: str, limit: int = SLUG_BYTES) -> str:
    """The text in lower-case ASCII letters, digits and dashes, at most `limit` of them.

    >>> slug("A château, (red)!")
    'a-chateau-red'
    """
    ascii_text = unicodedata.normalize("NFKD", text[: 10 * limit]).encode("ascii", "ignore").decode().lower()
    return re.sub(r"[^a-z0-9]+", "-", ascii_text).strip("-")[:limit].rstrip("-")


def numbered(directory: Path) -> Iterator[Path]:
    """The directory, then directory-2, directory-3 …"""
    yield directory
    for number in range(2, 10_000):
        yield directory.with_name(f"{directory.name}-{number}")


def short_hash(content: Any) -> str:
    """Eight hex digits that differ with the JSON of the content."""
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()[:8]


def shaping(config: Mapping[str, Any]) -> dict[str, Any]:
    """What of a resolved config shapes the result of its run."""
    kept = {
        key: value
        for key, value in config.items()
        if key not in ("hydra", "paths", "run") and not re.fullmatch(INCIDENTAL, key)
    }
    task = {key: value for key, value in config["task"].items() if key not in ("score", "direction")}
    return {**kept, "task": task, "source": config.get("run", {}).get("source")}


def run_name(config: Mapping[str, Any], choices: Mapping[str, str | None]) -> str:
    """`castle_distill_gsplat_sds_1a2b3c4d`: prompt (or the run it works on) and choices, then a hash of all that shapes it.

    Args:
        config: the resolved config.
        choices: {group: chosen file}.
    """
    named = ["task", *(group for group in ("representation", "guidance") if group in config["task"].get("uses", []))]
    source = config.get("run", {}).get("source")
    subject = config["prompt"] or ("" if source is None else Path(source).absolute().name)
    parts = [slug(str(subject)), *(slug(str(choices.get(group) or ""), 12) for group in named)]
    return "_".join([*(part for part in parts if part), short_hash(shaping(config))])


def sweep_job_name(overrides: Sequence[str]) -> str:
    """`guidance-vsd_prompt-race-car_1a2b3c4d`: what a sweep's job was given, then a hash of it."""
    parts = []
    for override in sorted(overrides):
        key, _, value = override.partition("=")
        parts.append(f"{slug(key.rpartition('.')[2], 16)}-{slug(value, 24)}")
    return "_".join(parts)[: MAX_BYTES - 9].rstrip("-_") + "_" + short_hash(sorted(overrides))
