"""Judge what the prior draws by itself: subject, colours, unseen combinations, synonyms, diversity, azimuth, copies.

    python experiments/text_to_3d/evaluate_prior.py [--judges ab] [prior.weights=FILE ...]

Every sample is four views, evenly spaced from a random start, elevations 0 … 40 as in distillation. Beside every sample
stands a toybox object with the same caption, seen by the same cameras: what the judges make of those is the ceiling.
Samples are kept in the state directory, so the script may be stopped and run again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import (
    PROMPT_SEED,
    REFERENCE_SEED,
    RESCALE,
    SCALE,
    STEPS,
    Drawer,
    arguments,
    cached,
    chosen_subjects,
    drawer,
    machine,
    mean,
    run_key,
    slug,
    toybox_folder,
    write_result,
)
from networks import COLOUR_NAMES, NAMES, Reading, Recogniser
from pictures import SIZE, slots
from recogniser import load
from torch import Tensor

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.data.raycast import render_rgba
from diffusion3d.data.toybox import generate, heldout
from diffusion3d.data.toybox.cache import ToyboxCache
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.data.toybox.subjects import ASYMMETRIC, SUBJECTS, subject_named
from diffusion3d.export.pictures import write_grid
from diffusion3d.metrics.azimuth import median_and_flipped
from diffusion3d.metrics.features import mean_pairwise_distance

VIEWS = 4
CAPTIONS = 4
"""Different main colours among the samples of a subject; diversity is that among samples of one caption."""
SYNONYMS = tuple((subject.name, subject.evaluation[0]) for subject in SUBJECTS[:30])
"""Names that no training caption uses: the first of each of the first thirty subjects."""
NEAREST = 30


@dataclass(frozen=True)
class Item:
    """One sample to draw: `colours` are those its prompt names, `part` the one whose colour is judged."""

    group: str
    subject: str
    index: int
    prompt: str
    colours: Mapping[str, str]
    part: str | None = None

    @property
    def seed(self) -> tuple[int, int, int]:
        return ("subjects", "unseen", "synonyms").index(self.group), NAMES.index(self.subject), self.index

    @cached_property
    def cameras(self) -> Cameras:
        rng = np.random.default_rng((PROMPT_SEED, *self.seed))
        azimuth = rng.uniform(0, 360) + torch.arange(VIEWS)[None] * 360 / VIEWS
        return orbit(azimuth, torch.tensor(rng.uniform(0, 40, (1, VIEWS))), 3.0, 40.0, SIZE, SIZE)

    def sample(self, state: Path, draw: Drawer) -> Tensor:
        a, b, c = self.seed
        path = state / draw.key / "samples" / self.group / slug(self.subject) / f"{self.index:03d}.npy"
        return cached(path, lambda: draw(self.prompt, self.cameras, a * 100_000 + b * 1000 + c))

    def reference(self, state: Path) -> Tensor:
        """A toybox object with the same caption from the same cameras."""

        def make() -> Tensor:
            obj = generate.draw(REFERENCE_SEED, self.index, "test", self.subject, self.colours)
            c2w, K = self.cameras.c2w[0].numpy(), self.cameras.K[0].numpy()
            rgba = torch.from_numpy(render_rgba(obj.mesh, c2w, K, SIZE, SIZE, samples=4)).movedim(-1, 1) / 255
            return rgba[:, :3] + 1 - rgba[:, 3:]

        return cached(toybox_folder(state) / self.group / slug(self.subject) / f"{self.index:03d}.npy", make)


def named_colours(subject: str, part: str, colour: str, index: int) -> tuple[str, dict[str, str]]:
    """A prompt that names the colour of a part, and all colours it names."""
    obj = generate.draw(PROMPT_SEED, index, "train", subject, {part: colour})
    kind = "main" if f"{{{part}}}" in subject_named(subject).main else "full"
    named = re.findall(r"\{(\w+)\}", getattr(subject_named(subject), kind))
    return with_article(obj.phrases[kind][0]), {name: obj.colours[name] for name in named}


def items(subjects: Sequence[str], samples: int, unseen: int, synonyms: int) -> list[Item]:
    """All that is drawn: `samples` of every subject, `unseen` of every held-out combination, `synonyms` of every synonym."""
    found = []
    for subject in subjects:
        part = slots(subject)[0]
        options = sorted(set(heldout.allowed(subject, part, subject_named(subject).parts[part])))
        options = np.random.default_rng((PROMPT_SEED, NAMES.index(subject))).permutation(options).tolist()
        for i in range(samples):
            prompt, colours = named_colours(subject, part, options[i % CAPTIONS % len(options)], i % CAPTIONS)
            found.append(Item("subjects", subject, i, prompt, colours, part))
        for k, (part, colour) in enumerate(heldout.of_subject(subject)):
            prompt, colours = named_colours(subject, part, colour, 100 + k)
            found += [Item("unseen", subject, k * 100 + i, prompt, colours, part) for i in range(unseen)]
        words = [word for name, word in SYNONYMS if name == subject]
        found += [Item("synonyms", subject, i, with_article(word), {}) for word in words for i in range(synonyms)]
    return found


def score(todo: Sequence[Item], reading: Reading) -> dict[str, float]:
    """Shares that are right. Views are judged one by one; a colour by all views of its object (it may be hidden in some);
    `both` is the share of objects with the right subject in most views and the right colour. The judges read
    the colours of two parts of a subject; held-out combinations of a third count for the subject alone."""
    subject = torch.tensor([NAMES.index(item.subject) for item in todo])
    right = (reading.subject.argmax(1).view(len(todo), VIEWS) == subject[:, None]).float()
    colours = reading.colour.log_softmax(-1).unflatten(0, (len(todo), VIEWS)).mean(1).argmax(-1)
    judged = [(i, item) for i, item in enumerate(todo) if item.part in slots(item.subject)]
    result = {"subject": float(right.mean())}
    if judged:
        slot = [slots(item.subject).index(item.part) for _, item in judged]
        want = [COLOUR_NAMES.index(item.colours[item.part]) for _, item in judged]
        good = [int(colours[i, s]) == w for (i, _), s, w in zip(judged, slot, want, strict=True)]
        most = [float(right[i].mean()) > 0.5 for i, _ in judged]
        result["colour"] = mean(good)
        result["both"] = mean([a and b for a, b in zip(good, most, strict=True)])
    return result


def diversity(todo: Sequence[Item], drawn: Reading, real: Reading) -> dict[str, Any]:
    """Mean distance between samples of one caption over that between the toybox objects beside them; an object's feature is
    its mean over the views. Only samples with the right subject in most views count: failures are diverse, too."""
    subject = torch.tensor([NAMES.index(item.subject) for item in todo])
    kept = (drawn.subject.argmax(1).view(-1, VIEWS) == subject[:, None]).float().mean(1) > 0.5
    features = [reading.features.view(len(todo), VIEWS, -1).mean(1) for reading in (drawn, real)]
    per_subject = {}
    for name in dict.fromkeys(item.subject for item in todo):
        groups: dict[str, list[int]] = {}
        for i, item in enumerate(todo):
            if item.subject == name and bool(kept[i]):
                groups.setdefault(item.prompt, []).append(i)
        full = [group for group in groups.values() if len(group) > 1]
        if full:
            ours, theirs = (mean([mean_pairwise_distance(x[group]) for group in full]) for x in features)
            per_subject[name] = ours / theirs
    return {"share": mean(list(per_subject.values())), "samples": int(kept.sum()), "per_subject": per_subject}


def azimuths(todo: Sequence[Item], reading: Reading) -> dict[str, float]:
    """Of views of asymmetric subjects."""
    asymmetric = torch.tensor([item.subject in ASYMMETRIC for item in todo]).repeat_interleave(VIEWS)
    true = torch.cat([item.cameras.azimuth[0] for item in todo])
    if not bool(asymmetric.any()):
        return {}
    median, flipped = median_and_flipped(reading.azimuth[asymmetric], true[asymmetric])
    return {"median_degrees": median, "above_90": flipped, "views": int(asymmetric.sum())}


def nearest(todo: Sequence[Item], state: Path, draw: Drawer, judge: Recogniser, data: Path, picture: Path) -> None:
    """A picture with a sample, its nearest training view by pixels and that by features, for one sample of every subject."""
    cache = ToyboxCache(data)
    rows, labels = [], []
    for item in [item for item in todo if item.index == 0][:NEAREST]:
        sample = torch.nn.functional.interpolate(item.sample(state, draw)[:1], size=(SIZE, SIZE), mode="area")
        same = [i for i, scene in enumerate(cache.scenes) if scene["subject"] == item.subject]
        best = {"pixels": (float("inf"), sample[0]), "features": (float("inf"), sample[0])}
        feature = judge.read(sample).features
        for start in range(0, len(same), 50):
            views = cache.batch(same[start : start + 50], range(cache.views), np.random.default_rng(0))
            views = views.over(torch.ones(len(views.captions or ()), 3)).flatten(0, 1)
            views = torch.nn.functional.interpolate(views, size=(SIZE, SIZE), mode="area")
            distances = {
                "pixels": (views - sample).square().mean((1, 2, 3)),
                "features": (judge.read(views).features - feature).norm(dim=1),
            }
            for name, distance in distances.items():
                i = int(distance.argmin())
                if float(distance[i]) < best[name][0]:
                    best[name] = (float(distance[i]), views[i])
        rows.append(torch.stack([sample[0], best["pixels"][1], best["features"][1]]))
        labels.append(f"rmse {best['pixels'][0] ** 0.5:.2f}  {item.subject}")
    pad = [torch.ones_like(rows[0])] * (-len(rows) % 5)
    lines = [torch.cat((rows + pad)[i : i + 5]) for i in range(0, len(rows), 5)]
    write_grid(picture, lines, ["   |   ".join(labels[i : i + 5]) for i in range(0, len(rows), 5)], scale=2)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--per-subject", type=int, default=20)
    parser.add_argument("--per-combination", type=int, default=2, help="samples of every held-out combination")
    parser.add_argument("--per-synonym", type=int, default=4)
    parser.add_argument("--data", type=Path, default=Path("data/toybox/train"), help="the prior's training cache")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    judges = {kind: load(given.state, kind) for kind in given.judges}
    todo = items(chosen_subjects(given.subjects), given.per_subject, given.per_combination, given.per_synonym)
    draw = drawer(given.overrides)
    drawn, real = [], []
    for number, item in enumerate(todo):
        drawn.append(item.sample(given.state, draw))
        real.append(item.reference(given.state))
        if number % 20 == 0:
            print(f"{number} of {len(todo)}: {item.prompt}", flush=True)
    result: dict[str, Any] = {
        "sampler": {"ddim_steps": STEPS, "scale": SCALE, "rescale": RESCALE},
        "key": run_key(given.overrides),
        "overrides": given.overrides,
        "subjects": len(chosen_subjects(given.subjects)),
        "groups": {},
    }
    for kind, judge in judges.items():
        for group in ("subjects", "unseen", "synonyms"):
            places = [i for i, item in enumerate(todo) if item.group == group]
            if not places:
                continue
            of_group = [todo[i] for i in places]
            ours, theirs = (judge.read(torch.cat([x[i] for i in places])) for x in (drawn, real))
            entry = result["groups"].setdefault(group, {"samples": len(places)})
            entry[kind] = {"samples": score(of_group, ours), "ceiling": score(of_group, theirs)}
            if group == "subjects":
                right = ours.subject.argmax(1).view(-1, VIEWS)
                entry[kind]["per_subject"] = {
                    name: mean(
                        [
                            float((right[j] == NAMES.index(name)).float().mean())
                            for j, item in enumerate(of_group)
                            if item.subject == name
                        ]
                    )
                    for name in chosen_subjects(given.subjects)
                }
                entry[kind]["diversity"] = diversity(of_group, ours, theirs)
                entry[kind]["azimuth"] = {"samples": azimuths(of_group, ours), "reader": azimuths(of_group, theirs)}
    write_result(given.results, "prior", {**result, **machine()})
    print({group: {k: v for k, v in entry.items() if k != "per_subject"} for group, entry in result["groups"].items()})
    if (given.data / "meta.json").exists():
        print(f"looking for the nearest of all training views in {given.data}", flush=True)
        folder = given.results.parent / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        first = [item for item in todo if item.group == "subjects"]
        nearest(first, given.state, draw, next(iter(judges.values())), given.data, folder / "nearest.png")
        result["nearest_picture"] = (
            f"pictures/nearest.png of {min(NEAREST, len(chosen_subjects(given.subjects)))} samples"
        )
        write_result(given.results, "prior", {**result, **machine()})
    else:
        print(f"no training cache at {given.data}: the nearest training views are not looked for")


if __name__ == "__main__":
    with torch.no_grad():
        main()
