"""The splat kernel against its plain-torch twin: forward + backward to all five Gaussian inputs.

    OMP_WAIT_POLICY=PASSIVE python experiments/benchmarks/rasterization.py [--repeats 21] [--seed 0]
    DIFFUSION3D_KERNEL=avx2 OMP_WAIT_POLICY=PASSIVE python experiments/benchmarks/rasterization.py

Three tables: kernel and twin in turns on one thread (process CPU time, so other load matters little); one against two threads
(wall time: needs a quiet machine); kernel time against pairs of Gaussian and pixel up to 200k Gaussians at 512 x 512.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from diffusion3d.rendering import kernel_name, libraries, rasterization, reference

NAMES = ("means", "quats", "scales", "opacities", "colors")


def make_scene(count: int, size: int, seed: int) -> dict[str, Tensor | int]:
    """A ball of radius 0.8 of Gaussians of about 0.02, seen from 3 away with a field of view of 40 degrees."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    def uniform(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    viewmat = torch.eye(4)
    viewmat[2, 3] = 3.0
    focal = 0.5 * size / math.tan(math.radians(20))
    return {
        "means": 0.8 * torch.nn.functional.normalize(normal(count, 3), dim=-1) * uniform(count, 1) ** (1 / 3),
        "quats": normal(count, 4),
        "scales": 0.02 * torch.exp(0.5 * normal(count, 3)),
        "opacities": 0.05 + 0.9 * uniform(count),
        "colors": uniform(count, 3),
        "viewmats": viewmat[None],
        "Ks": torch.tensor([[[focal, 0, size / 2], [0, focal, size / 2], [0, 0, 1]]]),
        "width": size,
        "height": size,
    }


def step(scene: dict, backend: str, clock: Callable[[], float]) -> float:
    """Seconds of one forward and backward pass."""
    for name in NAMES:
        scene[name].grad = None
        scene[name].requires_grad_(True)
    gradient = torch.ones(1, scene["height"], scene["width"], 3)
    begin = clock()
    image, alpha, _ = rasterization(**scene, packed=False, backend=backend)
    torch.autograd.backward([image, alpha], [gradient, gradient[..., :1]])
    return clock() - begin


@torch.no_grad()
def count_pairs(scene: dict) -> int:
    """Pairs of Gaussian and pixel inside the ellipses, before pixels end."""
    inputs = [scene[k][None] for k in ("means", "quats", "scales", "opacities", "viewmats", "Ks")]
    size = (scene["width"], scene["height"])
    projection = reference.project(*inputs, *size, 0.3, 0.01, 1e10, 0.0, False)
    return int(reference._row_spans(projection, scene["opacities"][None], *size)[3].sum())


def against_the_twin(repeats: int, seed: int) -> None:
    torch.set_num_threads(1)
    print("| Gaussians | image | pairs | kernel, ms | twin, ms | ratio |\n|---|---|---|---|---|---|")
    for count, size in ((10_000, 128), (10_000, 256), (50_000, 256)):
        scene = make_scene(count, size, seed)
        times: dict[str, list[float]] = {"auto": [], "torch": []}
        for k in range(repeats):
            times["auto"] += [step(scene, "auto", time.process_time) for _ in range(3)]
            if k % 3 == 0:
                times["torch"].append(step(scene, "torch", time.process_time))
        fast, slow = (1e3 * statistics.median(times[name]) for name in ("auto", "torch"))
        pairs = count_pairs(scene) / 1e6
        print(f"| {count:,} | {size}² | {pairs:.2f} M | {fast:.1f} | {slow:.0f} | {slow / fast:.0f} |", flush=True)


def with_a_second_thread(repeats: int, seed: int) -> None:
    print("\n| Gaussians | image | one thread, ms | two threads, ms | speed-up |\n|---|---|---|---|---|")
    for count, size in ((10_000, 128), (10_000, 256), (10_000, 512), (50_000, 256)):
        scene = make_scene(count, size, seed)
        times: dict[int, list[float]] = {1: [], 2: []}
        for k in range(4 * repeats):
            torch.set_num_threads(1 + k % 2)
            times[1 + k % 2].append(step(scene, "auto", time.perf_counter))
        one, two = (1e3 * statistics.median(times[n]) for n in (1, 2))
        print(f"| {count:,} | {size}² | {one:.1f} | {two:.1f} | {one / two:.2f} |", flush=True)
    torch.set_num_threads(1)


def against_pairs(repeats: int, seed: int) -> None:
    print("\n| Gaussians at 512² | pairs | kernel, ms | ns per pair |\n|---|---|---|---|")
    for count in (25_000, 50_000, 100_000, 200_000):
        scene = make_scene(count, 512, seed)
        pairs = count_pairs(scene)
        seconds = statistics.median(step(scene, "auto", time.process_time) for _ in range(max(3, repeats // 3)))
        print(f"| {count:,} | {pairs / 1e6:.1f} M | {1e3 * seconds:.0f} | {1e9 * seconds / pairs:.2f} |", flush=True)


def machine() -> str:
    flags = libraries._cpu_flags()
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "")
    best = next(isa for isa, needed in libraries.ISAS.items() if needed <= flags)
    return f"{model.partition(': ')[2]}, {os.cpu_count()} cores, best instruction set {best}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    load = os.getloadavg()[0]
    print(f"{kernel_name()}; {machine()}; torch {torch.__version__}; load average at the start {load:.1f}\n")
    for part in (against_the_twin, with_a_second_thread, against_pairs):
        part(options.repeats, options.seed)


if __name__ == "__main__":
    main()
