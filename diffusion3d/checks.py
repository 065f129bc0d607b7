"""Checks of a composed config: unknown keys, types, allowed values, capabilities. Imports no torch."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

from diffusion3d.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")
ALLOWED = {
    "device": ("auto", "cpu", "cuda", "mps"),
    **dict.fromkeys(("precision", "prior.precision", "prior.vae_precision"), PRECISIONS),
}
"""Values, where such a key exists."""
RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, 2**63 - 1),
    "task.steps": (1, math.inf),
    "task.minutes": (0, math.inf),
    "task.lr": (0, math.inf),
    "task.betas": (0, 0.999999),
    "task.weight_decay": (0, math.inf),
    "task.clip": (0, math.inf),
    "task.warmup": (0, math.inf),
    "task.decay": (0, 1),
    "task.ema": (0, 1),
    "task.even_views": (0, 1),
    "task.batches.scenes": (1, math.inf),
    "task.batches.views": (1, math.inf),
    "task.batches.share": (0, math.inf),
    "task.validation_batches": (1, math.inf),
    "task.checkpoint_every": (1, math.inf),
    "task.preview_every": (1, math.inf),
    "task.fps": (1, math.inf),
    "task.size": (2, math.inf),
    "task.video_size": (2, math.inf),
    "task.frames": (1, math.inf),
    "task.count": (1, math.inf),
    "task.views": (1, math.inf),
    "task.scene": (0, math.inf),
    "task.scenes": (1, math.inf),
    "task.pixels": (1, math.inf),
    "task.resolution": (8, math.inf),
    "task.scale": (0, math.inf),
    "task.rescale": (0, 1),
    "task.truncation": (1, math.inf),
    "task.smooth": (0, math.inf),
    "task.parts": (0, 1),
    "task.faces": (4, math.inf),
    "task.texture": (16, math.inf),
    "camera.size": (1, math.inf),
    "camera.views": (1, math.inf),
    "camera.turntable_frames": (1, math.inf),
    "prior.image_size": (1, math.inf),
    "prior.num_timesteps": (2, math.inf),
    "prior.network.patch": (1, math.inf),
    "prior.network.channels": (1, math.inf),
    "prior.network.blocks": (1, math.inf),
    "prior.network.attention": (0, math.inf),
    "prior.text.max_length": (1, math.inf),
    "objective.level_std": (0, math.inf),
    "objective.text_dropout": (0, 1),
    "objective.text_noise": (0, math.inf),
    "objective.clean_view": (0, 1),
    "objective.scales.side": (1, math.inf),
    "objective.scales.weight": (0, math.inf),
    "objective.weight_cap": (0, math.inf),
    "objective.worded": (0, 1),
    "objective.phrases": (0, math.inf),
    "objective.mse": (0, math.inf),
    "objective.edges": (0, math.inf),
    "objective.kl": (0, math.inf),
    "objective.crop": (1, math.inf),
    "guidance.scale": (0, math.inf),
    "guidance.rescale": (0, 1),
    "guidance.low": (0, 1),
    "guidance.learner.lr": (0, math.inf),
    "guidance.learner.snr_cap": (0, math.inf),
    "sampler.eta": (0, 1),
    "representation.learning_rates.*": (0, math.inf),
    "terms.*.limit": (0, math.inf),
    "logger.*.finish_seconds": (0, math.inf),
    "viewer.port": (0, 65535),
    "viewer.every": (1, math.inf),
}
"""Lowest and highest value of numbers, also of those in a list or a schedule, where such a key exists (* is any); null is left
alone. The classes know the ranges of what is theirs alone."""
FILLED = ("task.batches", "prior.network.channels")
"""Lists that may not be empty."""
FOLDERS = ("paths.output", "paths.data")
"""Text that may not be null."""
LENGTHS = {"task.elevation": 2, "camera.elevation": 2, "task.background": 3, "task.betas": 2}
"""Of lists, where such a key exists."""
SCHEDULE_KEYS = {"from", "to", "start", "end"}


def leaves(node: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    """The dotted keys of all values of a nested mapping, and of the mappings inside."""
    for key, value in node.items():
        yield f"{prefix}{key}"
        if isinstance(value, Mapping):
            yield from leaves(value, f"{prefix}{key}.")


def unknown_key(key: str, known: Collection[str]) -> UserError:
    """The error for a key that does not exist, with the nearest ones that do."""
    last = key.rpartition(".")[2]
    same_end = [name for name in known if name.rpartition(".")[2] == last]
    near = difflib.get_close_matches(key, known, n=2, cutoff=0.7) or difflib.get_close_matches(
        key, known, n=1, cutoff=0.5
    )
    suggestions = list(dict.fromkeys([*same_end[:3], *near]))
    advice = (
        f"did you mean {' or '.join(suggestions)}?" if suggestions else "--help lists the groups, --cfg job all keys"
    )
    return UserError(f"there is no {key} in the config; {advice}")


def check_values(defaults: Mapping[str, Any], config: Mapping[str, Any], added: Collection[str] = ()) -> None:
    """Compare a config with the one that the same choices give without overrides and experiments.

    Args:
        defaults: unresolved plain dicts.
        config: likewise.
        added: keys that the user added on purpose (`+key=value`).

    Raises:
        UserError: a key that the defaults do not have or the config lacks, or a value of another type.
    """
    known = list(leaves(defaults))
    _compare(defaults, config, "", added, known)
    for key in ALLOWED.keys() & set(leaves(config)):
        value, allowed = find(config, key), ALLOWED[key]
        if value not in allowed and not _interpolated(value):
            raise UserError(f"{key}={_show(value)} is not one of {', '.join(allowed)}")
    for pattern, (low, high) in RANGES.items():
        limits = f"at least {low}" if high == math.inf else f"in {low} ... {high}"
        for key, value in _numbers(config, pattern.split(".")):
            if not (_is_number(value) and low <= value <= high):
                raise UserError(f"{key}={_show(value)} must be a number, {limits}")
        value = find(config, pattern)
        if isinstance(value, list) and not isinstance(find(defaults, pattern), list):
            raise UserError(f"{pattern}={_show(value)} must be one number, {limits}")
    for key in FILLED:
        if find(config, key) == []:
            raise UserError(f"{key}=[] is empty; leave it out for the default")
    for key in FOLDERS:
        if key in known and find(config, key) is None:
            raise UserError(f"{key}=null is no folder; leave it out for {find(defaults, key)}")
    for key, length in LENGTHS.items():
        value = find(config, key)
        if isinstance(value, list) and len(value) != length:
            raise UserError(f"{key}={_show(value)} must be a list of {length} numbers")
    for key, value in scalars(config):
        if isinstance(value, float) and math.isnan(value):
            raise UserError(f"{key}=nan is not a number; give one, or leave it out for the default")


def find(config: Mapping[str, Any], dotted: str) -> Any:
    """The value of a dotted key of nested mappings, None where there is none."""
    node: Any = config
    for part in dotted.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _numbers(node: Any, path: Sequence[str], name: str = "") -> Iterator[tuple[str, Any]]:
    """What stands at a path of keys, with its key; every member of a list and both ends of a schedule."""
    if isinstance(node, list):
        for item in node:
            yield from _numbers(item, path, name)
    elif path:
        first, *rest = path
        for key in node if isinstance(node, Mapping) else ():
            if first in (key, "*"):
                yield from _numbers(node[key], rest, f"{name}.{key}" if name else key)
    elif _is_schedule(node):
        yield from ((name, node[end]) for end in ("from", "to"))
    elif node is not None and not _interpolated(node):
        yield name, node


def scalars(node: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """All that is neither a mapping nor a list, with its key."""
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from scalars(value, f"{name}.{key}" if name else str(key))
    elif isinstance(node, list):
        for item in node:
            yield from scalars(item, name)
    else:
        yield name, node


def _compare(
    defaults: Mapping[str, Any], config: Mapping[str, Any], prefix: str, added: Collection[str], known: list[str]
) -> None:
    replaced = config.get("_target_") != defaults.get("_target_")
    for key, value in config.items():
        name = f"{prefix}{key}"
        if key in defaults:
            _check_type(defaults[key], value, name, added, known)
        elif not (replaced or name in added or (isinstance(value, Mapping) and "_target_" in value)):
            raise unknown_key(name, known)
    for key, default in defaults.items():
        member = prefix and "_target_" not in defaults and isinstance(default, Mapping) and "_target_" in default
        if key not in config and not (replaced or member or "[" in prefix):
            raise UserError(f"~{prefix}{key} takes away what is needed; set it instead: {prefix}{key}=...")


def _check_type(default: Any, value: Any, name: str, added: Collection[str], known: list[str]) -> None:
    if isinstance(default, Mapping) and isinstance(value, Mapping) and default and not _is_schedule(default):
        _compare(default, value, f"{name}.", added, known)
    elif isinstance(default, list) and isinstance(value, list):
        if len({type(item) for item in default}) == 1:
            for i, item in enumerate(value):
                _check_type(default[0], item, f"{name}[{i}]", added, known)
    elif not _fits(default, value):
        if _kind(default) == "an integer" and isinstance(value, float) and value.is_integer():
            raise UserError(f"{name}={value} must be an integer: {name}={int(value)}")
        raise UserError(
            f"{name}={_show(value)} is {_kind(value)}; it must be {_kind(default)}, such as {_show(default)}"
        )


def _fits(default: Any, value: Any) -> bool:
    """Whether a value may stand where the default does; two plain mappings or two lists are compared elsewhere."""
    if default is None or default == "???" or _interpolated(default) or _interpolated(value):
        return True
    if _is_number(default) or _is_schedule(default):
        integer = isinstance(default, int)
        return _is_schedule(value) or (_is_number(value) and (isinstance(value, int) or not integer))
    if isinstance(default, Mapping):
        return value is None or not default
    return type(value) is type(default) or (isinstance(default, str) and value is None)


def _interpolated(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_schedule(value: Any) -> bool:
    if not (isinstance(value, Mapping) and {"from", "to"} <= set(value) <= SCHEDULE_KEYS):
        return False
    return all(_is_number(part) or _interpolated(part) for part in value.values())


def _kind(value: Any) -> str:
    if isinstance(value, Mapping):
        return "a mapping"
    names = {
        bool: "true or false",
        int: "an integer",
        float: "a number",
        str: "text",
        list: "a list",
        type(None): "null",
    }
    return names.get(type(value), type(value).__name__)


def _show(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(value) + "}"
    text = {True: "true", False: "false"}[value] if isinstance(value, bool) else "null" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_capabilities(
    config: Mapping[str, Any],
    choices: Mapping[str, str | None],
    providers: Callable[[str, list[str]], list[str]],
) -> None:
    """Compare what the choices of a run need with what they provide.

    The task's `uses` names the groups that take part. A prompt that is not blank provides "prompt", `run=DIR` provides "run".
    `viewer=true` needs a task that provides "watch".

    Args:
        config: the composed config.
        choices: {group: chosen file}.
        providers: (capability, groups) -> the choices that provide it, as "group=choice".

    Raises:
        UserError: names the missing capability, who needs it and which choices provide it.
    """
    groups = [group for group in ["task", *config["task"].get("uses", [])] if config.get(group)]
    provided = {capability for group in groups for capability in config[group].get("provides", [])}
    if str(config["prompt"]).strip():
        provided.add("prompt")
    if config["run"]["source"] is not None:
        provided.add("run")
    for group in groups:
        for need in config[group].get("needs", []):
            if need in provided:
                continue
            who = f"{group}={choices.get(group)}"
            if need == "prompt":
                raise UserError(f'{who} needs a prompt and it is empty; give one, such as prompt="a castle"')
            if need == "run":
                raise UserError(f"{who} needs a finished run: add run=DIR, the directory that it printed at its end")
            others = [f"{other}={choices.get(other)}" for other in groups if other != group]
            able = providers(need, groups)
            advice = f"these provide it: {', '.join(able)}" if able else "no choice provides it"
            raise UserError(f"{who} needs '{need}', which {', '.join(others)} do not provide; {advice}")
    if find(config, "viewer.enabled") and "watch" not in config["task"].get("provides", []):
        raise UserError(
            f"viewer=true shows a scene while it is optimised, which task={choices.get('task')} does not do; these tasks do: "
            f"{', '.join(providers('watch', ['task']))}"
        )
