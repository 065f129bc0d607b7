"""Train a judge of pictures on toybox renders that no prior sees: another seed range, other lighting.

    python experiments/text_to_3d/recogniser.py a        # the judge that is used while working
    python experiments/text_to_3d/recogniser.py b        # another architecture, for the final table only

Stops and resumes at any time; weights go to the state directory, what it reaches on renders held apart to results/.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from common import RESULTS, STATE, machine, toybox_folder, write_result
from networks import NONE, TRUNKS, Recogniser
from pictures import TEST_FROM, Renders, nothing, over_white, renders, to_float, vary
from safetensors.torch import load_file, save_file
from torch import Tensor

from diffusion3d.data.toybox.subjects import ASYMMETRIC, SUBJECTS
from diffusion3d.metrics.azimuth import median_and_flipped
from diffusion3d.tasks.checkpoint import load_checkpoint, save_checkpoint

HERE = Path(__file__).parent
BATCH, NOTHING = 96, 28
"""Renders and pictures of nothing in a batch."""
RATE, SAVE_EVERY = 3e-3, 200
IS_ASYMMETRIC = torch.tensor([subject.name in ASYMMETRIC for subject in SUBJECTS])


def load(state: Path, kind: str) -> Recogniser:
    """A trained recogniser, from the state directory or the one that is kept here.

    Raises:
        SystemExit: there is none yet.
    """
    name = f"recogniser_{kind}.safetensors"
    path = next((p for p in (state / name, HERE / name) if p.exists()), None)
    if path is None:
        raise SystemExit(f"there is no {name}: run python experiments/text_to_3d/recogniser.py {kind} --state {state}")
    network = Recogniser(kind)
    network.load_state_dict(load_file(path))
    return network.to(memory_format=torch.channels_last).eval()


def losses(network: Recogniser, data: Renders, rng: np.random.Generator) -> dict[str, Tensor]:
    """Of one random batch."""
    count, views = data.azimuth.shape
    objects, chosen = rng.integers(count, size=BATCH + NOTHING), rng.integers(views, size=BATCH + NOTHING)
    rgba = to_float(data.rgba[objects, chosen])
    x = torch.cat([vary(rgba[:BATCH]), nothing(rgba[BATCH:])]).contiguous(memory_format=torch.channels_last)
    objects, chosen = objects[:BATCH], chosen[:BATCH]
    subject = torch.from_numpy(data.subject[objects])
    reading = network(x)
    labels = torch.cat([subject, torch.full((NOTHING,), NONE)])
    colours = torch.from_numpy(data.colours[objects])
    azimuth = torch.deg2rad(torch.from_numpy(data.azimuth[objects, chosen]))
    direction = torch.stack([azimuth.cos(), azimuth.sin()], 1)
    off = (reading.direction[:BATCH] - direction).square().sum(1) * IS_ASYMMETRIC[subject]
    return {
        "subject": F.cross_entropy(reading.subject, labels, label_smoothing=0.03),
        "colour": F.cross_entropy(reading.colour[:BATCH].flatten(0, 1), colours.flatten(), ignore_index=-1),
        "azimuth": 2 * off.mean(),
    }


def train(network: Recogniser, data: Renders, steps: int, folder: Path) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.02)
    found = load_checkpoint(folder)
    start = 0
    if found is not None:
        start = found[0]
        network.load_state_dict(found[1]["network"])
        optimizer.load_state_dict(found[1]["optimizer"])
    begin = time.monotonic()
    for step in range(start, steps):
        rng = np.random.default_rng((step, 5))
        torch.manual_seed(step)
        for group in optimizer.param_groups:
            group["lr"] = RATE * min(1, (step + 1) / 100) * 0.5 * (1 + math.cos(math.pi * step / steps))
        network.train()
        terms = losses(network, data, rng)
        optimizer.zero_grad()
        torch.stack(list(terms.values())).sum().backward()
        optimizer.step()
        if (step + 1) % 50 == 0:
            left = (time.monotonic() - begin) / (step + 1 - start) * (steps - step - 1)
            print(
                step + 1, {k: round(float(v.detach()), 3) for k, v in terms.items()}, f"{left:.0f} s left", flush=True
            )
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == steps:
            save_checkpoint(folder, step + 1, {"network": network.state_dict(), "optimizer": optimizer.state_dict()})


def test(network: Recogniser, data: Renders) -> dict[str, float]:
    """What it reaches on renders: per view; colours per object, averaged over its views."""
    objects, views = data.azimuth.shape
    reading = network.read(over_white(data.rgba).flatten(0, 1))
    subject = torch.from_numpy(data.subject).repeat_interleave(views)
    said = reading.subject.argmax(1)
    colours = torch.from_numpy(data.colours)
    read_colours = reading.colour.log_softmax(-1).unflatten(0, (objects, views)).mean(1).argmax(-1)
    asymmetric = IS_ASYMMETRIC[subject]
    median, flipped = median_and_flipped(
        reading.azimuth[asymmetric], torch.from_numpy(data.azimuth).flatten()[asymmetric]
    )
    return {
        "subject": float((said == subject).float().mean()),
        "worst_subject": min(float((said == subject)[subject == s].float().mean()) for s in range(NONE)),
        "called_none": float((said == NONE).float().mean()),
        "colour_first": float((read_colours == colours)[colours[:, 0] >= 0, 0].float().mean()),
        "colour_second": float((read_colours == colours)[colours[:, 1] >= 0, 1].float().mean()),
        "azimuth_median_degrees": median,
        "azimuth_above_90": flipped,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=sorted(TRUNKS), help="architecture: a residual network, b ConvNeXt")
    parser.add_argument("--steps", type=int, default=2400)
    parser.add_argument("--objects", type=int, default=64, help="per subject, 8 views each")
    parser.add_argument("--state", type=Path, default=STATE)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(0)
    data = renders(toybox_folder(given.state), "train", 0, given.objects, 8)
    network = Recogniser(given.kind).to(memory_format=torch.channels_last)
    folder = given.state / f"recogniser_{given.kind}_{given.steps}"
    train(network, data, given.steps, folder)
    plain = renders(toybox_folder(given.state), "plain", TEST_FROM, 10, 4, plain=True)
    varied = renders(toybox_folder(given.state), "varied", TEST_FROM, 10, 4)
    torch.manual_seed(1)
    blank = nothing(to_float(varied.rgba[:, 0]))
    result = {
        "parameters": sum(p.numel() for p in network.parameters()),
        "steps": given.steps,
        "train_renders": int(np.prod(data.azimuth.shape)),
        "test_views": int(plain.azimuth.size),
        "plain": test(network, plain),
        "varied": test(network, varied),
        "none_recall": float((network.read(blank).subject.argmax(1) == NONE).float().mean()),
    }
    weights = {name: value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, given.state / f"recogniser_{given.kind}.safetensors")
    write_result(given.results, f"recogniser_{given.kind}", {**result, **machine()})
    print(result)


if __name__ == "__main__":
    main()
