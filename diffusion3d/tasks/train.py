"""Train an objective's module: AdamW, EMA, validation, sample grids, weights to ship."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from omegaconf import OmegaConf
from torch import Tensor, nn

from diffusion3d import processes
from diffusion3d.data.base import BatchShape, PosedData, Splits, draw_batch
from diffusion3d.errors import UserError
from diffusion3d.export.pictures import write_grid
from diffusion3d.objectives.base import Objective, Share
from diffusion3d.tasks.base import Task
from diffusion3d.tasks.build import build
from diffusion3d.tasks.loop import loop
from diffusion3d.views import PosedViews

log = logging.getLogger(__name__)


def learning_rate(step: int, steps: int, peak: float, warmup: int, decay: float) -> float:
    """Linear warm-up over `warmup` steps, constant, then linear to zero over the last `decay` share of `steps`."""
    left = (steps - step) / max(1.0, decay * steps)
    return peak * min(1.0, (step + 1) / max(1, warmup), left)


def batch_shapes(batches: Sequence[Any]) -> list[BatchShape]:
    """The kinds of batches that `task.batches` lists.

    Raises:
        UserError: one lacks scenes or views or has other keys, or no share is above 0.
    """
    try:
        shapes = [BatchShape(**{str(key): value for key, value in batch.items()}) for batch in batches]
    except TypeError:
        shapes = []
    if not sum(shape.share for shape in shapes) > 0:
        raise UserError(
            f"task.batches={list(batches)}: each is {{scenes: 8, views: 4, share: 0.5}}, where share may be left out, and one "
            "share must be above 0"
        )
    return shapes


class OwnScenes:
    """`PosedData` whose batches are this process's share of them.

    Args:
        data: all of it; draws for one scene after the other.

    Attributes:
        share: of the last batch.
    """

    share: Share

    def __init__(self, data: PosedData) -> None:
        self.data, self.views, self.vocabulary = data, data.views, data.vocabulary

    def __len__(self) -> int:
        return len(self.data)

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        self.share = share = Share.of(len(indices), processes.rank(), processes.count())
        if share.first:  # no views of the scenes before: their captions are drawn, and no picture is read
            self.data.batch(indices[: share.first], views[: share.first, :0], rng)
        return self.data.batch(indices[share.first : share.last], views[share.first : share.last], rng)


class Train(Task):
    """Optimises `objective` over `data`; step `n` sees the same batch in every run with the same seed, in however many
    processes."""

    several_processes = True

    def run(self) -> dict[str, float]:
        config, task = self.config, self.config.task
        if "fp16" in {config.prior.get(key) for key in ("precision", "vae_precision")}:
            raise UserError("precision=fp16 is for priors that do not learn: train with bf16 or fp32")
        shapes = batch_shapes(task.batches)
        data: Splits = build(config.data)
        for name, split in (("train", data.train), ("validation", data.validation)):
            if split is None or len(split) == 0:
                raise UserError(f"data.{name} holds no scenes; render or add some first")
        prior = self.prior().to(self.device)
        if prior.untrained:
            log.info(
                "%d parameters are new, prior.weights lacks them: %s", len(prior.untrained), ", ".join(prior.untrained)
            )
        objective: Objective = build(config.objective, prior=prior).to(self.device)
        data = self._prepared(data, objective)
        learner = objective.trained()
        average = copy.deepcopy(learner).eval().requires_grad_(False)
        parameters = list(learner.parameters())
        optimizer = torch.optim.AdamW(
            parameters, lr=task.lr, betas=tuple(task.betas), weight_decay=task.weight_decay, fused=True
        )
        held = [
            self._validation_batch(data, number, prior.image_size)
            for number in range(task.validation_batches if processes.rank() == 0 else 0)
        ]
        prompts = list(task.preview_prompts)
        scores: dict[str, float] = {}

        def losses(step: int) -> dict[str, Tensor]:
            rng = np.random.default_rng((config.seed, step))
            own = OwnScenes(data.train)
            batch = draw_batch(own, shapes, task.even_views, rng).resize(prior.image_size)
            terms = objective.loss(batch.to(self.device), own.share)
            return {name: 0 * term for name, term in terms.items()} if own.share.spare else terms

        def update(step: int) -> dict[str, float]:
            processes.total_gradients(parameters)
            rate = learning_rate(step, task.steps, task.lr, task.warmup, task.decay)
            for group in optimizer.param_groups:
                group["lr"] = rate
            norm = torch.nn.utils.clip_grad_norm_(parameters, task.clip)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            keep = min(task.ema, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_([*average.parameters()], [*parameters], 1 - keep)
            return {"lr": rate, "grad_norm": float(norm)}

        def preview(done: int) -> None:
            with swapped(learner, average):
                learner.eval()
                scores.update(objective.validate(held))
                self.files.log(done - 1, scores)
                log.info("step %d  %s", done, "  ".join(f"{k.split('/')[-1]} {v:.5f}" for k, v in scores.items()))
                rows = objective.preview(prompts, held)
                if rows:
                    path = self.files.path("previews", f"step_{done:07d}.png")
                    write_grid(path, [row.cpu() for row in rows.values()], labels=list(rows))
                    self.files.image(done, "samples", path)
                objective.export(self.files.path("export", ""), self._facts(data, done, scores))
                learner.train()

        def load(state: dict[str, Any]) -> None:
            if state["scenes"] != len(data.train):
                log.warning(
                    "the training data had %d scenes and has %d now: batches differ from here on, and the run is not "
                    "bit-identical to an undisturbed one",
                    state["scenes"],
                    len(data.train),
                )
            scores.update(state["scores"])
            learner.load_state_dict(state["learner"])
            average.load_state_dict(state["average"])
            optimizer.load_state_dict(state["optimizer"])
            for (
                parameter,
                kept,
            ) in optimizer.state.items():  # the fused step takes it for granted that both lie alike in memory
                for name in ("exp_avg", "exp_avg_sq"):
                    kept[name] = torch.empty_like(parameter).copy_(kept[name])

        loop(
            self.files,
            losses,
            update,
            steps=task.steps,
            minutes=task.minutes,
            state=lambda: {
                "learner": learner.state_dict(),
                "average": average.state_dict(),
                "optimizer": optimizer.state_dict(),
                "scores": dict(scores),
                "scenes": len(data.train),
            },
            load_state=load,
            checkpoint_every=task.checkpoint_every,
            preview=preview,
            preview_every=task.preview_every,
        )
        exported = self.files.dir / "export"
        for path in sorted(exported.rglob("*.safetensors")):
            self.files.artifact("-".join(path.relative_to(exported).with_suffix("").parts), path)
        return scores

    def _prepared(self, data: Splits, objective: Objective) -> Splits:
        assert data.validation is not None
        return replace(data, train=objective.prepare(data.train), validation=objective.prepare(data.validation))

    def _validation_batch(self, data: Splits, number: int, size: int) -> PosedViews:
        rng = np.random.default_rng((1, number))
        shape = BatchShape(scenes=8, views=4)
        assert data.validation is not None
        return draw_batch(data.validation, [shape], even=1.0, rng=rng).resize(size).to(self.device)

    def _facts(self, data: Splits, done: int, scores: dict[str, float]) -> dict[str, Any]:
        prior: Any = OmegaConf.to_container(self.config.prior, resolve=True)
        return {
            "vocabulary": list(data.train.vocabulary),
            "steps": done,
            **{key: prior[key] for key in ("image_size", "num_timesteps", "network") if key in prior},
            "scenes": len(data.train),
            "scores": {name: round(value, 6) for name, value in scores.items()},
        }


@contextmanager
def swapped(module: nn.Module, other: nn.Module) -> Iterator[None]:
    """Within this context a module computes with another one's parameters."""

    def swap() -> None:
        for mine, theirs in zip(module.parameters(), other.parameters(), strict=True):
            mine.data, theirs.data = theirs.data, mine.data

    swap()
    try:
        yield
    finally:
        swap()
