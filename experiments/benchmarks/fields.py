"""Fields on one CPU thread: a NeRF with and without empty space, and the hash-grid encoder against its plain-torch twin.

    OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE python experiments/benchmarks/fields.py [--steps 300] [--repeats 5] [--seed 0]

The NeRF: representation=nerf as it ships, fitted to 50 views of a toybox castle at 128 x 128; then forward, backward and Adam
on 4096 rays, with the occupancy grid and without, in turns, and the PSNR of 10 held-out views rendered either way. --train fits
once more without the grid and compares what both learned.
The encoder: 4096 rays x 64 samples through a cube, 16 levels of 2 features from 16 to 2048 cells, tables of 2^19 entries;
forward and backward to the table, in turns. All times are CPU time of the process.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import diffusion3d
from diffusion3d.config import load_config
from diffusion3d.data.base import Splits
from diffusion3d.guidance.base import Step
from diffusion3d.rendering import kernel_name
from diffusion3d.rendering.hash_grid import HashLevels, hash_grid, hash_grid_torch
from diffusion3d.representations.field import Fields
from diffusion3d.tasks.build import build
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.facts import versions
from diffusion3d.tasks.fit import judge, look, whole
from diffusion3d.tasks.scene_optimizer import SceneOptimizer

RAYS, SAMPLES = 4096, 64
FIT = ["task=fit", "representation=nerf", "data=toybox_scenes", "data.subject=castle", "logger=none"]
SMALL = ["data.train_views=50", "data.test_views=10", "task.video_size=16", "camera.turntable_frames=2"]


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
    print(f"{title}: {names} | ratio {slow / fast:.2f}", flush=True)


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


def fitted(steps: int, seed: int, *typed: str) -> tuple[Any, dict[str, Any], dict[str, float]]:
    """Config, state of the last checkpoint and figures of a fit."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "run"
        begin = time.process_time()
        metrics = diffusion3d.run(
            [*FIT, *SMALL, *typed, f"task.steps={steps}", f"seed={seed}", f"hydra.run.dir={path}"]
        )
        config, found = load_config(path), load_checkpoint(path / "checkpoints")
    assert found is not None
    return config, found[1]["task"], {**metrics, "cpu": time.process_time() - begin}


def step(steps: int, repeats: int, seed: int, train: bool) -> None:
    config, state, figures = fitted(steps, seed)
    found = {"skipping": figures}
    if train:
        found["dense"] = fitted(steps, seed, "representation.occupancy=null")[2]
    for name, each in found.items():
        print(
            f"{steps} steps {name}: held-out PSNR {each['test/psnr']:.2f} dB, {each['cpu']:.0f} CPU s in all",
            flush=True,
        )
    torch.set_num_threads(1)
    data: Splits = build(config.data)
    assert data.test is not None
    seen, held, white = whole(data.train, 1), whole(data.test, 1), torch.ones(1, 3)
    cameras = seen.select(views=torch.arange(0, 48, 3)).cameras
    pixels = torch.randint(128 * 128, (1, 16, RAYS // 16), generator=torch.Generator().manual_seed(seed))
    optimizers, scores = {}, {}
    for name in ("dense", "skipping"):
        representation: Fields = build(config.representation)
        if name == "skipping":
            representation.load_state(state["density"])
            assert representation.occupancy is not None and representation.occupancy.cells is not None
            print(f"occupied: {100 * representation.occupancy.cells.float().mean():.1f} % of the cells", flush=True)
        optimizers[name] = SceneOptimizer(representation, state["raw"], 1e-6)
        with torch.no_grad():
            scores[name] = judge(look(optimizers[name].scene(), held.cameras, white), held)["test/psnr"]
    print("held-out PSNR of one NeRF: " + ", ".join(f"{name} {score:.3f} dB" for name, score in scores.items()))

    def once(optimizer: SceneOptimizer) -> None:
        render = optimizer.scene().render(cameras, pixels)
        (render.rgb.square().mean() + render.alpha.square().mean()).backward()
        optimizer.step(Step(1, 100), render)

    report(
        f"NeRF step on {RAYS} rays",
        turns({name: lambda optimizer=optimizer: once(optimizer) for name, optimizer in optimizers.items()}, repeats),
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=300, help="of the fit")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--train", action="store_true", help="fit without the grid, too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{kernel_name()}; {versions()}", flush=True)
    encoder(options.repeats, options.seed)
    step(options.steps, options.repeats, options.seed, options.train)
