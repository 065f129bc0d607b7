"""Which config keys differ between runs."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from diffusion3d.checks import find
from diffusion3d.comparison.runs import FoundRun
from diffusion3d.comparison.texts import clean
from diffusion3d.naming import INCIDENTAL

SKIPPED = re.compile(rf"{INCIDENTAL}|hydra|paths")
"""They say where and how a run was made, not what it made."""
DECLARATIONS = ("uses", "provides", "needs")

Value = str | int | float | bool | None


def differing(runs: Sequence[FoundRun]) -> tuple[dict[str, bool], list[dict[str, Value]]]:
    """The keys that have at least two values among the runs that have the key, and the runs' values of them.

    The own key of a group or of what has a class, such as `guidance`, has the choice that was typed, or the name of the class.

    Returns:
        {key: whether it was typed for some run}, the prompt first, then what was typed; for every run {key: value}.
    """
    typed = {key for run in runs for key in run.overrides}
    every = [dict(_values(run.config, typed)) for run in runs]
    _name_choices(runs, every)
    seen: dict[str, set[str]] = {}
    for values in every:
        for key, value in values.items():
            seen.setdefault(key, set()).add(json.dumps(value))
    keys = [key for key, found in seen.items() if len(found) > 1]
    keys.sort(key=lambda key: (key != "prompt", key not in typed))
    shown = [{clean(key): _shown(values[key], key) for key in keys if key in values} for values in every]
    return {clean(key): key in typed for key in keys}, shown


def _values(node: Mapping[str, Any], typed: Collection[str], prefix: str = "") -> Iterator[tuple[str, Value]]:
    for name, value in node.items():
        key = f"{prefix}{name}"
        if SKIPPED.fullmatch(key) or name in DECLARATIONS or name == "_target_":
            continue
        if isinstance(value, Mapping):
            if "_target_" in value or key in typed:
                yield key, str(value.get("_target_", "default")).rpartition(".")[2]
            yield from _values(value, typed, f"{key}.")
        elif value is None or isinstance(value, str | int | float):
            yield key, value
        else:
            yield key, json.dumps(value, default=str)


def _name_choices(runs: Sequence[FoundRun], every: Sequence[dict[str, Value]]) -> None:
    """Replace names of classes by the choices that were typed; where none was, by the only one others typed for that class."""
    choices: dict[tuple[str, Value], set[str]] = {}
    groups = [{key for key in run.overrides if isinstance(find(run.config, key), Mapping)} for run in runs]
    for run, values, own in zip(runs, every, groups, strict=True):
        for key in own:
            if find(run.config, f"{key}._target_"):
                choices.setdefault((key, values.get(key)), set()).add(run.overrides[key])
    for run, values, own in zip(runs, every, groups, strict=True):
        for key, value in values.items():
            named = {run.overrides[key]} if key in own else choices.get((key, value), set())
            if len(named) == 1:
                values[key] = next(iter(named))


def _shown(value: Value, key: str) -> Value:
    return clean(value, key) if isinstance(value, str) else value
