"""Multiruns, and what Hydra can show instead of running (`--help`, `--cfg`, ...)."""

from __future__ import annotations

import logging
import re
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import hydra
from filelock import Timeout
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra._internal.hydra import Hydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf

from diffusion3d.config import CONF_DIR, check, compose, explained, hydra_app
from diffusion3d.errors import RunError, UserError
from diffusion3d.naming import INCIDENTAL, short_hash
from diffusion3d.overrides import escape, key_of, quote, swept_keys, to_hydra
from diffusion3d.plan import show_plan
from diffusion3d.sweeps import TABLE, read_jobs, write_table

log = logging.getLogger(__name__)

SAME_SWEEP = re.compile(rf"{INCIDENTAL}|hydra[/.]launcher.*")
"""Keys that leave a sweep the same: its directory is named by the others."""

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
    """Run the jobs of a multirun that are not done yet; when one fails the rest goes on.

    Args:
        overrides: as typed; commas separate values.
        job: runs one composed config in the directory of its own.

    Raises:
        UserError: the overrides are wrong.
        RunError: some jobs failed; a line for each was logged.
    """
    logging.getLogger("diffusion3d").setLevel(logging.INFO)
    given = to_hydra(overrides, multirun=True)
    keys = [key_of(override) for override in given]
    if "run.resume" in keys:
        raise UserError("run.resume continues one run; leave -m out: a sweep that is repeated continues its jobs")
    if "hydra.sweep.dir" not in keys:
        same = sorted((override for override in given if not SAME_SWEEP.fullmatch(key_of(override))), key=key_of)
        given.append(f"hydra.sweep.dir=${{paths.output}}/sweep_{short_hash(same)}")
    with hydra_app() as app, explained(app, given):
        swept = swept_keys(given)
        fixed = ",".join(f"'{key}'" for key in dict.fromkeys(keys) if key not in swept)
        given += ["hydra.mode=MULTIRUN", f"hydra.job.config.override_dirname.exclude_keys=[{fixed}]"]
        config = compose(app, given, multirun=True)
        searching = "direction" in config.hydra.sweeper
        if searching and config.task.get("score") is None:
            choice = config.hydra.runtime.choices.task
            raise UserError(f"task={choice} has no score to search by; name one of its metrics: +task.score=...")
        if searching and not (swept or config.hydra.sweeper.params):
            raise UserError(
                "hydra/sweeper=search has nothing to search: give keys their ranges, 'guidance.scale=interval(3,30)'"
            )
        if searching and config.run.dry_run:
            raise UserError("run.dry_run=true plans single runs and grids; a search chooses its jobs as it goes")
        if config.run.dry_run:
            _show_plans(app, config, given)
            return
        directory = Path(config.hydra.sweep.dir).absolute()
        given.append(f"hydra.sweep.dir={quote(escape(str(directory)))}")
        before = {found.directory: found.stamp for found in read_jobs(directory)}
        stopped: BaseException | None = None
        try:
            app.multirun("config", job, given)
        except BaseException as error:
            stopped = error
        failed, total = _report(directory, before, whole=stopped is None)
        unwritten = _write_table(directory)
        results = directory / "optimization_results.yaml"
        if searching and stopped is None and results.exists():
            best: Any = OmegaConf.to_container(OmegaConf.load(results))
            found = " ".join(f"{key}={value}" for key, value in best["best_params"].items())
            log.info("best: %s, task.score=%s is %s: %s", found, config.task.score, best["best_value"], results)
        if failed and (searching or stopped is None) and not isinstance(stopped, KeyboardInterrupt):
            raise RunError(f"{failed} of {total} jobs failed") from stopped
        if stopped is not None:
            raise stopped
        if unwritten is not None:
            raise unwritten


def _report(directory: Path, before: Mapping[Path, int], whole: bool) -> tuple[int, int]:
    """Log what came of a sweep; (jobs that failed since `before`, all jobs)."""
    jobs = read_jobs(directory)
    failed = [found for found in jobs if found.status == "failed" and found.stamp != before.get(found.directory)]
    for found in failed:
        log.error("failed: %s: %s", found.directory.name, found.error)
    if not jobs:
        return 0, 0
    counts = Counter(found.status for found in jobs)
    advice = "" if whole and not counts["cut"] else "; the same command goes on with the rest"
    log.info("%s in %s%s", ", ".join(f"{n} {status}" for status, n in counts.items()), directory / TABLE, advice)
    return len(failed), len(jobs)


def _write_table(directory: Path) -> RunError | None:
    """Write the table of a sweep's jobs; the error, logged, that hinders it."""
    try:
        if read_jobs(directory):
            write_table(directory)
    except (OSError, Timeout) as error:
        why = "other processes keep it locked" if isinstance(error, Timeout) else error.strerror
        unwritten = RunError(f"cannot write {directory / TABLE}: {why}; the same command writes it, and repeats no job")
        log.error(unwritten)
        return unwritten
    return None


def _show_plans(app: Hydra, config: DictConfig, given: Sequence[str]) -> None:
    """Print the plans of all jobs of a grid."""
    params = [f"{key}={value}" for key, value in (config.hydra.sweeper.get("params") or {}).items()]
    parsed = OverridesParser.create().parse_overrides([*params, *config.hydra.overrides.task])
    [jobs] = BasicSweeper.split_arguments(parsed, None)
    own = [override for override in given if key_of(override).startswith("hydra")]
    for number, overrides in enumerate(jobs):
        job = compose(app, [*own, *overrides], multirun=True)
        check(app, job, job.hydra)
        print(f"--- job {number + 1} of {len(jobs)}")
        show_plan(job, job.hydra, Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir)


def show(typed: Sequence[str], job: Callable[[DictConfig], Any]) -> None:
    """Let Hydra's own command line answer."""
    overrides = [argument for argument in typed if "=" in argument and not argument.startswith("-")]
    sys.argv[1:] = [argument for argument in typed if argument not in overrides] + to_hydra(overrides)
    with hydra_app() as app:  # registers the resolvers, too
        if {"-c", "--cfg"} & set(typed):
            compose(app, to_hydra(overrides))  # says in one line what is wrong
    hydra.main(version_base="1.3", config_path=str(CONF_DIR), config_name="config")(job)()
