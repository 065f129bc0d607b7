"""Fields on one CPU thread: the hash-grid encoder against its plain-torch twin, and a NeRF step with and without empty space.

    OMP_WAIT_POLICY=PASSIVE python experiments/benchmarks/fields.py [--repeats 7] [--seed 0]

The encoder: 4096 rays x 64 samples through a cube, 16 levels of 2 features from 16 to 2048 cells, tables of 2^19 entries;
forward and backward to the table, process CPU time, in turns. The step: representation=nerf as it ships, fitted for 150 steps
to a toybox castle; then forward, backward and Adam on 4096 rays, with the occupancy grid and without, in turns.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion3d
from diffusion3d.camera_sampling import Orbit
from diffusion3d.config import load_config
from diffusion3d.guidance.base import Step
from diffusion3d.rendering import kernel_name
from diffusion3d.rendering.hash_grid import HashLevels, hash_grid, hash_grid_torch
from diffusion3d.tasks.build import build
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.facts import versions
from diffusion3d.tasks.scene_optimizer import SceneOptimizer

RAYS, SAMPLES, FIT_STEPS = 4096, 64, 150


def turns(functions: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Median process CPU seconds of each, measured in turns."""
    spent: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats + 1):
        for name, function in functions.items():
            begin = time.process_time()
            function()
            spent[name].append(time.process_time() - begin)
    return {name: statistics.median(values[1:]) for name, values in spent.items()}


def report(title: str, seconds: dict[str, float]) -> None:
    slow, fast = seconds.values()
    names = " | ".join(f"{name} {1000 * value:.1f} ms" for name, value in seconds.items())
    print(f"{title}: {names} | ratio {slow / fast:.2f}")


def encoder(repeats: int, seed: int) -> None:
    levels = HashLevels.geometric(16, 16, 2048, 19)
    generator = torch.Generator().manual_seed(seed)
    start = F.normalize(torch.randn(RAYS // 64, 1, 3, generator=generator), dim=-1).repeat_interleave(64, 0)
    start = start + 0.02 * torch.randn(RAYS, 1, 3, generator=generator)
    end = -start + 0.3 * torch.randn(RAYS, 1, 3, generator=generator)
    along = torch.linspace(0, 1, SAMPLES)[None, :, None]
    points = (0.5 + 0.5 * (start + along * (end - start))).reshape(-1, 3).clamp(0, 1)
    table = (2 * torch.rand(sum(levels.entries), 2, generator=generator) - 1).requires_grad_()
    weights = torch.randn(len(points), 32, generator=generator)

    def run(function: Callable[[Tensor, Tensor, HashLevels], Tensor]) -> Callable[[], object]:
        return lambda: torch.autograd.grad((function(points, table, levels) * weights).sum(), table)

    report(
        "hash grid, forward + backward", turns({"torch": run(hash_grid_torch), kernel_name(): run(hash_grid)}, repeats)
    )


def step(repeats: int, seed: int) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        typed = ["task=fit", "representation=nerf", "data=toybox_scenes", "data.subject=castle", "logger=none"]
        diffusion3d.run(
            [*typed, "task.video_size=16", f"task.steps={FIT_STEPS}", f"seed={seed}", f"hydra.run.dir={path}"]
        )
        config, found = load_config(path), load_checkpoint(path / "checkpoints")
    torch.set_num_threads(1)
    assert found is not None
    state = found[1]["task"]
    camera = Orbit(128, views=16, elevation=(-30, 75)).sample()
    pixels = torch.randint(128 * 128, (1, 16, RAYS // 16), generator=torch.Generator().manual_seed(seed))
    optimizers = {}
    for name in ("dense", "skipping"):
        representation = build(config.representation)
        optimizer = SceneOptimizer(representation, state["raw"], 1e-6)
        if name == "skipping":
            representation.load_state(state["density"])
        optimizers[name] = optimizer

    def once(optimizer: SceneOptimizer) -> None:
        render = optimizer.scene().render(camera, pixels)
        (render.rgb.square().mean() + render.alpha.square().mean()).backward()
        optimizer.step(Step(1, 100), render)

    report(
        f"NeRF step on {RAYS} rays",
        turns({name: lambda optimizer=optimizer: once(optimizer) for name, optimizer in optimizers.items()}, repeats),
    )
    with torch.no_grad():
        images = {name: optimizer.scene().render(camera).rgb for name, optimizer in optimizers.items()}
    print(f"largest difference of the pictures: {(images['dense'] - images['skipping']).abs().max():.4f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    print(f"{kernel_name()}; {versions()}")
    step(options.repeats, options.seed)
    encoder(options.repeats, options.seed)
