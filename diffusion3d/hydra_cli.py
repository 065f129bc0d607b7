"""Multiruns, and what Hydra can show instead of running (`--help`, `--cfg`, ...)."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
from omegaconf import DictConfig

from diffusion3d.config import CONF_DIR, compose, explained, hydra_app
from diffusion3d.errors import RunError, UserError, describe
from diffusion3d.naming import short_hash
from diffusion3d.overrides import key_of, swept_keys, to_hydra

log = logging.getLogger(__name__)

SHOW = {
    "-h",
    "--help",
    "--hydra-help",
    "--version",
    "-c",
    "--cfg",
    "--resolve",
    "-p",
    "--package",
    "-i",
    "--info",
    "-sc",
}
"""Flags that make Hydra show something instead of running."""


def sweep(overrides: Sequence[str], job: Callable[[DictConfig], Any]) -> None:
    """Run the jobs of a multirun; when one fails the rest goes on.

    Args:
        overrides: as typed; commas separate values.
        job: runs one composed config and returns an outcome with an `error`.

    Raises:
        UserError: the overrides are wrong.
        RunError: some jobs failed; a line for each was logged.
    """
    given = to_hydra(overrides, multirun=True)
    keys = [key_of(override) for override in given]
    if "run.resume" in keys:
        raise UserError("run.resume continues one run; leave -m out")
    if "hydra.sweep.dir" not in keys:
        given += [f"hydra.sweep.dir=${{paths.output}}/sweep_{short_hash(given)}"]
    given += ["hydra.mode=MULTIRUN"]
    with hydra_app() as app, explained(app, given):
        if "hydra.sweep.subdir" not in keys:
            given += [f"hydra.sweep.subdir=${{sweep_job_name:{','.join(swept_keys(given))}}}"]
        ended = [job for batch in app.multirun("config", job, given) or [] for job in batch]
    failed = [(" ".join(each.overrides or []), each.return_value.error) for each in ended]
    lines = [f"{name}: {describe(error)}" for name, error in failed if error is not None]
    for line in lines:
        log.error("failed: %s", line)
    if lines:
        raise RunError(f"{len(lines)} of {len(ended)} jobs failed")


def show(typed: Sequence[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra's own command line answer."""
    overrides = [argument for argument in typed if "=" in argument and not argument.startswith("-")]
    sys.argv[1:] = [argument for argument in typed if argument not in overrides] + to_hydra(overrides)
    with hydra_app() as app:  # registers the resolvers, too
        if {"-c", "--cfg"} & set(typed):
            compose(app, to_hydra(overrides))  # says in one line what is wrong
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(job)()
