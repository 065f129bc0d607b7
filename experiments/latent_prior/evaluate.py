"""What the small Stable Diffusion knows: decoded PSNR, and whether its pictures show what was asked for.

    python experiments/latent_prior/evaluate.py FOLDER [--samples 20] [--data data/toybox/validation]

Pictures are drawn by plain diffusers.StableDiffusionPipeline from the folder, DDIM, STEPS steps, guidance SCALE. Recogniser A
of experiments/text_to_3d judges them, and as many renders of toybox objects with the same captions: what it makes of those is
the ceiling.

- subject: the share of pictures that are called the prompt's subject, of 12 subjects, with the prompts and colours of the
  text-to-3D study; colour: the share whose named colour is read off the picture.
- side: the share of pictures of asymmetric subjects asked for as "…, front view" and "…, back view" whose azimuth is read
  within 90 degrees of that side.
- psnr: of decoded views of the validation data before white, dB; psnr_object: of the pixels of the object alone.

Pictures are kept in the state directory by the weights, so the script may be stopped and run again. results/evaluate.json
keeps the figures, TABLE.md shows them, pictures/ has a sheet of samples.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from diffusion3d.data.toybox.cache import ToyboxCache
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.data.toybox.subjects import ASYMMETRIC
from diffusion3d.export.pictures import write_grid
from diffusion3d.metrics.images import psnr
from diffusion3d.tasks.facts import versions, write_json

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "text_to_3d"))
STEPS, SCALE = 50, 5.0
SIDES = {"front view": 0.0, "back view": 180.0}
BATCH = 10
VIEWS = 4
"""Of every toybox object that the ceiling is taken from."""


def identity(folder: Path) -> str:
    """Ten hex digits that differ with the pipeline and with how it is asked."""
    digest = hashlib.sha256(f"{STEPS} {SCALE}".encode())
    for path in sorted(folder.glob("*/*")):
        if path.suffix in (".safetensors", ".json", ".txt"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:10]


def loaded(folder: Path) -> Any:
    from diffusers import StableDiffusionPipeline

    made = StableDiffusionPipeline.from_pretrained(folder)
    made.set_progress_bar_config(disable=True)
    return made


def drawn(pipeline: Any, prompt: str, count: int, seed: int) -> Tensor:
    """Pictures [N, 3, H, W] in [0, 1]."""
    parts = []
    for first in range(0, count, BATCH):
        generators = [
            torch.Generator().manual_seed(seed * 100_000 + i) for i in range(first, min(first + BATCH, count))
        ]
        asked = {"num_images_per_prompt": len(generators), "generator": generators, "output_type": "pt"}
        parts.append(pipeline(prompt, num_inference_steps=STEPS, guidance_scale=SCALE, **asked).images)
    return torch.cat(parts).float()


def subjects(judge: Any, draw: Callable[[str, str, int], Tensor], samples: int, state: Path) -> dict[str, Any]:
    """Right subjects and colours of samples, and of toybox objects with the same captions."""
    from common import TWELVE
    from evaluate_prior import CAPTIONS, items
    from networks import COLOUR_NAMES, NAMES
    from pictures import slots

    found: dict[str, Any] = {}
    for subject in TWELVE:
        todo = items([subject], samples // VIEWS, 0, 0)
        asked = {item.prompt: item for item in todo[:CAPTIONS]}
        each = samples // len(asked)
        real = torch.cat([item.reference(state) for item in todo])
        owners = {"samples": [], "ceiling": [item for item in todo for _ in range(VIEWS)]}
        pictures = []
        for item in asked.values():
            pictures.append(draw("subjects", item.prompt, each))
            owners["samples"] += [item] * each
        found[subject] = {}
        for name, shown in (("samples", torch.cat(pictures)), ("ceiling", real)):
            reading, slot = judge.read(shown), slots(subject).index(todo[0].part)
            want = torch.tensor([COLOUR_NAMES.index(item.colours[item.part]) for item in owners[name]])
            found[subject][name] = {
                "subject": float((reading.subject.argmax(1) == NAMES.index(subject)).float().mean()),
                "colour": float((reading.colour[:, slot].argmax(1) == want).float().mean()),
                "pictures": len(shown),
            }
        print(subject, found[subject], flush=True)
    return found


def sides(judge: Any, draw: Callable[[str, str, int], Tensor], samples: int) -> dict[str, float]:
    from common import TWELVE

    found = {}
    for words, azimuth in SIDES.items():
        shares = []
        for subject in TWELVE:
            if subject in ASYMMETRIC:
                away = judge.read(draw("sides", f"{with_article(subject)}, {words}", samples)).azimuth - azimuth
                shares.append(float((torch.deg2rad(away).cos() > 0).float().mean()))
        found[words] = sum(shares) / len(shares)
    return found


@torch.no_grad()
def decoded(pipeline: Any, data: Path, scenes: int) -> dict[str, float]:
    cache = ToyboxCache(data)
    whole, inside = [], []
    for number in range(min(scenes, len(cache))):
        views = cache.batch([number], range(cache.views), np.random.default_rng(0)).resize(
            pipeline.vae.config.sample_size
        )
        images = views.over(torch.ones(1, 3))[0]
        assert views.alpha is not None
        back = (pipeline.vae.decode(pipeline.vae.encode(images * 2 - 1).latent_dist.mode()).sample + 1) / 2
        whole.append(psnr(back.clamp(0, 1), images))
        inside.append(psnr(back.clamp(0, 1), images, views.alpha[0] > 0))
    return {
        "psnr": float(torch.cat(whole).mean()),
        "psnr_object": float(torch.cat(inside).nanmean()),
        "views": sum(map(len, whole)),
    }


def table(result: dict[str, Any]) -> str:
    """TABLE.md of a result."""

    def mean(kind: str, figure: str) -> float:
        return sum(row[kind][figure] for row in result["subjects"].values()) / len(result["subjects"])

    rows = [
        "# A small Stable Diffusion of toybox",
        "",
        f"{result['megabytes']:.1f} MB; decoded PSNR {result['decoded']['psnr']:.1f} dB, of the object's pixels alone "
        f"{result['decoded']['psnr_object']:.1f} dB ({result['decoded']['views']} views of the validation data).",
        "",
        "| subject | pictures | right subject | ceiling | colour | ceiling |",
        "|---|---|---|---|---|---|",
    ]
    for subject, row in result["subjects"].items():
        shares = [row[kind][figure] for figure in ("subject", "colour") for kind in ("samples", "ceiling")]
        rows.append(f"| {subject} | {row['samples']['pictures']} | " + " | ".join(f"{s:.1%}" for s in shares) + " |")
    shares = [mean(kind, figure) for figure in ("subject", "colour") for kind in ("samples", "ceiling")]
    rows.append("| **mean** | | " + " | ".join(f"{s:.1%}" for s in shares) + " |")
    asked = ", ".join(f'{share:.1%} of those asked for as "…, {words}"' for words, share in result["sides"].items())
    return "\n".join([*rows, "", f"Right side, of asymmetric subjects: {asked}.", "", f"`{result['command']}`", ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="the pipeline")
    parser.add_argument("--samples", type=int, default=20, help="of every subject, and of every subject and side")
    parser.add_argument("--data", type=Path, default=Path("data/toybox/validation"))
    parser.add_argument("--scenes", type=int, default=100, help="of the data, to decode")
    parser.add_argument("--state", type=Path, default=Path("outputs/latent_prior"))
    parser.add_argument("--results", type=Path, default=HERE)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    if given.samples < 4 * VIEWS or given.samples % VIEWS:
        parser.error(f"--samples {given.samples} must be a multiple of {VIEWS}, at least {4 * VIEWS}")
    torch.set_num_threads(given.threads)
    from common import TWELVE, cached
    from recogniser import load

    judge, pipeline, key = load(given.state, "a"), loaded(given.folder), identity(given.folder)

    def draw(group: str, prompt: str, count: int) -> Tensor:
        name = hashlib.sha256(prompt.encode()).hexdigest()[:12]
        seed = int(name[:4], 16)
        path = given.state / key / group / f"{name}_{count}.npy"
        return cached(path, lambda: drawn(pipeline, prompt, count, seed))

    with torch.no_grad():
        result = {
            "subjects": subjects(judge, draw, given.samples, given.state),
            "sides": sides(judge, draw, given.samples),
            "decoded": decoded(pipeline, given.data, given.scenes),
            "megabytes": sum(p.stat().st_size for p in given.folder.rglob("*") if p.is_file()) / 1e6,
            "sampler": {"steps": STEPS, "scale": SCALE},
            "key": key,
            "versions": versions(),
            "command": f"python experiments/latent_prior/evaluate.py FOLDER --samples {given.samples} --scenes {given.scenes}",
        }
        rows = [draw("sheet", with_article(subject), 8) for subject in TWELVE]
    training = given.folder / "training.json"
    if training.is_file():
        result["training"] = json.loads(training.read_text(encoding="utf-8"))
    (given.results / "results").mkdir(parents=True, exist_ok=True)
    (given.results / "pictures").mkdir(exist_ok=True)
    write_json(given.results / "results" / "evaluate.json", result)
    write_grid(given.results / "pictures" / "samples.png", rows, [with_article(subject) for subject in TWELVE])
    (given.results / "TABLE.md").write_text(table(result), encoding="utf-8")
    print(table(result))


if __name__ == "__main__":
    main()
