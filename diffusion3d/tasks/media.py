"""Videos and the contact sheet of a scene."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch

from diffusion3d.cameras import Cameras
from diffusion3d.export.pictures import render_frames, write_gif, write_grid, write_video
from diffusion3d.files import write_bytes
from diffusion3d.representations.base import Representation, Scene
from diffusion3d.tasks.run_dir import Run

log = logging.getLogger(__name__)

SHEET_VIEWS = 8


def write_scene(
    run: Run,
    representation: Representation,
    raw: Mapping[str, torch.Tensor],
    cameras: Cameras,
    background: torch.Tensor,
    fps: int,
) -> None:
    """The files that a finished optimisation leaves of scene 0: the representation's own and the pictures."""
    for name, content in representation.export(raw).items():
        path = run.path("export", name)
        write_bytes(path, content)
        run.artifact(name, path)
    first = {name: value[:1] for name, value in raw.items()}
    write_media(run, representation.scene(first), cameras, background, fps)


def write_media(run: Run, scene: Scene, cameras: Cameras, background: torch.Tensor, fps: int) -> None:
    """videos/rgb.mp4, videos/depth.mp4, videos/rgb.gif and contact_sheet.png of scene 0 seen from `cameras` [1, F]."""
    log.info("drawing %d frames of %d x %d", cameras.shape[1], cameras.width, cameras.height)
    rgb, depth = render_frames(scene, cameras, background)
    for name, pictures in (("rgb", rgb), ("depth", depth)):
        run.video(name, write_video(run.path("videos", f"{name}.mp4"), pictures, fps))
    write_gif(run.path("videos", "rgb.gif"), rgb, fps)
    chosen = torch.linspace(0, len(rgb), SHEET_VIEWS + 1)[:-1].long()
    rows = [rgb[chosen], depth[chosen].expand(-1, 3, -1, -1)]
    write_grid(run.dir / "contact_sheet.png", [row.cpu() for row in rows])
    run.image(None, "contact_sheet", run.dir / "contact_sheet.png")
