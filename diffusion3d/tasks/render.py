"""New pictures of a finished run's scene."""

from __future__ import annotations

from pathlib import Path

import torch

from diffusion3d.camera_sampling import Orbit
from diffusion3d.config import load_config
from diffusion3d.errors import UserError
from diffusion3d.representations.base import Representation
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.build import build, build_camera
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.media import write_media

VIEW = 256
"""Side of the views of a run that left it to its prior; whoever draws a picture says its own."""


def load_scene(
    source: str, trusted: list[str], device: torch.device, scene: int = 0
) -> tuple[Representation, dict[str, torch.Tensor], Orbit]:
    """The representation, raw tensors [1, …] of one scene, and cameras that a finished run left.

    Raises:
        UserError: it is no run directory, or it holds no such scene.
    """
    directory = Path(source)
    config = load_config(directory, trusted)
    found = load_checkpoint(directory / "checkpoints")
    if found is None or "raw" not in found[1]["task"]:
        raise UserError(f"{directory} holds no scene: it has no whole checkpoint of a distillation or fit")
    saved = found[1]["task"]["raw"]
    count = min(len(value) for value in saved.values())
    if scene >= count:
        raise UserError(f"task.scene={scene}: {directory} has scenes 0 to {count - 1}")
    raw = {name: value[scene : scene + 1].to(device) for name, value in saved.items()}
    # how a number of elements changes is of no use any more, and may be set as an older version knew it
    counted = "elements" in config.representation.provides and config.representation.get("density") is not None
    representation: Representation = build(config.representation, **({"density": None} if counted else {}))
    representation.load_state(found[1]["task"]["density"])
    return representation, raw, build_camera(config.camera, VIEW)


class RenderScene(Task):
    """Videos of another size, length or camera path."""

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        representation, raw, camera = load_scene(config.run.source, list(config.run.trust), self.device, task.scene)
        cameras = camera.turntable(task.frames, task.size, tuple(task.elevation), task.turns)
        background = torch.tensor([list(task.background)], dtype=torch.float32, device=self.device)
        write_media(self.files, representation.scene(raw), cameras.to(self.device), background, task.fps)
        return {"frames": cameras.shape[1]}
