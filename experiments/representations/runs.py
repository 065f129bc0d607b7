"""What the scripts of this study share: runs that go on where they stopped, results that are kept, rows of tables."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, as_completed
from pathlib import Path
from statistics import mean
from typing import Any

from diffusion3d.tasks.facts import versions, write_json

HERE = Path(__file__).parent
STATE = Path("outputs/representations")
MEASURED = HERE / "results"
Figures = dict[str, float]


def place(state: Path, key: str) -> Path:
    """The folder of the run that `results` knows as `key`."""
    return state / key.replace(" | ", "_").replace(" ", "_")


def finish(folder: Path, typed: Sequence[str]) -> Figures:
    """A run in a process of its own on one thread, or what is left of it, and its figures."""
    if not (folder / "metrics.json").exists():
        if any(folder.glob("checkpoints/step_*.safetensors")):
            typed = [f"run.resume={folder}"]
        else:
            shutil.rmtree(folder, ignore_errors=True)
            typed = [f"hydra.run.dir={folder}", "logger=none", *typed]
        one = {"OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        subprocess.run([sys.executable, "-m", "diffusion3d.run", *typed], env=os.environ | one, check=True)
    record = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in record.items() if isinstance(value, int | float)}


def read(path: Path) -> dict[str, Any]:
    """What is measured so far, by "representation | object"."""
    return json.loads(path.read_text()) if path.exists() else {}


def keep(path: Path, begun: Mapping[Future[Figures], str], state: Path) -> None:
    """Add figures to what is measured, and the commits that the runs in `state` are of, as they come."""
    results, made = read(path), versions()
    print(f"{len(begun)} runs to do; {path} has {sum(' | ' in key for key in results)} figures", flush=True)
    commits = results.setdefault("commits", {})
    path.parent.mkdir(parents=True, exist_ok=True)
    for done in as_completed(begun):
        results[begun[done]] = done.result()
        commits[begun[done]] = json.loads((place(state, begun[done]) / "versions.json").read_text())["git"]
        write_json(path, {**results, "versions": made})
        print(begun[done], {name: round(value, 3) for name, value in done.result().items()}, flush=True)


def grouped(results: Mapping[str, Any]) -> dict[tuple[str, str], list[Figures]]:
    """The figures of all objects of a kind (toybox or mesh), by representation and kind."""
    groups: dict[tuple[str, str], list[Figures]] = defaultdict(list)
    for key, figures in results.items():
        if " | " in key:
            name, thing = key.split(" | ")
            groups[name, thing.split()[0]].append(figures)
    return dict(sorted(groups.items()))


def head(cells: Iterable[str]) -> list[str]:
    """The two lines that begin a table."""
    names = list(cells)
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def means(found: Sequence[Figures], keys: Iterable[str]) -> str:
    """Cells of a row; empty where a figure is not there."""
    return " | ".join(f"{mean(f[key] for f in found):.4g}" if all(key in f for f in found) else "" for key in keys)


def signed(script: str, results: Mapping[str, Any]) -> list[str]:
    """The lines above a table: what wrote it, and on what machine."""
    made = results["versions"]
    machine = f"{made['cpu']}, {made['cores']} cores, torch {made['packages']['torch']}"
    return [f"Written by `{script} --table`; {machine}.", ""]


def names(text: str) -> list[str]:
    """Of an option: what is between the commas."""
    return text.split(",")


class Arguments(argparse.ArgumentParser):
    """Refuses trials among the figures that are published."""

    def parse_args(self, *arguments: Any, **more: Any) -> Any:
        given = super().parse_args(*arguments, **more)
        published = given.results.resolve() == MEASURED.resolve()
        if given.overrides and (published or given.state.resolve() == STATE.resolve()):
            self.error("overrides make a trial: give it a --results and a --state folder of its own")
        if given.table and not published:
            self.error("--table writes the published page, from the published figures: leave --results out")
        return given


def arguments(description: str | None, page: str) -> argparse.ArgumentParser:
    """The options of all scripts."""
    parser = Arguments(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overrides", nargs="*", help="key=value for every run, such as task.steps=2 in a trial")
    parser.add_argument("--only", type=names, help="representations, separated by commas")
    parser.add_argument("--state", type=Path, default=STATE, help="where the runs are kept")
    parser.add_argument(
        "--results", type=Path, default=MEASURED, help="where figures are kept; what is there is not run again"
    )
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, on one thread each")
    parser.add_argument("--table", action="store_true", help=f"write {page} from the results")
    return parser
