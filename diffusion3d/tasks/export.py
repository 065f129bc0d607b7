"""A finished run's scene as files for other programs."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from omegaconf import ListConfig

from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.config import load_config
from diffusion3d.errors import UserError
from diffusion3d.export.meshes import SceneMesh, write_glb, write_mesh_ply, write_obj
from diffusion3d.export.pictures import depth_frames, normal_frames, render_views, write_gif, write_video
from diffusion3d.export.views import spread, write_transforms
from diffusion3d.files import write_bytes
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Scene
from diffusion3d.representations.gsplat import SplatScene
from diffusion3d.representations.splat_files import WRITERS
from diffusion3d.representations.splats import Splats
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.render import load_scene

log = logging.getLogger(__name__)

BEYOND = 20.0
STEEPEST = 80.0
SPLATS = tuple(WRITERS)
MESHES = ("glb", "obj", "mesh_ply")
OF_ANY_SHAPE = (*MESHES, "videos", "transforms")


def chosen_formats(given: str | list[str] | None, splats: bool = True, geometry: bool = True) -> list[str]:
    """The formats to write, all that there are if none is given.

    Args:
        given: `task.formats`.
        splats: whether the scene is made of Gaussians.
        geometry: whether it has a shape; else it becomes videos alone.

    Raises:
        UserError: there is no such format, or the scene cannot become it.
    """
    possible = [*(SPLATS if splats else ()), *(OF_ANY_SHAPE if geometry else ("videos",))]
    formats = possible if given is None else [given] if isinstance(given, str) else list(dict.fromkeys(given))
    for name in formats:
        if name not in (*SPLATS, *OF_ANY_SHAPE):
            raise UserError(f"task.formats: there is no {name}; there are {', '.join([*SPLATS, *OF_ANY_SHAPE])}")
        if name not in possible:
            lacking = "Gaussians" if name in SPLATS else "a shape"
            raise UserError(
                f"task.formats: {name} holds {lacking} and this scene has none; it can become {', '.join(possible)}"
            )
    return formats


class Export(Task):
    """Writes one scene of the run: export/ holds Gaussians and meshes, videos/ films, transforms/ a data set."""

    @torch.no_grad()
    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        asked = list(task.formats) if isinstance(task.formats, ListConfig) else task.formats
        chosen_formats(asked)
        source, trusted = config.run.source, list(config.run.trust)
        geometry = "geometry" in load_config(Path(source), trusted).representation.provides
        representation, raw, camera = load_scene(source, trusted, self.device, task.scene)
        scene = representation.scene(raw)
        formats = chosen_formats(asked, isinstance(scene, SplatScene), geometry)
        cameras = self._around(camera)
        metrics: dict[str, float] = {}
        if isinstance(scene, SplatScene) and not set(SPLATS).isdisjoint(formats):
            metrics |= self._splats(scene, formats)
        if "videos" in formats:
            self._videos(scene, camera, geometry)
        if not {*MESHES, "transforms"}.isdisjoint(formats):
            render = render_views(scene, cameras)
            log.info("rendered %d views", task.views)
            if "transforms" in formats:
                write_transforms(self.files.dir / "transforms", render, cameras)
            if not set(MESHES).isdisjoint(formats):
                metrics |= self._meshes(render, cameras, formats)
        return {"formats": len(formats), **metrics}

    def _around(self, camera: Orbit) -> Cameras:
        task = self.config.task
        beyond = (max(camera.low - BEYOND, -STEEPEST), min(camera.high + BEYOND, STEEPEST))
        low, high = beyond if task.elevation is None else task.elevation
        if not -90 <= low <= high <= 90:
            raise UserError(f"task.elevation={[low, high]} must be [low, high] with -90 <= low <= high <= 90")
        return spread(task.views, (low, high), camera.distance, camera.fov, task.size).to(self.device)

    def _splats(self, scene: SplatScene, formats: list[str]) -> dict[str, float]:
        sh = None if scene.sh is None else scene.sh[0]
        splats = Splats.activated(
            scene.means[0], scene.quats[0], scene.scales[0], scene.opacities[0], scene.colors[0], sh
        )
        for name in [name for name in SPLATS if name in formats]:
            self._file(f"scene.{name}", WRITERS[name](splats))
        return {"gaussians": len(splats.means)}

    def _meshes(self, render: Render, cameras: Cameras, formats: list[str]) -> dict[str, float]:
        task = self.config.task
        mesh = SceneMesh.of(
            render,
            cameras,
            **{key: task[key] for key in ("resolution", "truncation", "parts", "smooth", "faces", "texture")},
        )
        written = []
        if "mesh_ply" in formats:
            self._file("mesh.ply", write_mesh_ply(mesh.fine))
            written.append(mesh.fine)
        if "glb" in formats:
            self._file("mesh.glb", write_glb(mesh.light))
        if "obj" in formats:
            for name, content in write_obj(mesh.light, "mesh").items():
                self._file(name, content)
        if not {"glb", "obj"}.isdisjoint(formats):
            written.append(mesh.light.whole)
        return {
            "vertices": len(written[-1].vertices),
            "faces": len(written[-1].faces),
            "watertight": float(all(one.is_watertight for one in written)),
        }

    def _videos(self, scene: Scene, camera: Orbit, geometry: bool) -> None:
        task = self.config.task
        cameras = camera.turntable(task.frames, task.video_size).to(self.device)
        background = torch.tensor([list(task.background)], dtype=torch.float32, device=self.device)
        render = render_views(scene, cameras)
        films = {"rgb": composite(render, background)[0]}
        if geometry:
            films["depth"] = depth_frames(render).expand(-1, 3, -1, -1)
            films["normal"] = normal_frames(render, cameras, background)
        for name, frames in films.items():
            for suffix, write in (("mp4", write_video), ("gif", write_gif)):
                write(self.files.path("videos", f"{name}.{suffix}"), frames, task.fps)
            self.files.video(name, self.files.dir / "videos" / f"{name}.mp4")

    def _file(self, name: str, content: bytes) -> None:
        path = self.files.path("export", name)
        write_bytes(path, content)
        self.files.artifact(name, path)
        log.info("wrote %s", path)
