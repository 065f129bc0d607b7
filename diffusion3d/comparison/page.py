"""The comparison page: one HTML file and the media it shows."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from diffusion3d.checks import find
from diffusion3d.comparison.curves import Curve
from diffusion3d.comparison.differences import differing
from diffusion3d.comparison.media import Media
from diffusion3d.comparison.runs import FoundRun
from diffusion3d.comparison.scenes import shown_scene
from diffusion3d.comparison.texts import clean
from diffusion3d.errors import UserError
from diffusion3d.files import write_text

TEMPLATE = Path(__file__).parent / "template"
SCRIPTS = ("files", "clock", "cards", "layout", "filters", "curves", "orbit", "splats", "mesh", "detail", "main")
MARK = '<meta name="generator" content="diffusion3d.compare">'
INLINED = 20
POINTS, ALL_POINTS = 400, 10_000
"""Points of a curve, and of all curves of a figure."""


def write_page(runs: Sequence[FoundRun], out: Path, single_file: bool = False) -> Path:
    """Write `out/index.html` and, beside it, `media/`; a page of before stays whole until the new one takes its place.

    Args:
        runs: to compare.
        out: folder to write to, which may hold a page of before.
        single_file: put all media into the page itself.

    Raises:
        UserError: too many runs for a single file, or `out` cannot be written, is being written or holds something else.
    """
    if single_file and len(runs) > INLINED:
        raise UserError(
            f"--single-file inlines at most {INLINED} runs and there are {len(runs)}; name fewer, or leave it out"
        )
    index = out / "index.html"
    with _locked(out):
        if index.exists() and MARK not in index.read_text(encoding="utf-8", errors="replace"):
            raise UserError(f"{index} is no comparison page and is kept; choose another folder with --out")
        media = Media(out / "media", single_file)
        write_text(index, _html(_data(runs, media), media))
        media.clear_others()
    return index


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    try:
        out.mkdir(parents=True, exist_ok=True)
        with FileLock(out / ".lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"{out} is being written by another process: wait for it, or choose another --out") from None
    except OSError as error:
        raise UserError(
            f"cannot write {out}: {error.strerror}: {error.filename}; choose another folder with --out"
        ) from None


def _data(runs: Sequence[FoundRun], media: Media) -> dict[str, Any]:
    """All that the page shows, media by name."""
    keys, values = differing(runs)
    return {
        "keys": [{"name": key, "typed": typed} for key, typed in keys.items()],
        "metrics": [clean(name) for name in dict.fromkeys(name for run in runs for name in run.metrics)],
        "runs": [_run(run, config, media) for run, config in zip(runs, values, strict=True)],
        "curves": _curves(runs, media),
    }


def _run(run: FoundRun, config: dict[str, Any], media: Media) -> dict[str, Any]:
    scene = shown_scene(run.splats, run.mesh)
    shown = None
    if scene is not None:
        camera = {key: find(run.config, f"camera.{key}") for key in ("distance", "fov", "turntable_elevation")}
        shown = {
            "kind": scene.kind,
            "file": media.data(f"{scene.kind}-{run.name}", scene.content),
            "count": scene.count,
            "camera": {key: value for key, value in camera.items() if isinstance(value, int | float)},
        }
    return {
        "name": run.name,
        "prompt": clean(str(run.config.get("prompt") or "")),
        "status": run.status,
        "error": run.error,
        "config": {key: _plain(value) for key, value in config.items()},
        "metrics": {clean(name): _plain(value) for name, value in run.metrics.items()},
        "videos": {kind: media.file(f"{kind}-{run.name}", path) for kind, path in run.videos.items()},
        "picture": None if run.picture is None or run.videos else media.file(f"picture-{run.name}", run.picture),
        "scene": shown,
    }


def _curves(runs: Sequence[FoundRun], media: Media) -> dict[str, str]:
    """{figure: file}: one file a figure, so that the page loads what it draws; equal steps are written once."""
    points = max(20, min(POINTS, ALL_POINTS // len(runs)))
    files = {}
    for figure in dict.fromkeys(name for run in runs for name in run.curves):
        steps: dict[tuple[float, ...], int] = {}
        courses: dict[int, tuple[int, list[float]]] = {}
        for number, run in enumerate(runs):
            if figure in run.curves:
                curve = _short(run.curves[figure], points)
                courses[number] = (steps.setdefault(tuple(curve.steps), len(steps)), curve.values)
        content = {"steps": list(steps), "runs": courses}
        files[clean(figure)] = media.data(f"curve-{figure}", content)
    return files


def _short(curve: Curve, points: int) -> Curve:
    short = curve.shortened(points)
    return Curve([round(step, 1) for step in short.steps], [float(f"{value:.4g}") for value in short.values])


def _plain(value: Any) -> Any:
    """JSON has neither NaN nor infinity, and JavaScript no integers beyond 2^53."""
    odd = isinstance(value, float) and not math.isfinite(value)
    return str(value) if odd or (isinstance(value, int) and abs(value) > 2**53) else value


def _html(data: dict[str, Any], media: Media) -> str:
    read = {path.name: path.read_text(encoding="utf-8") for path in TEMPLATE.iterdir()}
    script = "\n".join(['"use strict";', *(read[f"{name}.js"] for name in SCRIPTS)])
    plot = f"/*\n{read['uPlot.LICENSE']}\n*/\n{read['uPlot.iife.min.js']}"
    style = f"{read['uPlot.min.css']}\n{read['style.css']}"
    policy = (
        f"default-src 'none'; script-src 'self' file: {_hash(plot)} {_hash(script)}; style-src {_hash(style)}; "
        "img-src 'self' file: blob:; media-src 'self' file: blob:; base-uri 'none'; form-action 'none'"
    )
    parts = {
        "mark": MARK,
        "policy": f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
        "style": f"<style>{style}</style>",
        "data": f'<script type="application/json" id="data">{_json(data)}</script>',
        "media": media.html(),
        "script": f"<script>{plot}</script>\n<script>{script}</script>",
    }
    return re.sub(r"<!--(\w+)-->", lambda found: parts[found[1]], read["index.html"])


def _json(data: Any) -> str:
    """JSON that cannot end the script element that holds it."""
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
