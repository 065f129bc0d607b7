"""What the recognisers learn from: toybox renders, how they are varied, and pictures of nothing."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from networks import COLOUR_NAMES, SLOTS
from torch import Tensor

from diffusion3d.cameras import orbit
from diffusion3d.data.raycast import DEFAULT, EVENING, Lighting, render_rgba
from diffusion3d.data.toybox.generate import ToyObject, draw
from diffusion3d.data.toybox.subjects import SUBJECTS, subject_named

SEED = 1000
"""Of all renders that recognisers learn from and are tested on; priors learn from seed 0."""
TEST_FROM = 100_000
"""Objects from this index on are for tests."""
SIZE = 64


def slots(subject: str) -> tuple[str, ...]:
    """The parts whose colours are read: the first two with more than one colour."""
    return tuple(p for p, options in subject_named(subject).parts.items() if len(set(options)) > 1)[:SLOTS]


def colour_labels(obj: ToyObject) -> list[int]:
    """Index of the colour of every slot, -1 where a subject has none."""
    found = [COLOUR_NAMES.index(obj.colours[part]) for part in slots(obj.subject)]
    return found + [-1] * (SLOTS - len(found))


@dataclass(frozen=True)
class Renders:
    """N objects from V cameras: rgba uint8 [N,V,64,64,4] (premultiplied), subject [N], colours [N,2], azimuth [N,V]."""

    rgba: np.ndarray
    subject: np.ndarray
    colours: np.ndarray
    azimuth: np.ndarray


def lighting(rng: np.random.Generator) -> Lighting:
    """The default, the evening, or a random one, a third each."""
    kind = rng.integers(3)
    if kind < 2:
        return (DEFAULT, EVENING)[kind]
    key, fill = rng.normal(size=(2, 3))
    return Lighting(
        key=(float(key[0]), float(key[1]), abs(float(key[2])) + 0.5),
        key_strength=float(rng.uniform(0.2, 0.6)),
        fill=(float(fill[0]), float(fill[1]), float(fill[2])),
        fill_strength=float(rng.uniform(0.05, 0.3)),
        sky=float(rng.uniform(0.5, 0.8)),
        ground=float(rng.uniform(0.35, 0.6)),
    )


def render_subject(place: int, first: int, objects: int, views: int, plain: bool) -> Renders:
    """Objects first … first + objects - 1 of one subject. Plain: as a prior is asked to draw (default light, the turntable)."""
    rows = []
    for index in range(first, first + objects):
        obj = draw(SEED, index, "test", SUBJECTS[place].name)
        rng = np.random.default_rng((SEED, index, place, 3))
        azimuth = (rng.uniform(0, 360) + np.arange(views) * 360 / views) % 360
        low, high, near, far = (15, 15, 3, 3) if plain else (-10, 50, 2.6, 3.4)
        cameras = orbit(
            torch.tensor(azimuth)[None],
            torch.tensor(rng.uniform(low, high, views))[None],
            float(rng.uniform(near, far)),
            40.0,
            SIZE,
            SIZE,
        )
        light = DEFAULT if plain else lighting(rng)
        rgba = render_rgba(obj.mesh, cameras.c2w[0].numpy(), cameras.K[0].numpy(), SIZE, SIZE, 2, light)
        rows.append((rgba, place, colour_labels(obj), azimuth.astype(np.float32)))
    return Renders(*(np.stack([np.asarray(row[i]) for row in rows]) for i in range(4)))


def renders(folder: Path, name: str, first: int, objects: int, views: int, plain: bool = False) -> Renders:
    """Renders of all subjects, made where they are not on disk yet."""
    parts = []
    for place, subject in enumerate(SUBJECTS):
        path = folder / f"{name}_{first}_{objects}x{views}" / f"{subject.name.replace(' ', '-')}.npz"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            made = render_subject(place, first, objects, views, plain)
            temporary = path.with_suffix(".tmp.npz")
            np.savez_compressed(temporary, **vars(made))
            temporary.replace(path)
            print(f"rendered {objects} x {views} of {subject.name}", flush=True)
        with np.load(path) as file:
            parts.append(Renders(**file))
    return Renders(*(np.concatenate([getattr(p, f) for p in parts]) for f in ("rgba", "subject", "colours", "azimuth")))


def to_float(rgba: np.ndarray) -> Tensor:
    """uint8 [..., H, W, 4] to float [..., 4, H, W]."""
    return torch.from_numpy(rgba).movedim(-1, -3).float() / 255


def over_white(rgba: np.ndarray) -> Tensor:
    """Pictures [..., 3, H, W] on white."""
    pictures = to_float(rgba)
    return pictures[..., :3, :, :] + 1 - pictures[..., 3:, :, :]


def uniform(count: int, low: float, high: float, *trailing: int) -> Tensor:
    return low + (high - low) * torch.rand(count, *trailing)


def warp(x: Tensor, scale: Tensor, shift: Tensor, turn: Tensor) -> Tensor:
    """Scale (> 1 is nearer), shift (shares of half the width) [N, 2] and turn (radians) pictures; outside is 0."""
    cos, sin = turn.cos() / scale, turn.sin() / scale
    theta = torch.stack([torch.stack([cos, -sin, shift[:, 0]], 1), torch.stack([sin, cos, shift[:, 1]], 1)], 1)
    return F.grid_sample(x, F.affine_grid(theta, list(x.shape), align_corners=False), align_corners=False)


def backgrounds(count: int) -> Tensor:
    """White, any grey or any colour [N, 3, 1, 1]."""
    kind = torch.multinomial(torch.tensor([0.4, 0.3, 0.3]), count, True)
    grey, colour = torch.rand(count, 1).expand(-1, 3), torch.rand(count, 3)
    return torch.stack([torch.ones(count, 3), grey, colour])[kind, torch.arange(count)][:, :, None, None]


def shrink(x: Tensor, size: int) -> Tensor:
    """Lose all detail finer than `size` pixels a side."""
    small = F.interpolate(x, size=(size, size), mode="area")
    return F.interpolate(small, size=x.shape[-2:], mode="bilinear", align_corners=False)


def vary(rgba: Tensor) -> Tensor:
    """Random crop, background, colour jitter, blur, noise and cut-out of renders [N,4,64,64] -> [N,3,64,64]."""
    count = len(rgba)
    x = warp(rgba, uniform(count, 0.8, 1.25), uniform(count, -0.12, 0.12, 2), uniform(count, -0.1, 0.1))
    behind = backgrounds(count)
    x = x[:, :3] + (1 - x[:, 3:]) * behind
    grey = x.mean(1, keepdim=True)
    x = grey + (x - grey) * uniform(count, 0.85, 1.15, 1, 1, 1)
    x = (x * uniform(count, 0.96, 1.04, 3, 1, 1) * uniform(count, 0.9, 1.1, 1, 1, 1)).clamp(0, 1)
    size = (20, 24, 32, 40, 64, 64)[int(torch.randint(6, ()))]
    half = count // 2
    x = torch.cat([shrink(x[:half], size), x[half:]]) if size < SIZE else x
    x = x + torch.randn_like(x) * uniform(count, 0, 0.05, 1, 1, 1) * (torch.rand(count, 1, 1, 1) < 0.5)
    for i in torch.nonzero(torch.rand(count) < 0.25)[:, 0].tolist():
        top, left, height, width = (
            int(v) for v in torch.randint(0, 56, (2,)).tolist() + torch.randint(6, 22, (2,)).tolist()
        )
        x[i, :, top : top + height, left : left + width] = behind[i]
    return x.clamp(0, 1)


def blobs(share: float) -> Tensor:
    """A soft random mask [1,1,64,64] of that share of the picture, in several pieces."""
    noise = F.interpolate(torch.randn(1, 1, 9, 9), size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return ((noise - noise.quantile(1 - share)) * 8).sigmoid()


def nothing(rgba: Tensor) -> Tensor:
    """Pictures of no subject made from renders [N,4,64,64]: noise, mush (blurred, distorted, mixed, shuffled, torn, pieced
    together) and parts."""
    count = len(rgba)
    x = vary(rgba)
    kinds = torch.randint(0, 9, (count,))
    for i, kind in enumerate(kinds.tolist()):
        one = x[i : i + 1]
        if kind == 0:
            grain = (2, 4, 8, 16, 64)[int(torch.randint(5, ()))]
            noise = torch.rand(1, 3, 1, 1) + float(torch.rand(())) * torch.randn(1, 3, grain, grain)
            one = F.interpolate(noise, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
        elif kind == 1:
            one = shrink(one, int(torch.randint(3, 6, ())))
        elif kind == 2:
            field = torch.randn(1, 2, 8, 8) * float(uniform(1, 0.2, 0.6))
            field = F.interpolate(field, size=(SIZE, SIZE), mode="bicubic", align_corners=False).permute(0, 2, 3, 1)
            grid = F.affine_grid(torch.eye(2, 3)[None], [1, 3, SIZE, SIZE], align_corners=False)
            one = F.grid_sample(one, grid + field, padding_mode="border", align_corners=False)
        elif kind == 3:
            others = x[torch.randint(0, count, (3,))]
            one = 0.4 * one + 0.6 * others.mean(0, keepdim=True)
        elif kind == 4:
            side = (8, 16)[int(torch.randint(2, ()))]
            patches = F.unfold(one, side, stride=side)
            one = F.fold(patches[:, :, torch.randperm(patches.shape[2])], (SIZE, SIZE), side, stride=side)
        elif kind == 5:
            near = warp(rgba[i : i + 1], uniform(1, 4, 7), uniform(1, -0.35, 0.35, 2), torch.zeros(1))
            one = near[:, :3] + (1 - near[:, 3:]) * backgrounds(1)
        elif kind in (6, 7):
            keep = blobs(float(uniform(1, 0.35, 0.6)))
            other = rgba[torch.randint(0, count, (1,))] * (1 - keep) * (kind == 7)
            pieces = rgba[i : i + 1] * keep + other
            one = pieces[:, :3] + (1 - pieces[:, 3:]) * backgrounds(1)
        else:
            one = backgrounds(1) + 0.12 * (one - one.mean()) * float(torch.rand(()))
        x[i] = one[0]
    return x.clamp(0, 1)
