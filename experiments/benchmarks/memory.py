"""Peak memory of one 512 x 512 view of every representation as it ships.

    python experiments/benchmarks/memory.py [--only nerf,ib_planes] [--size 512]

A process each: the scene that a distillation starts from, of which nothing is known to be empty, rendered once without
gradients. Prints the peak of the process, what it held before the render, and CPU seconds of the render.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

REPRESENTATIONS = ("gsplat", "nerf", "nerf_frequency", "triplane", "voxels", "voxels_factorised", "ib_planes")


def one(name: str, size: int) -> str:
    """Render in this process."""
    import torch

    from diffusion3d.camera_sampling import Orbit
    from diffusion3d.config import compose, hydra_app
    from diffusion3d.overrides import to_hydra
    from diffusion3d.representations.base import Representation
    from diffusion3d.tasks.build import build
    from diffusion3d.tasks.facts import peak_memory, reset_peak_memory

    with hydra_app() as app:
        config = compose(app, to_hydra([f"representation={name}", "prompt=a castle"]))
    representation: Representation = build(config.representation)
    torch.manual_seed(config.seed)
    scene = representation.scene(representation.init(1))
    cameras = Orbit(size).turntable(1)
    reset_peak_memory()
    before = peak_memory()["peak_memory_mb"]
    begin = time.process_time()
    with torch.no_grad():
        shown = scene.render(cameras).alpha.amax()
    seconds = time.process_time() - begin
    assert shown > 0.1
    return f"{name}: {peak_memory()['peak_memory_mb']:.0f} MB, {before:.0f} before, {seconds:.1f} CPU s"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(REPRESENTATIONS), help="representations, separated by commas")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(one(options.only, options.size))
        sys.exit()
    for each in options.only.split(","):
        child = [sys.executable, __file__, "--child", "--only", each, "--size", str(options.size)]
        subprocess.run(child, check=True)
