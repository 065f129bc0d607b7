"""Fit a representation to posed images, one scene or many at once, and judge it on views it has not seen."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.data.base import PosedData, Splits
from diffusion3d.errors import UserError
from diffusion3d.export.pictures import render_views, write_grid
from diffusion3d.guidance.base import Step
from diffusion3d.metrics.images import WINDOW, psnr, ssim
from diffusion3d.metrics.st_lpips import SMALLEST, st_lpips
from diffusion3d.metrics.st_lpips import weights as lpips_weights
from diffusion3d.rendering.pixels import at
from diffusion3d.rendering.render import Render, composite
from diffusion3d.representations.base import Representation, Scene
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.build import build
from diffusion3d.tasks.loop import loop
from diffusion3d.tasks.media import write_scene
from diffusion3d.tasks.scene_optimizer import SceneOptimizer
from diffusion3d.views import PosedViews

log = logging.getLogger(__name__)

COVERED = 0.5
"""Alpha from which on a pixel counts as the object's."""
SHOWN = 6
CHUNK = 8
"""Views that are drawn and judged at once."""

Draw = Callable[[slice | Tensor], Tensor]
"""Images [B, v, 3, H, W] in [0, 1] of some of the held-out views, on white."""


class Fit(Task):
    """Minimises weighted image errors of random training views, over random backgrounds where the images have alpha."""

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        weights: Mapping[str, float] = dict(task.loss)
        if any(weight < 0 for weight in weights.values()) or not any(weights.values()):
            raise UserError(f"task.loss={weights}: weights must be >= 0, and one above")
        if task.pixels is not None and weights["dssim"]:
            raise UserError(f"task.pixels={task.pixels} picks single pixels, which have no SSIM: set task.loss.dssim=0")
        if not task.own_maps and "sources" not in config.representation.provides:
            raise UserError("task.own_maps=false is for representations with source views, such as ib_planes")
        counted = "elements" in config.representation.provides and config.representation.get("density") is not None
        if counted and task.scenes > 1:
            raise UserError(
                f"the number of splats is controlled for one scene, not for {task.scenes}: set representation.density=null"
            )
        data: Splits = build(config.data)
        if data.test is None:
            raise UserError(
                "task=fit needs data with training and test views of the same scenes, such as data=transforms"
            )
        count = task.scenes
        if count > len(data.train):
            raise UserError(f"task.scenes={count}, and the data hold {len(data.train)}: see data.scenes")
        observed, held = (whole(part, count) for part in (data.train, data.test))
        if min(held.cameras.height, held.cameras.width) < WINDOW:
            raise UserError(f"task=fit judges images of {WINDOW} x {WINDOW} pixels and more, see data.size")
        if observed.alpha is not None and config.representation.get("background") is not None:
            raise UserError("representation.background is for opaque images, and these have alpha: set it to null")
        camera: Orbit = build(config.camera)
        backgrounds: Backgrounds = build(task.background)
        representation: Representation = build(config.representation)
        raw = {
            name: value.to(self.device)
            for name, value in representation.init(count, None, observed, data.points).items()
        }
        optimizer = SceneOptimizer(representation, raw, task.lr)
        self.files.record(renderer=representation.renderer(self.device))
        log.info("rendered by %s", representation.renderer(self.device))
        views = observed.cameras.shape[1]
        of = f" of {', '.join(observed.captions)}" if observed.captions and count == 1 else ""
        log.info("%d views%s are fitted, %d others judge", views, of, held.cameras.shape[1])
        white = torch.ones(count, 3, device=self.device)
        self.render: Render | None = None
        scores: dict[str, float] = {}

        def losses(index: int) -> dict[str, Tensor]:
            chosen = observed.select(views=torch.randperm(views)[: task.views]).to(self.device)
            background = white if chosen.alpha is None else backgrounds.sample(count).to(self.device)
            pixels = None
            if task.pixels is not None:
                shape = (*chosen.cameras.shape, task.pixels)
                pixels = torch.randint(chosen.cameras.height * chosen.cameras.width, shape).to(self.device)
            sources = None if task.own_maps else representation.others(optimizer.raw, chosen.cameras)
            self.render = render = optimizer.scene().render(chosen.cameras, pixels, sources)
            truth, image = at(chosen.over(background), pixels), composite(render, background)
            terms = {
                "l1": lambda: (image - truth).abs().mean(),
                "l2": lambda: F.mse_loss(image, truth),
                "dssim": lambda: 1 - ssim(image.flatten(0, 1), truth.flatten(0, 1)).mean(),
            }
            if chosen.alpha is not None:
                alpha = at(chosen.alpha, pixels)
                terms["alpha"] = lambda: F.mse_loss(render.alpha, alpha)
            return {name: weights[name] * term() for name, term in terms.items() if weights[name]}

        def update(index: int) -> None:
            assert self.render is not None
            optimizer.step(Step(index, task.steps), self.render)

        def load(state: dict[str, Any]) -> None:
            optimizer.load_state(state)
            scores.update(state["scores"])

        def pictures() -> Draw:
            scene = optimizer.scene()
            return lambda views: look(scene, held.cameras.select(views=views).to(self.device), white).cpu()

        @torch.no_grad()
        def preview(done: int) -> None:
            draw = pictures()
            scores.update(judge_drawn(draw, held))
            self.files.log(done - 1, scores)
            log.info("step %d  %s", done, "  ".join(f"{name} {value:.4g}" for name, value in scores.items()))
            path = self.files.path("previews", f"step_{done:05d}.png")
            last = held.cameras.shape[1] - 1
            some = torch.linspace(0, last, min(SHOWN, last + 1)).long()
            write_grid(path, [draw(some)[0], held.select(views=some).over(white.cpu())[0]])
            self.files.image(done, "test_views", path)

        done = loop(
            self.files,
            losses,
            update,
            steps=task.steps,
            minutes=task.minutes,
            state=lambda: {**optimizer.state(), "scores": dict(scores)},
            load_state=load,
            checkpoint_every=task.checkpoint_every,
            preview=preview,
            preview_every=task.preview_every,
            watch=self.watch(representation, lambda: optimizer.raw, camera),
        )
        with torch.no_grad():
            scores.update(perceptual(pictures(), held))
        turntable = camera.turntable(size=task.video_size).to(self.device)
        write_scene(self.files, representation, optimizer.raw, turntable, white[:1], task.fps)
        size = sum(value.numel() for value in optimizer.raw.values())
        return {**scores, **baselines(observed, held), "steps": done, "parameters": size}


def whole(data: PosedData, count: int) -> PosedViews:
    """All views of the first `count` scenes."""
    views = np.broadcast_to(np.arange(data.views), (count, data.views))
    return data.batch(np.arange(count), views, np.random.default_rng(0))


def look(scene: Scene, cameras: Cameras, background: Float[Tensor, "B 3"]) -> Float[Tensor, "B V 3 H W"]:
    """Images of many views, in [0, 1]."""
    return composite(render_views(scene, cameras), background).clamp(0, 1)


def judge(images: Float[Tensor, "B V 3 H W"], held: PosedViews, suffix: str = "") -> dict[str, float]:
    """`judge_drawn` of images that are there."""
    return judge_drawn(lambda views: images[:, views], held, suffix)


def judge_drawn(draw: Draw, held: PosedViews, suffix: str = "") -> dict[str, float]:
    """Mean PSNR, that of the object's pixels alone, and SSIM of all held-out views, on white; the PSNR of the worst scene."""
    found: dict[str, list[Tensor]] = defaultdict(list)
    for mine, truth, alpha in _compared(draw, held):
        found["psnr"].append(psnr(mine, truth))
        found["ssim"].append(ssim(mine, truth))
        if alpha is not None:
            found["psnr_masked"].append(psnr(mine, truth, alpha > COVERED))
    values = {name: torch.stack(rows, 1) for name, rows in found.items()}
    scores = {name: float(value.nanmean()) for name, value in values.items() if not bool(value.isnan().all())}
    if len(values["psnr"]) > 1:
        scores["psnr_worst"] = float(values["psnr"].mean(1).min())
    return {f"test/{name}{suffix}": score for name, score in scores.items()}


def perceptual(draw: Draw, held: PosedViews) -> dict[str, float]:
    """Mean ST-LPIPS over all held-out views, on white; nothing where its weights are not installed or the images too small."""
    if min(held.cameras.height, held.cameras.width) < SMALLEST or lpips_weights() is None:
        return {}
    distances = []
    for mine, truth, _ in _compared(draw, held):
        distance = st_lpips(mine, truth)
        assert distance is not None
        distances.append(distance)
    return {"test/st_lpips": float(torch.stack(distances).mean())}


def _compared(draw: Draw, held: PosedViews) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """What is drawn of every held-out view [B, 3, H, W], what is true, both on white, and its alpha; drawn a few at a time."""
    white = torch.ones(held.cameras.shape[0], 3)
    for start in range(0, held.cameras.shape[1], CHUNK):
        views = slice(start, start + CHUNK)
        images, truth = draw(views), held.select(views=views)
        for view, (mine, wanted) in enumerate(zip(images.unbind(1), truth.over(white).unbind(1), strict=True)):
            yield mine, wanted, None if truth.alpha is None else truth.alpha[:, view]


def baselines(observed: PosedViews, held: PosedViews) -> dict[str, float]:
    """The scores of two guesses: the mean of a scene's training views, and the training view whose camera is nearest."""
    known = observed.over(torch.ones(observed.cameras.shape[0], 3))
    mean = known.mean(1, keepdim=True).expand(-1, held.cameras.shape[1], -1, -1, -1)
    nearest = torch.cdist(held.cameras.origins, observed.cameras.origins).argmin(-1)
    scenes = torch.arange(len(known))[:, None]
    return {
        **judge(mean, held, "_mean_image"),
        **judge_drawn(lambda views: known[scenes, nearest[:, views]], held, "_nearest_view"),
    }
