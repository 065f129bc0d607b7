"""Run directories as runs leave them, made in a moment."""

import json

import imageio.v3 as imageio
import numpy as np
import yaml

from diffusion3d.representations.ply import write_ply
from diffusion3d.representations.splats import splats_of
from shown_scenes import splats

FRAMES, FPS = 40, 20
LOG = "2026-01-01 10:00:00,000 INFO diffusion3d.tasks.run_dir: writing to /home/somebody/outputs/run\n"
STOPPED = """2026-01-01 10:00:09,000 ERROR diffusion3d.tasks.run_dir: stopped
Traceback (most recent call last):
  File "/home/somebody/diffusion3d/run.py", line 1, in job
    raise error
"""


def config(prompt="castle", scale=7.5, **more):
    """A nested config, a little of what a run has."""
    return {
        "prompt": prompt,
        "seed": 0,
        "run": {"resume": None, "source": None},
        "task": {"_target_": "diffusion3d.tasks.distill.Distill", "uses": ["prior"], "steps": 100},
        "guidance": {"_target_": "diffusion3d.guidance.sds.SDS", "provides": [], "scale": scale},
        "camera": {"distance": 3.0, "fov": 40.0, "turntable_elevation": 15.0},
        "paths": {"output": "/home/somebody/outputs"},
        **more,
    }


def make_run(folder, content=None, typed=(), metrics=None, steps=100, error=None, videos=("rgb", "depth"), scene=True):
    """A run directory.

    Args:
        content: the config.
        typed: overrides.
        metrics: final ones; None leaves none, as a run that did not end.
        steps: rows of metrics.csv.
        error: what stopped it, the last line of its log.
        videos: its films, whose grey is the share of the turn.
        scene: whether it exports a cloud of reds.
    """
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(yaml.safe_dump(content or config(), allow_unicode=True), encoding="utf-8")
    (folder / "overrides.yaml").write_text(yaml.safe_dump(list(typed), allow_unicode=True), encoding="utf-8")
    (folder / "run.log").write_text(LOG + (f"{STOPPED}{error}\n" if error else ""), encoding="utf-8")
    rows = [f"{step},{1000 / (step + 1)},{step / 7}" for step in range(steps)]
    (folder / "metrics.csv").write_text("\n".join(["step,loss,terms/size", *rows, ""]))
    if metrics is not None:
        (folder / "metrics.json").write_text(json.dumps(metrics))
    for kind in videos:
        write_film(folder / "videos" / f"{kind}.mp4", invert=kind == "depth")
    if scene:
        (folder / "export").mkdir()
        (folder / "export" / "scene.ply").write_bytes(write_ply(splats_of(splats(300)[1])))
    return folder


def write_film(path, invert=False):
    path.parent.mkdir(exist_ok=True)
    greys = np.linspace(20, 220, FRAMES)[:, None, None, None] * np.ones((1, 64, 64, 3))
    frames = (255 - greys if invert else greys).astype(np.uint8)
    imageio.imwrite(path, frames, fps=FPS, codec="libx264", macro_block_size=1, pixelformat="yuv420p")
