"""Composing, checking, saving and loading configs. Imports no torch."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra import initialize_config_dir
from hydra._internal.hydra import Hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import MissingConfigException, OverrideParseException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from diffusion3d.checks import check_capabilities, check_values, find, leaves, scalars, unknown_key
from diffusion3d.errors import UserError, one_line, unwritable
from diffusion3d.files import write_text
from diffusion3d.naming import INCIDENTAL, run_name, shaping, sweep_job_name
from diffusion3d.overrides import escape, key_of, secrets

PACKAGE = Path(__file__).resolve().parent
CONF_DIR = PACKAGE / "conf" if (PACKAGE / "conf").is_dir() else PACKAGE.parent / "conf"
INTERPOLATION = re.compile(r"(?<!\\)(\\\\)*\$\{")
"""One that is not escaped."""


@contextmanager
def hydra_app() -> Iterator[Hydra]:
    """Hydra, ready to compose this package's configs."""
    OmegaConf.register_new_resolver("run_name", _run_name, replace=True)
    OmegaConf.register_new_resolver("sweep_job_name", _sweep_job_name, replace=True)
    with initialize_config_dir(str(CONF_DIR), job_name="diffusion3d", version_base="1.3"):
        app = GlobalHydra.instance().hydra
        assert app is not None
        yield app


def compose(app: Hydra, overrides: Sequence[str], multirun: bool = False) -> DictConfig:
    """The config (its `hydra` node included) that overrides in Hydra's grammar give.

    Raises:
        UserError: they are wrong in a way that Hydra can tell; in one line.
    """
    with warnings.catch_warnings(record=True) as caught, explained(app, overrides):
        config = app.compose_config("config", list(overrides), RunMode.MULTIRUN if multirun else RunMode.RUN)
    for warning in caught:
        if "is not available" in str(warning.message):
            raise UserError(f"hydra.searchpath: {one_line(warning.message)}")
    return config


@contextmanager
def explained(app: Hydra, overrides: Sequence[str]) -> Iterator[None]:
    """Turns what Hydra raises on wrong overrides into a UserError of one line."""
    try:
        yield
    except UserError:
        raise
    except MissingConfigException as error:
        raise _unknown_choice(app, error) from error
    except OSError as error:
        raise unwritable(error, error.filename) from error
    except Exception as error:  # Hydra leaks TypeError and others on odd overrides
        raise _explain(app, overrides, error) from error


def check(app: Hydra, config: DictConfig, hydra: DictConfig) -> None:
    """Refuse a composed config that cannot work, before anything heavy is imported.

    Args:
        app: from `hydra_app`.
        config: composed, with or without its `hydra` node.
        hydra: that node.

    Raises:
        UserError: an unknown key, a value of the wrong type, a missing value, choices that do not fit together.
    """
    typed = given_overrides(hydra)
    choices = {g: c for g, c in hydra.runtime.choices.items() if not g.startswith(("hydra/", "experiment", "debug"))}
    several = [o for o in typed if key_of(o) == "logger" and "logger" not in choices]
    plain = (
        [o for o in typed if key_of(o) == "hydra.searchpath"]
        + several
        + [f"{g}={c or 'null'}" for g, c in choices.items()]
    )
    defaults = compose(app, plain)
    added = {key_of(override) for override in typed if override.startswith("+")}
    added |= {key.rsplit(".", n)[0] for key in added for n in range(1, key.count(".") + 1)}
    check_values(_raw(defaults, "hydra"), _raw(config, "hydra"), added)
    if config.run.source is not None:
        load_config(Path(config.run.source), config.run.trust)
    check_capabilities(resolved(config), choices, lambda need, groups: _providers(hydra, need, groups))


def given_overrides(hydra: DictConfig) -> list[str]:
    """The overrides, in Hydra's grammar, that a config was composed from."""
    return [*_raw(hydra.overrides.hydra), *_raw(hydra.overrides.task)]


def resolved(config: DictConfig) -> dict[str, Any]:
    """The config as plain dicts: without `hydra`, resolved, values of secret environment variables masked.

    Raises:
        UserError: a mandatory value is missing or an interpolation fails.
    """
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    try:
        content = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise UserError(f"{error.full_key} must be given: {error.full_key}=...") from None
    except OmegaConfBaseException as error:
        raise UserError(f"cannot resolve {error.full_key}: {one_line(error)}") from None
    return masked(content)


def masked(content: Any) -> Any:
    """Dicts and lists with "***" for the values of secret environment variables in their strings."""
    hidden = secrets().values()

    def mask(text: str) -> str:
        for secret in hidden:
            text = text.replace(secret, "***")
        return text

    return _map_strings(content, mask)


def save_config(content: Mapping[str, Any], path: Path) -> None:
    """Write a resolved config so that loading it gives the same values again."""
    write_text(path, OmegaConf.to_yaml(OmegaConf.create(_map_strings(content, escape))))


def load_config(directory: Path, trusted: Sequence[str] = ()) -> DictConfig:
    """The config of a run directory.

    Args:
        directory: of a run, maybe from elsewhere.
        trusted: modules whose classes its config may name besides this package's own.

    Raises:
        UserError: no such run, or its config is not resolved or names classes that are not trusted.
    """
    config = read_config(directory)
    for key, value in scalars(_raw(config)):
        if INTERPOLATION.search(str(value)):
            raise UserError(
                f"{directory / 'config.yaml'} holds an interpolation at {key}, which this package never writes: it is not safe"
            )
    check_targets(config, trusted)
    return config


def read_config(directory: Path) -> DictConfig:
    """The config of a run directory, to look at: nothing says yet that its classes may be made.

    Raises:
        UserError: no such run.
    """
    path = directory / "config.yaml"
    try:
        config = OmegaConf.load(path)
    except OSError as error:
        raise UserError(f"{directory} is not a run directory: cannot read config.yaml ({error.strerror})") from None
    except Exception as error:  # yaml's and OmegaConf's errors share no base
        raise UserError(f"{path} is damaged: {one_line(error)}") from None
    if not isinstance(config, DictConfig) or "task" not in config:
        raise UserError(f"{path} is damaged: it is not the config of a run")
    return config


def check_targets(config: DictConfig, trusted: Sequence[str] = ()) -> None:
    """Refuse a config from a run directory whose `_target_`s are neither named in this package's own configs nor in the
    trusted modules: any other name, though it begins with diffusion3d, may lead to whatever a module imports.

    Raises:
        UserError: names their modules.
    """
    modules = [module for module in foreign_modules(config) if module not in trusted]
    if modules:
        raise UserError(
            f"the run directory's config names things of {', '.join(modules)} that diffusion3d's own configs do not name; "
            f"if you trust them, add run.trust=[{','.join(modules)}] (diffusion3d.view: --trust {' --trust '.join(modules)})"
        )


def foreign_modules(config: DictConfig) -> list[str]:
    """The modules of what a config names and this package's own configs do not; Hydra's callbacks run, too."""

    def targets(node: Any) -> Iterator[str]:
        if isinstance(node, Mapping):
            if "_target_" in node:
                yield str(node["_target_"])
            for value in node.values():
                yield from targets(value)
        elif isinstance(node, list):
            for value in node:
                yield from targets(value)

    callbacks = OmegaConf.to_container(config.hydra.callbacks, resolve=True) if "hydra" in config else {}
    found = {*targets(resolved(config)), *targets(callbacks)} - _own_targets()
    return sorted({target.rpartition(".")[0] for target in found})


@functools.cache
def _own_targets() -> frozenset[str]:
    files = [path.read_text(encoding="utf-8") for path in CONF_DIR.rglob("*.yaml")]
    return frozenset(target for text in files for target in re.findall(r"_target_:\s*([\w.]+)", text))


def check_same(config: DictConfig, directory: Path) -> None:
    """Refuse to continue a run whose overrides give another config today than when it was started.

    Raises:
        UserError: names the first value that differs.
    """
    changed = difference(load_config(directory, config.run.trust), config, free=("steps", "minutes", "video_size"))
    if changed is not None:
        key, old, new = changed
        raise UserError(
            f"cannot continue {directory}: {key} was {old!r} when it was started and is {new!r} now; "
            "use the version of the package that versions.json names"
        )


def difference(saved: DictConfig, config: DictConfig, free: Sequence[str] = ()) -> tuple[str, Any, Any] | None:
    """What first sets two runs apart: (key, its value in a saved config, its value in a composed one), or None.

    Args:
        saved: of a run directory.
        config: composed.
        free: keys of the task that may differ, as may what shapes no result and the groups that the task does not use.
    """
    plain: Any = OmegaConf.to_container(saved, resolve=True)
    before, now = shaping(plain), shaping(resolved(config))
    for content in (before, now):
        for key in free:
            content["task"].pop(key, None)
        unused = set(content) - {"task", *content["task"].get("uses", [])}
        for key in [key for key in unused if isinstance(content[key], dict) and "provides" in content[key]]:
            content.pop(key)
    for key in dict.fromkeys([*leaves(before), *leaves(now)]):
        old, new = find(before, key), find(now, key)
        if old != new and not (isinstance(old, dict) and isinstance(new, dict)):
            return key, old, new
    return None


def _raw(config: Any, leave_out: str | None = None) -> Any:
    content = OmegaConf.to_container(config, resolve=False)
    if leave_out is not None and isinstance(content, dict):
        content.pop(leave_out, None)
    return content


def _map_strings(node: Any, function: Callable[[str], str]) -> Any:
    if isinstance(node, str):
        return function(node)
    if isinstance(node, Mapping):
        return {key: _map_strings(value, function) for key, value in node.items()}
    if isinstance(node, list):
        return [_map_strings(value, function) for value in node]
    return node


def _unknown_choice(app: Hydra, error: MissingConfigException) -> UserError:
    found = re.search(r"Could not (?:find|load) '(.+)/([^/']*)'", str(error))
    if found is None:
        return UserError(one_line(error).partition("Config search path:")[0])
    if found[1].startswith("hydra/"):
        return UserError(
            f"{found[1]}={found[2]} does not exist; choices: {_options(app, found[1])}; "
            "more come with: pip install 'diffusion3d[sweeps]'"
        )
    return UserError(
        f"{found[1]}={found[2]} does not exist; choices of {found[1]}: {_options(app, found[1]) or 'none'}"
    )


def _explain(app: Hydra, overrides: Sequence[str], error: Exception) -> UserError:
    """The one line for what Hydra refused: the first key that does not exist, else Hydra's own words."""
    groups = [group for group in app.config_loader.list_groups("") if not group.startswith("hydra")]
    given = [o for o in overrides if key_of(o) in groups or key_of(o) == "hydra.searchpath"]
    try:
        known = [*leaves(_raw(app.compose_config("config", given, RunMode.MULTIRUN), "hydra")), *groups]
    except Exception:  # the choices themselves are wrong: Hydra's words say it
        known = []
    for override in overrides:
        key = key_of(override)
        if known and key not in known and not override.startswith("+") and not key.startswith("hydra"):
            return unknown_key(key, known)
        if key in groups and re.search(r"=\s*([\[{]|null$)", override) and not override.startswith("logger=["):
            return UserError(f"{override} does not name one choice; choices of {key}: {_options(app, key)}")
    if isinstance(error, OverrideParseException):
        key, _, value = error.override.partition("=")
        return UserError(f"cannot read {error.override!r}; if it is text, quote it twice: {key}=\"'{value}'\"")
    plugin = re.search(r"hydra_plugins\.hydra_(joblib|submitit|ray|optuna)", str(error))
    if plugin is not None:
        extra = "ray" if plugin[1] == "ray" else "sweeps"
        return UserError(f"{plugin[1]} is not installed: pip install 'diffusion3d[{extra}]'")
    if "INTERVAL_SWEEP" in str(error):
        return UserError(
            "interval(...) is a range that a search draws from: add hydra/sweeper=search, or list values: KEY=1,2,3"
        )
    cause = f": {error.__cause__}" if error.__cause__ else ""
    return UserError(re.sub(r" See https://hydra\S+ for details", "", one_line(f"{error}{cause}")))


def _options(app: Hydra, group: str) -> str:
    return ", ".join(app.config_loader.get_group_options(group))


def _providers(hydra: DictConfig, need: str, groups: list[str]) -> list[str]:
    roots = [Path(source.path) for source in hydra.runtime.config_sources if source.schema == "file"]
    found = []
    for group in groups:
        for file in sorted({path for root in roots for path in (root / group).glob("*.yaml")}):
            if need in (_raw(OmegaConf.load(file)) or {}).get("provides", []):
                found.append(f"{group}={file.stem}")
    return found


def _run_name(*, _root_: DictConfig) -> str:
    return run_name(resolved(_root_), _root_.hydra.runtime.choices)


def swept_overrides(hydra: DictConfig) -> list[str]:
    """Those of a job's overrides that the other jobs of its sweep have with other values."""
    fixed = set(_raw(hydra.job.config.override_dirname.exclude_keys))
    return [override for override in _raw(hydra.overrides.task) if key_of(override) not in fixed]


def _sweep_job_name(*, _root_: DictConfig) -> str:
    others = [o for o in _raw(_root_.hydra.overrides.task) if not re.fullmatch(INCIDENTAL, key_of(o))]
    return sweep_job_name(swept_overrides(_root_.hydra) or others)
