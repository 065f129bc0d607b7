"""What a step of each guidance scheme costs beyond the calls of the prior and of the renderer.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python experiments/benchmarks/guidance.py [--only sds,vsd] [--steps 30]

Every scheme that distils, as it ships, with the shipped prior and splats: four views of 64 pixels, at noise levels of a whole
run. A step is that of task=distill without the scene's optimiser. Its parts:

- prior: `condition`, `plain_text`, `encode`, `decode`, `predict` and `denoise`, VSD's adapters among them;
- renderer: the scene, its renders, their gradient;
- learner: what VSD's phi learns;
- rest: noising, combining what the prior says, the loss and its gradient on the render. Wanted is at most 5 % of the step.

Times are medians over the steps of the process's CPU time, which others on the machine change little.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch

from diffusion3d.config import CONF_DIR, compose, hydra_app
from diffusion3d.guidance.base import Guidance, Step
from diffusion3d.overrides import to_hydra
from diffusion3d.tasks.build import build
from diffusion3d.tasks.facts import versions, write_json

TOTAL, WARM = 400, 3
"""Steps of a run, and those that are not measured."""
PARTS = ("prior", "renderer", "learner")
ASKED = ("condition", "plain_text", "encode", "decode", "predict", "denoise")
SOURCE = {"dds", "pds"}
"""Schemes that want to know what the scene shows."""


class Clock:
    """CPU seconds by part; a timed call inside another is the other's."""

    def __init__(self) -> None:
        self.spent: Counter[str] = Counter()
        self.inside = False

    def timed(self, part: str, call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def clocked(*given: Any, **options: Any) -> Any:
            if self.inside:
                return call(*given, **options)
            self.inside, begin = True, time.process_time()
            try:
                return call(*given, **options)
            finally:
                self.inside = False
                self.spent[part] += time.process_time() - begin

        return clocked

    def wrap(self, part: str, owner: object, *names: str) -> None:
        """Time methods of an object."""
        for name in names:
            object.__setattr__(owner, name, self.timed(part, getattr(owner, name)))


def schemes() -> list[str]:
    """The choices of conf/guidance that distil."""
    with hydra_app() as app:
        names = sorted(path.stem for path in (CONF_DIR / "guidance").glob("*.yaml"))
        return [name for name in names if "weighting" in compose(app, [f"guidance={name}"]).guidance]


def measure(scheme: str, steps: int, overrides: list[str]) -> list[dict[str, float]]:
    """CPU seconds of every step, in all and by part."""
    editing = ["guidance.source_prompt=a castle"] if scheme in SOURCE else []
    with hydra_app() as app:
        config = compose(app, to_hydra([*overrides, "prompt=a castle", f"guidance={scheme}", *editing]))
    torch.manual_seed(0)
    clock = Clock()
    prior = build(config.prior).freeze(torch.device("cpu"))
    camera, backgrounds = build(config.camera), build(config.task.background)
    representation = build(config.representation)
    guidance: Guidance = build(config.guidance, prior=prior)
    raw = {name: value.requires_grad_() for name, value in representation.init(1).items()}
    source = representation.scene({name: value.detach() for name, value in raw.items()})
    guidance.prepare(source, prior.condition([config.prompt], camera.turntable(1)))
    clock.wrap("prior", prior, *ASKED)
    clock.wrap("renderer", source, "render")
    if hasattr(guidance, "learner"):
        clock.wrap("learner", guidance.learner, "learn")
    scene_of = clock.timed("renderer", representation.scene)
    backward = clock.timed("renderer", torch.autograd.backward)
    found = []
    for index in range(WARM + steps):
        clock.spent.clear()
        begin = time.process_time()
        step = Step(max(0, index - WARM) * TOTAL // steps, TOTAL)
        cameras = guidance.cameras(camera, step)
        condition = prior.condition([config.prompt], cameras, guidance.background(backgrounds, step))
        scene = scene_of(raw)
        render = clock.timed("renderer", scene.render)(cameras)
        loss = sum(guidance(scene, render, cameras, condition, step).values(), torch.zeros(()))
        images = [render.rgb, render.alpha]
        backward(images, torch.autograd.grad(loss, images))
        guidance.update(step)
        spent = {part: clock.spent[part] for part in PARTS}
        found.append({"step": time.process_time() - begin, **spent})
    return found[WARM:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="schemes, separated by commas")
    parser.add_argument("--steps", type=int, default=30, help="of each scheme")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("overrides", nargs="*", help="of the config, such as precision=fp32")
    given = parser.parse_args()
    table: dict[str, dict[str, float]] = {}
    print("| scheme | step, ms | prior | renderer | learner | rest | share |\n" + "|---" * 7 + "|", flush=True)
    for scheme in given.only or schemes():
        found = measure(scheme, given.steps, given.overrides)
        rest = [step["step"] - sum(step[part] for part in PARTS) for step in found]
        row = {name: 1000 * median(step[name] for step in found) for name in ("step", *PARTS)}
        row |= {"rest": 1000 * median(rest), "share": median(r / s["step"] for r, s in zip(rest, found, strict=True))}
        table[scheme] = row
        cells = [f"{value:.1f}" for name, value in row.items() if name != "share"]
        print(f"| {scheme} | {' | '.join(cells)} | {row['share']:.1%} |", flush=True)
        if given.out is not None:
            write_json(given.out, {"schemes": table, "steps": given.steps, "versions": versions()})


if __name__ == "__main__":
    main()
