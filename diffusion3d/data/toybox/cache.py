"""A disk cache of rendered scenes: written by worker processes, resumed, grown, and read by memory map.

    python -m diffusion3d.data.toybox --out DIR --split train --count 8000

A cache is a folder with meta.json and shards of 1000 scenes. A shard holds rgba.npy [1000, V, H, W, 4] (uint8,
premultiplied, sparse until rendered), done.npy [1000] (1 once a scene is on disk), c2w.npy, K.npy, scenes.jsonl and
shard.json.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from tqdm import tqdm

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.data import raycast
from diffusion3d.data.raycast import render_rgba
from diffusion3d.data.toybox import captions
from diffusion3d.data.toybox.generate import SPLITS, draw
from diffusion3d.data.toybox.subjects import SUBJECTS
from diffusion3d.errors import UserError
from diffusion3d.views import PosedViews

Integers = Sequence[Any] | NDArray[np.integer]

SHARD = 1000
COMMIT = 50
"""Scenes that are rendered before they are flushed and marked as done."""


@dataclass(frozen=True)
class CacheSpec:
    """What a cache contains; the number of scenes is not part of it, because a cache grows.

    Attributes:
        split, seed: of `draw`.
        size: pixels.
        views: per scene, evenly spaced in azimuth from a random start.
        elevation_low, elevation_high: degrees; every view has its own, uniform.
        distance: of the cameras.
        fov: degrees.
        samples: samples x samples rays a pixel.
    """

    split: str = "train"
    seed: int = 0
    size: int = 128
    views: int = 8
    elevation_low: float = -10.0
    elevation_high: float = 50.0
    distance: float = 3.0
    fov: float = 40.0
    samples: int = 2

    def cameras(self, index: int) -> Cameras:
        """The cameras of one scene, deterministic in (seed, index, split)."""
        entropy = (self.seed, index, SPLITS.index(self.split), 0)
        rng = np.random.default_rng(np.random.SeedSequence(entropy, spawn_key=(2,)))
        azimuth = rng.uniform(0, 360) + np.arange(self.views) * 360 / self.views
        elevation = rng.uniform(self.elevation_low, self.elevation_high, self.views)
        return orbit(
            torch.tensor(azimuth)[None], torch.tensor(elevation)[None], self.distance, self.fov, self.size, self.size
        )


def fingerprint() -> str:
    """A digest of the code that decides what is drawn and how."""
    digest = hashlib.sha256()
    for path in [*sorted(Path(__file__).parent.glob("*")), Path(raycast.__file__)]:
        if path.suffix in (".py", ".json") and path.name not in ("cache.py", "__main__.py"):
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


FINGERPRINT = fingerprint()
"""Of the code that this process has loaded."""


def render_scene(job: tuple[CacheSpec, int]) -> tuple[int, NDArray[np.uint8]]:
    """Scene number `index` of a cache: (index, pictures [V, H, W, 4])."""
    spec, index = job
    cameras = spec.cameras(index)
    mesh = draw(spec.seed, index, spec.split).mesh
    return index, render_rgba(mesh, cameras.c2w[0].numpy(), cameras.K[0].numpy(), spec.size, spec.size, spec.samples)


def _start_worker() -> None:
    """The parent alone handles Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)


def _shard_path(root: Path, number: int) -> Path:
    return root / f"shard_{number:05d}"


def _create_shard(root: Path, number: int, spec: CacheSpec) -> None:
    """Make a shard with everything but the pictures; it appears under its name only when complete."""
    final = _shard_path(root, number)
    folder = final.with_suffix(".tmp")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    indices = range(number * SHARD, (number + 1) * SHARD)
    cameras = [spec.cameras(index) for index in indices]
    np.save(folder / "c2w.npy", np.concatenate([c.c2w.numpy() for c in cameras]).astype(np.float32))
    np.save(folder / "K.npy", np.concatenate([c.K.numpy() for c in cameras]).astype(np.float32))
    np.save(folder / "done.npy", np.zeros(SHARD, np.uint8))
    shape = (SHARD, spec.views, spec.size, spec.size, 4)
    np.lib.format.open_memmap(folder / "rgba.npy", mode="w+", dtype=np.uint8, shape=shape).flush()
    with (folder / "scenes.jsonl").open("w") as file:
        for index in indices:
            obj = draw(spec.seed, index, spec.split)
            line = {"index": index, "subject": obj.subject, "colours": obj.colours, "phrases": obj.phrases}
            file.write(json.dumps(line) + "\n")
    (folder / "shard.json").write_text(json.dumps({"fingerprint": FINGERPRINT}) + "\n")
    os.replace(folder, final)


def _check_meta(root: Path, spec: CacheSpec) -> None:
    path = root / "meta.json"
    if path.exists():
        try:
            have, want = dict(json.loads(path.read_text())), asdict(spec)
        except (OSError, ValueError, TypeError) as error:
            raise UserError(f"{path} is damaged ({error}): delete {root} and render it again") from None
        wrong = [f"{key} is {have.get(key)}, not {value}" for key, value in want.items() if have.get(key) != value]
        if wrong:
            raise UserError(f"{root} is another cache ({'; '.join(wrong)}): give the same arguments or another folder")
        return
    if any(root.glob("shard_*")):
        raise UserError(f"{root} holds shards but no meta.json: give another folder")
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(spec), indent=2) + "\n")
    os.replace(temporary, path)


def _open(path: Path, mode: Literal["r", "r+"] | None, shape: tuple[int, ...]) -> Any:
    """One array of a shard, checked."""
    try:
        array = np.load(path, mmap_mode=mode)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{path} is missing or damaged ({error}): delete {path.parent} and render it again") from None
    if array.shape != shape:
        raise UserError(f"{path} has the shape {array.shape}, not {shape}: delete {path.parent} and render it again")
    return array


def write(root: str | Path, spec: CacheSpec, count: int, workers: int = 2, progress: bool = True) -> None:
    """Render those of the first `count` scenes that are not in the cache yet. May be stopped, resumed, and grown.

    Raises:
        UserError: the folder holds another cache, is damaged, or is being written by another process.
    """
    root = Path(root)
    root.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(FileLock(root / ".lock", timeout=0))
        except Timeout:
            raise UserError(f"{root} is being written by another process: wait for it or give another folder") from None
        _check_meta(root, spec)
        jobs = []
        for number in range((count + SHARD - 1) // SHARD):
            folder = _shard_path(root, number)
            if not folder.exists():
                jobs.append((number, np.zeros(SHARD, np.uint8)))
                continue
            done = _open(folder / "done.npy", None, (SHARD,))
            wanted = min(count - number * SHARD, SHARD)
            if done[:wanted].all():
                continue
            if _fingerprint(folder) != FINGERPRINT:
                raise UserError(f"{folder} is unfinished and was begun by other code: delete it to render it again")
            jobs.append((number, done))
        todo = sum(int((1 - done[: count - number * SHARD]).sum()) for number, done in jobs)
        context = multiprocessing.get_context("spawn")
        with tqdm(total=todo, desc=f"toybox {spec.split}", unit="scene", disable=not progress) as bar:
            if workers > 1 and todo:
                with context.Pool(workers, initializer=_start_worker) as pool:
                    for number, _ in jobs:
                        _fill_shard(
                            root, number, spec, count, lambda work: pool.imap_unordered(render_scene, work, 4), bar
                        )
            else:
                for number, _ in jobs:
                    _fill_shard(root, number, spec, count, lambda work: map(render_scene, work), bar)


def _fingerprint(shard: Path) -> str | None:
    """Of the code that began a shard; None where its note is missing or torn."""
    try:
        return str(json.loads((shard / "shard.json").read_text())["fingerprint"])
    except (OSError, ValueError, KeyError):
        return None


def _fill_shard(root: Path, number: int, spec: CacheSpec, count: int, run, bar: tqdm) -> None:
    folder = _shard_path(root, number)
    if not folder.exists():
        _create_shard(root, number, spec)
    rgba = _open(folder / "rgba.npy", "r+", (SHARD, spec.views, spec.size, spec.size, 4))
    done = _open(folder / "done.npy", "r+", (SHARD,))
    first, last = number * SHARD, min((number + 1) * SHARD, count)
    fresh: list[int] = []

    def commit() -> None:
        rgba.flush()
        done[fresh] = 1
        done.flush()
        fresh.clear()

    try:
        for index, pictures in run([(spec, i) for i in range(first, last) if not done[i - first]]):
            rgba[index - first] = pictures
            fresh.append(index - first)
            bar.update()
            if len(fresh) >= COMMIT:
                commit()
    finally:
        commit()


class ToyboxCache:
    """Reads the scenes of a cache that are on disk, also while it is being written.

    Args:
        root: the cache's folder.

    Raises:
        UserError: there is no cache, or a part of it is damaged.
    """

    def __init__(self, root: str | Path) -> None:
        self.root = Path(root)
        try:
            self.spec = CacheSpec(**json.loads((self.root / "meta.json").read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise UserError(
                f"{root} is no toybox cache ({error}): make one with python -m diffusion3d.data.toybox"
            ) from None
        spec = self.spec
        folders = sorted(p for p in self.root.glob("shard_*") if p.suffix != ".tmp")
        rgba, c2w, K, self.scenes = [], [], [], []
        where = []
        for shard, folder in enumerate(folders):
            done = _open(folder / "done.npy", None, (SHARD,))
            rgba.append(_open(folder / "rgba.npy", "r", (SHARD, spec.views, spec.size, spec.size, 4)))
            c2w.append(_open(folder / "c2w.npy", None, (SHARD, spec.views, 4, 4)))
            K.append(_open(folder / "K.npy", None, (SHARD, spec.views, 3, 3)))
            lines = (folder / "scenes.jsonl").read_text().splitlines()
            for place in np.flatnonzero(done):
                where.append((shard, place))
                self.scenes.append(json.loads(lines[place]))
        self._rgba, self._c2w, self._K = rgba, c2w, K
        self._where = np.array(where, np.int64).reshape(-1, 2)
        self.views, self.size = spec.views, spec.size
        self.vocabulary = tuple(subject.name for subject in SUBJECTS)

    def __len__(self) -> int:
        return len(self._where)

    def batch(self, indices: Integers, views: Integers, rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [V] or [B, V], each with a random caption."""
        indices = np.asarray(indices, np.int64)
        chosen = np.broadcast_to(np.asarray(views, np.int64), (len(indices), np.shape(views)[-1]))
        places = self._where[indices]
        rgba = np.stack([self._rgba[s][i][v] for (s, i), v in zip(places, chosen, strict=True)])
        c2w = np.stack([self._c2w[s][i, v] for (s, i), v in zip(places, chosen, strict=True)])
        K = np.stack([self._K[s][i, v] for (s, i), v in zip(places, chosen, strict=True)])
        pictures = torch.from_numpy(rgba).permute(0, 1, 4, 2, 3).float() / 255
        spec = self.spec
        reach = 3**0.5
        cameras = Cameras(
            torch.from_numpy(c2w),
            torch.from_numpy(K),
            spec.size,
            spec.size,
            near=max(0.05, spec.distance - reach),
            far=spec.distance + reach,
        )
        return PosedViews(
            cameras=cameras,
            images=pictures[:, :, :3].contiguous(),
            alpha=pictures[:, :, 3:].contiguous(),
            captions=tuple(captions.compose(self.scenes[i]["phrases"], rng) for i in indices),
        )
