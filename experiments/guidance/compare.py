"""Compare the guidance schemes in 3D, with the shipped prior and an equal number of views that it denoises.

    python experiments/guidance/compare.py [--only sds,vsd] [--state outputs/guidance]
    python experiments/guidance/compare.py --table

Twelve toybox prompts with seed 0, three of them with seeds 1 to 4 as well, every scheme with the settings it ships with but for
`task.steps`: so many that the prior denoises BUDGET views in all (a step's cost is measured by two short runs; a scheme whose
passes do not grow with the steps keeps the default number). Every run is a process of its own with one thread, and its seconds
are CPU time; a finished one is kept, one that was cut starts again. results/compare.json keeps the figures, --table writes
TABLE.md, and pictures/ has the schemes side by side.

Judged on 24 turntable views by recogniser A (`experiments/text_to_3d/recogniser.py`):
- subject: the share of views that are called the prompt's subject; colour: that of runs that mostly show it and whose named
  colour is read off all views together; Janus: in runs of asymmetric subjects that mostly show it, the share of the views from
  behind that show a front.
- saturation: the Wasserstein-1 distance between the HSV saturations (0 … 1) of the object's pixels and those of five toybox
  objects of the same caption.
- diversity: the mean distance of the judge's features between the five seeds, over that of the five toybox objects.

The row `toybox` is what five toybox objects of each caption score themselves, saturations against those of the other four.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "text_to_3d"))
RESULTS = HERE / "results" / "compare.json"
UNTUNED = ("guidance.rescale=0.0", "guidance.t_min=0.02", "guidance.t_max=0.98", "guidance.weighting=sigma_squared")
SCHEMES: dict[str, tuple[str, ...]] = {
    "sds": (),
    "sds untuned": ("guidance=sds", *UNTUNED),
    **dict.fromkeys(("mvdream", "dreamtime", "sjc", "csd", "nfsd", "ism", "sdi"), ()),
    "sdi in 2 steps": ("guidance=sdi", "guidance.inversion_steps=2"),
    **dict.fromkeys(("hifa", "vsd", "reconstruct"), ()),
}
"""{row: overrides}; a row without any is the scheme of its name, with the settings it ships with."""
REPEATED, SEEDS = 3, 5
BUDGET = 3200
"""Views denoised in a run: 400 steps of four views, with and without the prompt."""
PROBES = (20, 40)
VIEWS, OBJECTS, SHOWN = 24, 5, 4
FIGURES = {
    "subject": ".0%",
    "colour": ".0%",
    "janus": ".0%",
    "saturation": ".3f",
    "steps": ".0f",
    "denoised": ".0f",
    "seconds": ".0f",
    "peak_memory_mb": ".0f",
}
"""Of a run, with their formats, in the order of the table's columns; diversity stands after saturation."""


def child(report: Path, overrides: list[str]) -> None:
    """Run in this process, counting the views that the prior denoises."""
    from diffusion3d.priors.ddpm import DDPM
    from diffusion3d.run import run

    denoise: Callable[..., Any] = DDPM.denoise
    denoised = 0

    def counted(self: Any, x_t: Any, *arguments: Any) -> Any:
        nonlocal denoised
        denoised += x_t.shape[0] * x_t.shape[1]
        return denoise(self, x_t, *arguments)

    DDPM.denoise = counted  # type: ignore[method-assign]
    metrics = run(overrides)
    report.write_text(json.dumps({"denoised": denoised, "steps": metrics["steps"]}))


def once(folder: Path, overrides: Sequence[str]) -> dict[str, float]:
    """One job in a process of its own with one thread: views denoised, steps, CPU seconds and peak memory in MB."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    report = folder / "report.json"
    job = ["logger=none", f"hydra.run.dir={folder / 'run'}", *overrides]
    one = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen([sys.executable, __file__, "--child", str(report), *job], env=one)
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"the job failed with status {status}: {' '.join(job)}")
    facts: dict[str, float] = json.loads(report.read_text())
    return {**facts, "seconds": usage.ru_utime + usage.ru_stime, "peak_memory_mb": usage.ru_maxrss / 1024}


def chosen(scheme: str) -> list[str]:
    """The overrides of a row."""
    return list(SCHEMES.get(scheme, ())) or [f"guidance={scheme}"]


def steps(scheme: str, state: Path, commit: str | None, overrides: Sequence[str] = ()) -> int | None:
    """How many fit the budget; None where the passes do not depend on them."""
    path = state / "probes" / f"{scheme.replace(' ', '-')}.json"
    typed = [*chosen(scheme), *overrides, "prompt=a castle"]
    telling = [o for o in typed if not o.startswith(("run=", "guidance.source_prompt="))]
    asked = {"overrides": telling, "git": commit}
    found = json.loads(path.read_text()) if path.exists() else {}
    if {key: found.get(key) for key in asked} != asked:
        denoised = [once(path.with_name(f"{path.stem}_{n}"), [*typed, f"task.steps={n}"])["denoised"] for n in PROBES]
        found = {**asked, "denoised": denoised}
        path.write_text(json.dumps(found))
    return fitting(found["denoised"])


def fitting(denoised: Sequence[float]) -> int | None:
    """The steps for BUDGET views, from those that PROBES took; on average where a scheme draws how many a step takes."""
    return None if len(set(denoised)) == 1 else round(BUDGET * sum(PROBES) / sum(denoised))


def measure(options: argparse.Namespace) -> None:
    from common import TWELVE
    from evaluate_prior import items

    from diffusion3d.tasks.facts import versions, write_json

    results: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {"runs": {}}
    todo = items(TWELVE, 1, 0, 0)
    for seed in range(SEEDS):
        for item in todo[:REPEATED] if seed else todo:
            for scheme in options.only or SCHEMES:
                key = f"{scheme} | {item.subject} | {seed}"
                if key in results["runs"]:
                    continue
                here = versions()
                count = steps(scheme, options.state, here["git"])
                folder = options.state / "runs" / key.replace(" | ", "_").replace(" ", "-")
                overrides = [*chosen(scheme), f"seed={seed}", f"prompt={item.prompt}"]
                facts = once(folder, [*([] if count is None else [f"task.steps={count}"]), *overrides])
                results["versions"] = here
                results["runs"][key] = {**facts, "git": here["git"], **judged(folder / "run", item)}
                RESULTS.parent.mkdir(exist_ok=True)
                write_json(RESULTS, results)
                print(key, {name: round(value, 3) for name, value in facts.items()}, flush=True)


@cache
def judge() -> Any:
    from recogniser import load

    return load(Path("/"), "a")


def turned(folder: Path) -> tuple[Any, Any]:
    """24 views [24, 3, H, W] on white of a finished run, and their alpha."""
    import torch
    from pictures import SIZE

    from diffusion3d.camera_sampling import Orbit
    from diffusion3d.rendering.render import composite
    from diffusion3d.tasks.render import load_scene

    representation, raw, _ = load_scene(str(folder), [], torch.device("cpu"))
    with torch.no_grad():
        views = representation.scene(raw).render(Orbit(2 * SIZE).turntable(VIEWS))
    return composite(views, torch.ones(1, 3))[0].clamp(0, 1), views.alpha[0, :, 0]


@cache
def toybox(subject: str, colours: tuple[tuple[str, str], ...]) -> tuple[list[Any], list[Any]]:
    """Pictures [24, 3, H, W] of five objects of a caption, and the saturations of their pixels."""
    import torch
    from common import REFERENCE_SEED
    from pictures import SIZE

    from diffusion3d.camera_sampling import Orbit
    from diffusion3d.data.raycast import render
    from diffusion3d.data.toybox import generate

    pictures, saturations = [], []
    for index in range(OBJECTS):
        mesh = generate.draw(REFERENCE_SEED, 2000 + index, "test", subject, dict(colours)).mesh
        views = render(mesh, Orbit(SIZE).turntable(VIEWS), samples=4)
        assert views.alpha is not None
        pictures.append(views.over(torch.ones(1, 3))[0])
        saturations.append(saturation(pictures[-1], views.alpha[0, :, 0]))
    return pictures, saturations


def saturation(pictures: Any, alpha: Any) -> Any:
    """HSV saturations of all pixels of more than half opacity."""
    high, low = pictures.amax(1), pictures.amin(1)
    return ((high - low) / high.clamp(min=1e-6))[alpha > 0.5]


def wasserstein(x: Any, y: Any) -> float | None:
    """Wasserstein-1 distance of two sets of numbers, by 256 quantiles; None where a set is empty."""
    import torch

    if not len(x) or not len(y):
        return None
    at = (torch.arange(256) + 0.5) / 256
    first, second = (v.sort().values[(at * len(v)).long()] for v in (x, y))
    return float((first - second).abs().mean())


def objects(item: Any) -> tuple[list[Any], list[Any]]:
    return toybox(item.subject, tuple(sorted(item.colours.items())))


def judged(folder: Path, item: Any) -> dict[str, Any]:
    pictures, alpha = turned(folder)
    return read(pictures, saturation(pictures, alpha), objects(item)[1], item)


def of_objects(item: Any) -> list[dict[str, Any]]:
    """What the toybox objects of a caption score themselves."""
    pictures, saturations = objects(item)
    others = [saturations[:i] + saturations[i + 1 :] for i in range(OBJECTS)]
    return [read(*each, item) for each in zip(pictures, saturations, others, strict=True)]


def read(pictures: Any, saturations: Any, data: list[Any], item: Any) -> dict[str, Any]:
    """The figures of an object, `data` being saturations of others of its caption."""
    import torch
    from networks import COLOUR_NAMES, NAMES
    from pictures import SIZE, slots

    from diffusion3d.camera_sampling import Orbit
    from diffusion3d.data.toybox.subjects import ASYMMETRIC
    from diffusion3d.metrics.azimuth import janus_share

    reading = judge().read(pictures)
    slot = slots(item.subject).index(item.part)
    colour = int(reading.colour[:, slot].log_softmax(-1).mean(0).argmax())
    found = {
        "subject": float((reading.subject.argmax(1) == NAMES.index(item.subject)).float().mean()),
        "colour": float(COLOUR_NAMES[colour] == item.colours[item.part]),
        "saturation": wasserstein(saturations, torch.cat(data)),
        "features": reading.features.mean(0).tolist(),
    }
    if item.subject in ASYMMETRIC:
        found["janus"] = janus_share(reading.azimuth, Orbit(SIZE).turntable(VIEWS).azimuth[0])
    return found


def diversity(runs: dict[str, Any], scheme: str) -> float | None:
    """Distance between seeds over that between toybox objects, over the repeated prompts that are complete. A seed whose views
    are mostly called something else is left out: failures are diverse, too."""
    import torch
    from common import TWELVE
    from evaluate_prior import items

    from diffusion3d.metrics.features import mean_pairwise_distance

    shares = []
    for item in items(TWELVE[:REPEATED], 1, 0, 0):
        keys = [f"{scheme} | {item.subject} | {seed}" for seed in range(SEEDS)]
        good = [runs[key]["features"] for key in keys if key in runs and runs[key]["subject"] > 0.5]
        if all(key in runs for key in keys) and len(good) > 1:
            ours = torch.tensor(good)
            theirs = torch.tensor([runs[f"toybox | {item.subject} | {i}"]["features"] for i in range(OBJECTS)])
            shares.append(mean_pairwise_distance(ours) / mean_pairwise_distance(theirs))
    return sum(shares) / len(shares) if shares else None


def mean(runs: dict[str, Any], name: str) -> float | None:
    """Of a figure, over prompts of the mean over their seeds; None where no run has it.

    A run that mostly shows something else has no colour that counts, and no front that could be in a wrong place.
    """
    by_prompt: dict[str, list[float]] = {}
    for key, figures in runs.items():
        value = figures.get(name)
        if figures["subject"] <= 0.5 and name in ("colour", "janus"):
            value = 0.0 if name == "colour" else None
        if value is not None:
            by_prompt.setdefault(key.split(" | ")[1], []).append(value)
    means = [sum(values) / len(values) for values in by_prompt.values()]
    return sum(means) / len(means) if means else None


def made(content: dict[str, Any]) -> str:
    """By what machine, packages and commits."""
    cpu, found = content["versions"], {run.get("git") for run in content["runs"].values()}
    commits = sorted(git[:7] + git[40:] for git in found if git)
    return f"{cpu['cpu']}, {cpu['cores']} cores, torch {cpu['packages']['torch']}, commit {', '.join(commits)}"


def write_table(options: argparse.Namespace) -> None:
    """TABLE.md, and one picture per prompt: a row of views for each scheme."""
    import torch
    from common import TWELVE
    from evaluate_prior import items

    from diffusion3d.export.pictures import write_grid

    content = json.loads(RESULTS.read_text())
    runs = content["runs"]
    lines = [
        f"Written by `compare.py --table`; {made(content)}.",
        "",
        "| scheme | runs | subject | colour | Janus | saturation | diversity | steps | views denoised | seconds | MB |",
        "|" + "---|" * 11,
    ]
    data = {
        f"toybox | {item.subject} | {i}": figures
        for item in items(TWELVE, 1, 0, 0)
        for i, figures in enumerate(of_objects(item))
    }
    for scheme in ["toybox", *SCHEMES]:
        own = {key: figures for key, figures in {**data, **runs}.items() if key.startswith(f"{scheme} | ")}
        if not own:
            continue
        spread = diversity({**data, **runs}, scheme)
        cells = [f"{'' if (m := mean(own, name)) is None else format(m, form)}" for name, form in FIGURES.items()]
        cells.insert(4, "" if spread is None else f"{spread:.0%}")
        lines.append(f"| {scheme} | {len(own)} | {' | '.join(cells)} |")
    (HERE / "TABLE.md").write_text("\n".join(lines) + "\n")
    shown = torch.arange(0, VIEWS, VIEWS // SHOWN)
    for item in items(TWELVE, 1, 0, 0):
        rows, labels = [], []
        for scheme in SCHEMES:
            folder = options.state / "runs" / f"{scheme}_{item.subject}_0".replace(" ", "-") / "run"
            if (folder / "metrics.json").exists():
                rows.append(turned(folder)[0][shown])
                labels.append(f"{scheme}: {item.prompt}")
        if rows:
            (HERE / "pictures").mkdir(exist_ok=True)
            write_grid(HERE / "pictures" / f"{item.subject.replace(' ', '-')}.png", rows, labels)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(Path(sys.argv[2]), sys.argv[3:])
        sys.exit()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), help="schemes, separated by commas")
    parser.add_argument("--state", type=Path, default=Path("outputs/guidance"), help="where the runs are kept")
    parser.add_argument("--table", action="store_true", help="write TABLE.md and the pictures from what there is")
    given = parser.parse_args()
    (write_table if given.table else measure)(given)
