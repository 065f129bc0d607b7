"""Gradients of the splat kernel against float64, with the kernel's own decisions, and how often float64 decides otherwise.

    python experiments/kernel/gradients.py [--scenes 240] [--seed 0]

Per scene and input ||g - g64|| / ||g64||. The kernel's pairs of Gaussian and pixel (which skip alpha < 1/255 and stop at a
transmittance of 1e-4) are read off a render with one channel per Gaussian; float64 autograd then runs on exactly those.
A pair flips if the float64 twin, deciding for itself, keeps it and the kernel does not, or the other way round.
Writes gradients.json beside this file.
"""

from __future__ import annotations

import argparse
import json
import math
import platform
from pathlib import Path

import torch
from torch import Tensor

from diffusion3d.rendering import kernel, kernel_name, rasterization, reference

INPUTS = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")
KINDS = {
    "ordinary": {},
    "saturated": {"count": 160, "scale": 0.3, "opacity": (0.9, 1.0)},
    "tiny": {"scale": 0.002},
    "huge": {"scale": 1.5, "opacity": (0.02, 0.6)},
    "behind": {"spread": 2.5},
    "empty": {"count": 0},
    "non-square": {"width": 97, "height": 17},
    "needles": {"scale": 0.08, "stretch": 1.2},
}


def make_scene(
    generator: torch.Generator,
    count: int = 100,
    scale: float = 0.06,
    stretch: float = 0.5,
    spread: float = 0.4,
    opacity: tuple[float, float] = (0.02, 1.0),
    width: int = 56,
    height: int = 48,
) -> dict[str, Tensor | int]:
    """Gaussians around the origin seen from three units away over a coloured background."""

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    rotation = torch.linalg.qr(normal(3, 3)).Q
    viewmat = torch.eye(4)
    viewmat[:3, :3] = rotation * torch.linalg.det(rotation)
    viewmat[:3, 3] = torch.tensor([0.0, 0.0, 3.0]) + 0.1 * normal(3)
    focal = 1.1 * max(width, height)
    return {
        "means": spread * normal(count, 3),
        "quats": normal(count, 4),
        "scales": scale * torch.exp(stretch * normal(count, 3)),
        "opacities": opacity[0] + (opacity[1] - opacity[0]) * torch.rand(count, generator=generator),
        "colors": torch.rand(count, 3, generator=generator),
        "viewmats": viewmat[None],
        "Ks": torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]]),
        "backgrounds": torch.rand(1, 3, generator=generator),
        "width": width,
        "height": height,
    }


def compare(scene: dict, generator: torch.Generator) -> tuple[dict[str, float], int, int]:
    """Relative errors per input, flipped pairs, pairs."""
    width, height, count = scene["width"], scene["height"], len(scene["means"])
    weights = [torch.randn(1, height, width, n, generator=generator) for n in (3, 1)]
    values = {k: v.clone().requires_grad_(k in INPUTS) if torch.is_tensor(v) else v for k, v in scene.items()}
    image, alpha, _ = rasterization(**values)
    ((image * weights[0]).sum() + (alpha * weights[1]).sum()).backward()

    names = ("means", "quats", "scales", "opacities", "viewmats", "Ks")
    options = (width, height, 0.3, 0.01, 1e10, 0.0, False)
    projection = kernel.project(*(scene[k][None] for k in names), *options)
    drawn = (projection.radii[0, :, 0] > 0).nonzero().flatten()
    drawn = drawn[projection.depths[0, drawn].sort(stable=True).indices]
    seen, _ = kernel.composite(projection, scene["opacities"][None], torch.eye(count)[None], width, height)
    pixels, ranks = (seen.flatten(0, 2)[:, drawn] > 0).nonzero(as_tuple=True)

    exact = {k: v.double().requires_grad_(k in INPUTS) if torch.is_tensor(v) else v for k, v in scene.items()}
    own = reference.project(*(exact[k].detach()[None] for k in names), *options)
    spans = reference._row_spans(own, exact["opacities"].detach()[None], width, height)
    flat = (own.means2d[0], own.ellipses[0], exact["opacities"].detach())
    own_ids, own_pixels = reference._pairs(*flat, *spans, width, height)
    ours, theirs = pixels * count + drawn[ranks], own_pixels * count + own_ids
    kept = int(torch.isin(ours, theirs).sum())
    flips = len(ours) + len(theirs) - 2 * kept

    chosen = [exact[k][drawn] for k in ("means", "quats", "scales")]
    means2d, _, ellipses, _, _ = reference._ewa(*chosen, exact["viewmats"], exact["Ks"], width, height, 0.3)
    arguments = (means2d, ellipses, exact["opacities"][drawn], exact["colors"][drawn], ranks, pixels)
    image, transmittance = reference.accumulate(*arguments, width, height, 0, height * width)
    image = image + transmittance[:, None] * exact["backgrounds"]
    loss = (image * weights[0].double().flatten(0, 2)).sum()
    (loss + ((1 - transmittance) * weights[1].double().flatten()).sum()).backward()

    errors = {}
    for name in INPUTS:
        expected = exact[name].grad
        size, error = expected.norm().item(), (values[name].grad.double() - expected).norm().item()
        errors[name] = error / size if size > 0 else (0.0 if error == 0 else math.inf)
    return errors, flips, len(theirs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--scenes", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    if kernel.library() is None:
        raise SystemExit("gradients: no kernel is built; pip install -e . builds it")
    worst = {kind: dict.fromkeys(INPUTS, 0.0) for kind in KINDS}
    values: dict[str, list[float]] = {name: [] for name in INPUTS}
    flips = dict.fromkeys(KINDS, 0)
    pairs = dict.fromkeys(KINDS, 0)
    for k in range(options.scenes):
        kind = list(KINDS)[k % len(KINDS)]
        generator = torch.Generator().manual_seed(options.seed + k)
        errors, flipped, total = compare(make_scene(generator, **KINDS[kind]), generator)
        flips[kind] += flipped
        pairs[kind] += total
        for name, error in errors.items():
            worst[kind][name] = max(worst[kind][name], error)
            values[name].append(error)
    print(f"{'worst of':12}", *(f"{name:>11}" for name in INPUTS), f"{'pairs':>9}", f"{'flips':>6}")
    for kind in KINDS:
        row = (f"{worst[kind][name]:11.1e}" for name in INPUTS)
        print(f"{kind:12}", *row, f"{pairs[kind]:9}", f"{flips[kind]:6}")
    median = {name: torch.tensor(v).median().item() for name, v in values.items()}
    print(f"{'median':12}", *(f"{median[name]:11.1e}" for name in INPUTS))
    rate = sum(flips.values()) / max(sum(pairs.values()), 1)
    over = sum(error > 1e-5 for v in values.values() for error in v)
    print(
        f"{kernel_name()}: {options.scenes} scenes, {over} of {7 * options.scenes} errors above 1e-5, flips {rate:.1e} of pairs"
    )
    result = {
        "kernel": kernel_name(),
        "torch": torch.__version__,
        "machine": platform.processor() or platform.machine(),
        "scenes": options.scenes,
        "seed": options.seed,
        "worst": worst,
        "median": median,
        "errors_above_1e-5": over,
        "pairs": sum(pairs.values()),
        "flip_rate": rate,
    }
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
