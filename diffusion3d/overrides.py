"""What the user types, brought into Hydra's grammar: literal text, `run=DIR`, resuming. Imports no torch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Quote, QuotedString
from hydra.errors import HydraException
from omegaconf import OmegaConf

from diffusion3d.errors import UserError
from diffusion3d.files import write_text
from diffusion3d.naming import INCIDENTAL

HARMLESS = re.compile(rf"{INCIDENTAL}|task\.(steps|minutes|video_size)|hydra\..*")
"""Keys that may be typed beside `run.resume`: they leave the steps already done as they are."""

TYPED_AGAIN = ("run.trust=[]", "viewer.enabled=false", "viewer.host=127.0.0.1")
"""What a resumed run has unless it was typed beside `run.resume`: no run directory, nor configs that it leads to, may give
itself trust or open a port."""

SECRET_NAME = re.compile(r"key|token|secret|passw", re.IGNORECASE)


def secrets() -> dict[str, str]:
    """{name: value} of the environment variables whose names say that they hold a secret, of 8 characters and more."""
    return {name: value for name, value in os.environ.items() if SECRET_NAME.search(name) and len(value) >= 8}


def escape(text: str) -> str:
    """The text with its `${` escaped, so that OmegaConf takes it literally.

    >>> print(escape("${HOME}"))
    \\${HOME}
    """
    return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)


def quote(text: str) -> str:
    """The text in single quotes, as Hydra's override grammar wants it: every character stands for itself.

    >>> print(quote("it's"))
    'it\\'s'
    """
    return QuotedString(text, Quote.single).with_quotes()


def to_hydra(typed: Sequence[str], multirun: bool = False) -> list[str]:
    """The overrides in Hydra's grammar.

    All after `prompt=` is literal; in a multirun commas separate prompts and quotes around a prompt protect its commas.
    `run=DIR` is short for `run.source=DIR`. These two, `run.resume`, `paths.*` and `hydra.run.dir` may hold any character.
    `viewer=true` is short for `viewer.enabled=true`.

    Raises:
        UserError: an argument is not `key=value`, not valid text, or holds a secret, which would be saved with the run.
    """
    overrides = []
    for argument in typed:
        key, equals, value = argument.partition("=")
        name = key.lstrip("+")
        if not (equals and name.partition("@")[0]) and not key.startswith("~"):
            raise UserError(
                f'{argument!r} is not of the form key=value; quote values that hold blanks: prompt="a castle"'
            )
        if not _is_text(argument):
            raise UserError(f"{argument!r} is not valid UTF-8 text")
        for variable, secret in secrets().items():
            if secret in argument:
                raise UserError(
                    f"an override holds the value of {variable}, and overrides are saved with a run: "
                    f"type '${{oc.env:{variable}}}' in its place, in single quotes"
                )
        if name == "prompt":
            texts = split_prompts(value) if multirun else [value]
            overrides.append(f"{key}={','.join(quote(escape(text)) for text in texts)}")
        elif name in ("run", "run.source", "run.resume"):
            key = key.removesuffix("run") + "run.source" if name == "run" else key
            literal = value == "null" or multirun
            overrides.append(f"{key}={value if literal else quote(escape(_absolute(value)))}")
        elif name == "viewer":
            overrides.append(f"{key}.enabled={value}")
        elif (
            name.startswith(("paths.", "hydra.run.dir", "hydra.sweep.dir"))
            and not multirun
            and value != "null"
            and value[:1] not in ("'", '"')
        ):
            overrides.append(f"{key}={quote(os.path.expanduser(value))}")
        else:
            overrides.append(argument)
    return overrides


def split_prompts(text: str) -> list[str]:
    """The prompts of a multirun: separated by commas; one in quotes may hold commas.

    >>> split_prompts("castle, 'a corgi, standing',it's")
    ['castle', 'a corgi, standing', "it's"]
    """
    piece = re.compile(
        r"""\s*(?:(?P<q>['"])(?P<quoted>(?:(?!(?P=q)\s*(?:,|\Z)).)*)(?P=q)|(?P<bare>[^,]*?))\s*(?:,|\Z)""", re.DOTALL
    )
    prompts, position = [], 0
    while position <= len(text):
        match = piece.match(text, position)
        assert match is not None
        prompts.append(match["bare"] if match["quoted"] is None else match["quoted"])
        if match.end() == len(text) and not text[match.start() : match.end()].endswith(","):
            break
        position = match.end()
    return prompts


def key_of(override: str) -> str:
    """The key of an override, without what Hydra puts around it.

    >>> key_of("+task.steps=3"), key_of("~terms.size"), key_of("prior@teacher=ddpm")
    ('task.steps', 'terms.size', 'prior')
    """
    return re.split(r"[=@]", override.lstrip("+~"), maxsplit=1)[0]


def swept_keys(overrides: Sequence[str]) -> list[str]:
    """The keys that a multirun varies."""
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    return [override.key_or_group for override in parsed if override.is_sweep_override()]


def value_of(override: str) -> Any:
    """The value of an override in Hydra's grammar, as a reader of the config gets it.

    >>> value_of("task.steps=3"), value_of("prompt='it\\'s'"), value_of("guidance=vsd")
    (3, "it's", 'vsd')
    """
    parsed = OverridesParser.create().parse_override(override)
    return OmegaConf.create({"value": parsed.value()}).value if parsed.value_type is not None else None


def resume_directory(overrides: Sequence[str]) -> Path | None:
    """The directory of `run.resume=DIR` among overrides in Hydra's grammar; None without one."""
    found = [override for override in overrides if key_of(override) == "run.resume"]
    value = value_of(found[-1]) if found else None
    return None if value is None else Path(str(value))


def resumed(directory: Path, overrides: Sequence[str]) -> list[str]:
    """The overrides of a run that is to be continued, with what was typed beside `run.resume`.

    Raises:
        UserError: the directory holds no run, its configs come from a package and nothing typed says that this may be
            imported, or something was typed that would change what it computes.
    """
    refused = [key_of(override) for override in overrides if not HARMLESS.fullmatch(key_of(override))]
    if refused:
        raise UserError(
            f"run.resume continues a run as it was started, so {', '.join(refused)} cannot be changed; "
            "beside it only task.steps, task.minutes, task.video_size, logger, viewer, tags, run.trust, run.debug, "
            "run.dry_run and hydra.* may be given"
        )
    saved = load_overrides(directory)
    typed = {key_of(override) for override in overrides}
    kept = [override for override in (*saved, *TYPED_AGAIN) if key_of(override) not in typed]
    if typing := importing(kept):
        raise UserError(
            f"{directory} takes configs from more than folders, and to look there imports it; if you trust it, add "
            f"{' '.join(typing)}"
        )
    return [*kept, *overrides, f"hydra.run.dir={quote(escape(str(directory)))}"]


def save_overrides(overrides: Sequence[str], path: Path) -> None:
    """Write what reproduces a run: its overrides but those that say where it runs, who watches it and what is trusted."""
    write_text(path, yaml.safe_dump(_reproducing(overrides), allow_unicode=True, width=10**6))


def load_overrides(directory: Path) -> list[str]:
    """The overrides a run directory was started with.

    Raises:
        UserError: there are none to read.
    """
    path = directory / "overrides.yaml"
    try:
        content: Any = yaml.safe_load(path.read_text(encoding="utf-8"))
        if not isinstance(content, list):
            raise TypeError
        return _reproducing(content)
    except OSError as error:
        raise UserError(f"{directory} is not a run directory: cannot read {path.name} ({error.strerror})") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError, HydraException):
        raise UserError(f"{path} is damaged: it should be a list of overrides") from None


def _reproducing(overrides: Sequence[str]) -> list[str]:
    """Without what concerns the run itself, viewer and Hydra; but with run.source and hydra.searchpath."""
    keys = [parsed.key_or_group for parsed in OverridesParser.create().parse_overrides(list(overrides))]
    return [
        override
        for override, key in zip(overrides, keys, strict=True)
        if key in ("run.source", "hydra.searchpath") or not re.match(r"(run|viewer|hydra)\b", key)
    ]


def importing(overrides: Sequence[str]) -> list[str]:
    """Those that let configs be found in packages, which are imported for that."""
    places = [override.lstrip("+") for override in overrides if key_of(override) == "hydra.searchpath"]
    return [override for override in places if not _leads_to_folders(override)]


def _leads_to_folders(searchpath: str) -> bool:
    """Whether all that an override of hydra.searchpath names are folders: nothing is imported to look into them."""
    places: Any = OverridesParser.create().parse_override(searchpath).value()
    return all(
        str(place).startswith("file://") or not re.search(r"://|\$\{", str(place))
        for place in (places if isinstance(places, list) else [places])
    )


def _is_text(argument: str) -> bool:
    try:
        argument.encode()
    except UnicodeEncodeError:
        return False
    return True


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))
