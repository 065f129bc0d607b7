"""What the scripts of this study share: where things are, the prior, its sampler, prompts and reference objects."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.config import check, compose, hydra_app
from diffusion3d.data.toybox.cache import FINGERPRINT
from diffusion3d.data.toybox.subjects import SUBJECTS, subject_named
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.overrides import to_hydra
from diffusion3d.priors.base import Prior
from diffusion3d.priors.draw import draw
from diffusion3d.priors.weights import find_weights
from diffusion3d.tasks.build import build
from diffusion3d.tasks.facts import versions, write_json

STATE = Path("outputs/text_to_3d")
RESULTS = Path(__file__).parent / "results"

STEPS, SCALE, RESCALE = 25, 3.0, 0.5
"""The sampler, fixed before anything was measured: DDIM steps, guidance scale, share of the rescale."""
NOISE_SEED, PROMPT_SEED, REFERENCE_SEED = 500_000, 3000, 2000
"""Of the prior's noise, of the colours in prompts, and of the toybox objects that results are held against."""

TWELVE = (
    "castle on a hill",
    "standing corgi dog",
    "race car",
    "house",
    "airplane",
    "boat",
    "chair",
    "horse",
    "robot",
    "mushroom",
    "lamp",
    "tree",
)
"""Subjects of the studies that cannot afford all."""


def command(argv: Sequence[str]) -> str:
    """The command line as the tables show it: without the options that only say where files are."""
    text = " ".join(["python experiments/text_to_3d/" + Path(argv[0]).name, *argv[1:]])
    text = re.sub(r" --(state|results|data)[ =]\S+", "", text)
    return re.sub(r"(prior\.weights=)\S*/", r"\1", text)


def machine() -> dict[str, Any]:
    """Where and how a result came about."""
    return {"versions": versions(), "threads": torch.get_num_threads(), "command": command(sys.argv)}


def toybox_folder(state: Path) -> Path:
    """Where renders of toybox are kept, by the code that draws it."""
    return state / "toybox" / FINGERPRINT[:8]


def write_result(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / f"{name}.json", content)


def composed(overrides: Sequence[str]) -> DictConfig:
    """The config that overrides give, checked as the command line checks it."""
    with hydra_app() as app:
        config = compose(app, to_hydra([*overrides, "prompt=a castle"]))
        check(app, config, config.hydra)
    return config


@dataclass(frozen=True)
class Drawer:
    """A prior and the fixed sampler.

    Attributes:
        key: names the weights, the overrides and the sampler; results of another key are never mixed with it.
    """

    prior: Prior
    key: str

    def __call__(self, prompt: str, cameras: Cameras, seed: int) -> Tensor:
        """Views [V, 3, H, W] in [0, 1] on white."""
        generator = torch.Generator().manual_seed(NOISE_SEED + seed)
        condition = self.prior.condition([prompt], cameras.resize(self.prior.image_size, self.prior.image_size))
        return draw(self.prior, Sampler(STEPS), condition, SCALE, RESCALE, generator)[0]


def run_key(overrides: Sequence[str], *more: Any) -> str:
    """Ten hex digits that differ with the weights, the overrides and anything more."""
    weights = composed(overrides).prior.weights
    digest = hashlib.sha256(json.dumps([sorted(overrides), *more]).encode())
    if weights is not None:
        digest.update(find_weights(weights).read_bytes())
    return digest.hexdigest()[:10]


def drawer(overrides: Sequence[str]) -> Drawer:
    prior: Prior = build(composed(overrides).prior).eval().requires_grad_(False)
    return Drawer(prior, run_key(overrides, STEPS, SCALE, RESCALE))


def slug(subject: str) -> str:
    return subject.replace(" ", "-")


def cached(path: Path, make: Callable[[], Tensor]) -> Tensor:
    """Pictures [..., C, H, W] in [0, 1] from an 8-bit file, made and written where it does not exist."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_suffix(".tmp.npy")
        np.save(temporary, (make() * 255 + 0.5).to(torch.uint8).numpy())
        temporary.replace(path)
    return torch.from_numpy(np.load(path)).float() / 255


def chosen_subjects(text: str | None) -> tuple[str, ...]:
    """All subjects, or those of a list with commas."""
    return tuple(s.name for s in SUBJECTS) if text is None else tuple(subject_named(n).name for n in text.split(","))


def arguments(description: str | None) -> argparse.ArgumentParser:
    """What all scripts take; whatever else is given are overrides for diffusion3d."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value of diffusion3d's config, e.g. prior.weights=FILE")
    parser.add_argument("--subjects", help="only these, with commas in between")
    parser.add_argument("--judges", default="a", help="a, b or ab")
    parser.add_argument("--state", type=Path, default=STATE, help="where recognisers, samples and runs are kept")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--threads", type=int, default=1)
    return parser


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if len(values) else float("nan")
