"""Finding run directories and reading them, whatever state they are in."""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from diffusion3d.comparison.curves import Curve, read_curves
from diffusion3d.comparison.texts import clean
from diffusion3d.errors import UserError, one_line

SIGNS = ("metrics.csv", "metrics.json", "run.log")
"""A folder that holds one of these beside a config.yaml is a run, as is the folder of a sweep's job."""
JOB = "job.json"
"""What a sweep keeps of a job, also of one that was refused before it became a run: its number, swept keys and error."""
VIDEOS = ("rgb", "depth", "normal")
PICTURES = ("contact_sheet.png", "grid.png")
PREFIX = re.compile(r"^[\d-]+ [\d:,]+ [A-Z]+ [\w.]+: ")
"""Time, level and logger of a line of run.log."""
LOG_TAIL = 2**16
BEGUN = re.compile(r"^\d{4}-\S+ \S+ INFO diffusion3d\.tasks\.run_dir: writing to ", re.MULTILINE)
STOPPED = re.compile(r"^\d{4}-\S+ \S+ ERROR diffusion3d\.tasks\.run_dir: stopped$", re.MULTILINE)
TRACEBACK = "Traceback (most recent call last):"
RAISED = re.compile(r"^(?:[\w<>]+\.)*([A-Z_a-z]\w*(?:: .*)?(?:\n.*){0,3})$", re.MULTILINE)
"""An exception without its modules, and what Hydra and OmegaConf put on the next lines."""
Loader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


@dataclass
class FoundRun:
    """What a run directory tells.

    Attributes:
        name: its path from the folder that all compared runs share.
        status: finished; failed (an error stopped it); stopped (by a person or a signal); unfinished (running, or killed).
        error: in one line, for those that did not finish or whose files are damaged.
        config: nested, as it was written.
        overrides: {key or group: value} as typed.
        metrics: final values, or the last ones of metrics.csv.
        curves: {figure: its course}.
        videos: {rgb, depth, normal: file}; picture: what to show without videos.
        splats, mesh: files of the scene.
    """

    path: Path
    name: str
    status: str
    error: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    curves: dict[str, Curve] = field(default_factory=dict)
    videos: dict[str, Path] = field(default_factory=dict)
    picture: Path | None = None
    splats: Path | None = None
    mesh: Path | None = None


def find_runs(folders: Iterable[Path]) -> list[Path]:
    """The run directories among the folders and at any depth inside, sorted, each once; links are not followed.

    Raises:
        UserError: a folder is not there, or there is no run in any.
    """
    folders = list(folders)
    found: set[Path] = set()
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{folder} is no folder; name run directories, or folders that hold some, such as outputs")
        found.update(_runs_below(folder.resolve()))
    if not found:
        raise UserError(
            f"no run in {', '.join(map(str, folders))}: a run directory holds a config.yaml and metrics; "
            "name one, or a folder that holds some, such as outputs"
        )
    return sorted(found)


def _runs_below(folder: Path) -> Iterator[Path]:
    for current, folders, files in os.walk(folder):
        if JOB in files or ("config.yaml" in files and not set(SIGNS).isdisjoint(files)):
            folders.clear()
            yield Path(current)
        folders[:] = [name for name in folders if not name.startswith(".")]


def read_runs(paths: list[Path]) -> list[FoundRun]:
    """The runs, named by their paths from the folder that they share."""
    shared = Path(os.path.commonpath([path.parent for path in paths]))
    return [read_run(path, path.relative_to(shared).as_posix()) for path in paths]


def read_run(path: Path, name: str) -> FoundRun:
    """One run; what is damaged or missing is told by its `error`, never raised."""
    damaged: list[str] = []
    config = _read(path, "config.yaml", _yaml, dict, damaged)
    metrics = _read(path, "metrics.json", json.loads, dict, damaged)
    overrides = _read(path, "overrides.yaml", _yaml, list, damaged) or []
    job = _read(path, JOB, json.loads, dict, damaged) or {}
    swept: Any = job.get("swept") if config is None and isinstance(job.get("swept"), dict) else {}
    log = _tail(_own(path, "run.log"))
    curves = read_curves(_own(path, "metrics.csv"))
    last = {figure: curve.values[-1] for figure, curve in curves.items()}
    status, error = ("finished", "") if metrics is not None else _ending(log)
    if metrics is None and job.get("error"):
        status, error = "failed", str(job["error"])
    return FoundRun(
        path,
        clean(name),
        status,
        clean(one_line("; ".join(filter(None, [error, *damaged])))),
        _unescaped(_nested(swept) if config is None else config),
        {**{key: str(value) for key, value in swept.items()}, **dict(_typed(str(override)) for override in overrides)},
        _numbers(last if metrics is None else metrics),
        curves,
        {kind: video for kind in VIDEOS if (video := _own(path, f"videos/{kind}.mp4"))},
        _picture(path),
        _own(path, "export/scene.ply"),
        _own(path, "export/mesh.glb"),
    )


def _own(run: Path, name: str) -> Path | None:
    """A file of the run; None where there is none, or where a link leads out of the run: it may come from elsewhere."""
    path = run / name
    try:
        regular = stat.S_ISREG(path.stat().st_mode) and path.stat().st_size > 0
        own = path.resolve().is_relative_to(run.resolve()) and os.access(path, os.R_OK)
        return path if regular and own else None
    except (OSError, RuntimeError):
        return None


def _read(run: Path, name: str, parse: Any, kind: type, damaged: list[str]) -> Any:
    path = _own(run, name)
    if path is None:
        return None
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError):
        content = None
    if not isinstance(content, kind):
        damaged.append(f"{name} is damaged")
        return None
    return content


def _yaml(text: str) -> Any:
    if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader)):
        raise ValueError("our files hold no aliases, and nested ones grow without bounds")
    return yaml.load(text, Loader)


def _tail(path: Path | None) -> str:
    if path is None:
        return ""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - LOG_TAIL))
        return file.read().decode("utf-8", "replace")


def _ending(log: str) -> tuple[str, str]:
    """(status, error) of a run without metrics.json."""
    begun = [found.end() for found in BEGUN.finditer(log)]
    stopped = [found.end() for found in STOPPED.finditer(log)]
    lines = [PREFIX.sub("", line) for line in log.strip().splitlines()]
    if not stopped or (begun and begun[-1] > stopped[-1]):
        return "unfinished", f"running, or killed; its last words: {lines[-1]}" if lines else "running, or killed"
    raised = RAISED.search(log, max(stopped[-1], log.rfind(TRACEBACK)))
    error = raised[1] if raised else lines[-1]
    interrupted = error.startswith(("Interrupted", "KeyboardInterrupt"))
    return "stopped" if interrupted else "failed", error.removeprefix("Interrupted: ")


def _nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """A config of some dotted keys; a choice whose group has other keys, too, becomes the name of its class."""
    config: dict[str, Any] = {}
    for key in sorted(values, key=lambda key: key.count(".")):
        node = config
        *groups, last = key.split(".")
        for group in groups:
            if not isinstance(node.get(group), dict):
                node[group] = {"_target_": str(node[group])} if group in node else {}
            node = node[group]
        node[last] = values[key]
    return config


def _typed(override: str) -> tuple[str, str]:
    """The key of an override (for `group@key=choice` that key) and its value, without quotes around it."""
    key, _, value = override.lstrip("+~").partition("=")
    return key.rpartition("@")[2], value.strip("'\"")


def _unescaped(node: Any, depth: int = 0) -> Any:
    r"""Text as it was before `\${` kept OmegaConf from reading it; nested deeper than configs are: left out."""
    if isinstance(node, str):
        return re.sub(r"(\\*)\1\\\$\{", r"\1${", node)
    if isinstance(node, Mapping):
        return {str(key): _unescaped(value, depth + 1) for key, value in node.items()} if depth < 20 else {}
    return node


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        str(name): value
        for name, value in values.items()
        if isinstance(value, int | float) and not isinstance(value, bool)
    }


def _picture(run: Path) -> Path | None:
    previews = sorted(path.name for path in (run / "previews").glob("*.png"))
    names = [*PICTURES, *(f"previews/{name}" for name in previews[-1:])]
    return next((path for name in names if (path := _own(run, name))), None)
