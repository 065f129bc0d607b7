"""A small real task for the tests of the runner: found through hydra.searchpath, like a user's own."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion3d.tasks.loop import loop
from diffusion3d.tasks.run_dir import Run


def meet(directory: Path, number: int) -> None:
    """Return once so many jobs of a sweep are here at the same time."""
    (directory / "here").touch()
    deadline = time.monotonic() + 100
    while len([*directory.parent.glob("*/here")]) < number:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.05)


class Toy:
    def __init__(self, config: Any, run: Run) -> None:
        self.config, self.run_dir = config, run

    def run(self) -> dict[str, float]:
        task, run = self.config.task, self.run_dir
        if task.meet:
            meet(run.dir, task.meet)
        x = torch.nn.Parameter(torch.randn(8))
        optimizer = torch.optim.Adam([x], lr=0.1)

        def losses(step: int) -> dict[str, Tensor]:
            time.sleep(task.sleep)
            if step == task.stop_at:
                os.kill(os.getpid(), signal.SIGTERM)
            if task.fail is not None and step == 5:
                raise RuntimeError(task.fail)
            target = torch.randn(8) + random.random() + float(np.random.rand())
            terms = {"fit": (x - target).square().mean()}
            if step >= 25:
                terms["late"] = 0.1 * x.abs().mean()
            if step == task.nan_at:
                terms["fit"] = terms["fit"] * float("nan")
            return terms

        def update(step: int) -> dict[str, float]:
            optimizer.step()
            optimizer.zero_grad()
            if step == task.spoil_at:
                with torch.no_grad():
                    x.fill_(float("nan"))
            return {"norm": float(x.detach().norm())}

        def load(state: dict[str, Any]) -> None:
            with torch.no_grad():
                x.copy_(state["x"])
            optimizer.load_state_dict(state["optimizer"])

        def preview(done: int) -> None:
            path = run.path("previews", f"{done:06d}.txt")
            path.write_text(str(random.random()))
            if task.scores:
                run.log(done - 1, {"score": float(x.detach().square().sum())})

        loop(
            run,
            losses,
            update,
            steps=task.steps,
            minutes=task.minutes,
            state=lambda: {"x": x, "optimizer": optimizer.state_dict()},
            load_state=load,
            checkpoint_every=task.checkpoint_every,
            preview=preview,
            preview_every=15,
        )
        return {"norm": float(x.detach().norm())}
