"""The jobs of a sweep: each finished once, a cut one resumed, all in one table. Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import logging
import math
import os
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from omegaconf import DictConfig

from diffusion3d.config import check, difference, masked, read_config, swept_overrides
from diffusion3d.errors import RunError, UserError, describe, user_error
from diffusion3d.files import write_text
from diffusion3d.naming import numbered
from diffusion3d.overrides import key_of, value_of
from diffusion3d.tasks.run_dir import Locked, lock

log = logging.getLogger(__name__)

TABLE = "sweep.csv"
JOB = "job.json"
LAST_COLUMNS = ("seconds", "peak_memory_mb", "error")
LOCK_SECONDS = 20


@dataclass
class Outcome:
    """How a job ended: with its final metrics or with the error that stopped it.

    Attributes:
        score: the metric that a hyper-parameter search looks at.
    """

    metrics: dict[str, float] | None = None
    error: Exception | None = None
    score: str | None = None

    def result(self) -> dict[str, float]:
        """The metrics; raises the error."""
        if self.metrics is None:
            raise self.error or RunError("stopped")
        return self.metrics

    def __float__(self) -> float:
        """The score, for a search.

        Raises:
            UserError: there is none, or what stopped the job; a search goes on without it.
        """
        metrics = self.result()
        value = metrics.get(self.score or "")
        if value is None or not math.isfinite(value):
            raise UserError(f"task.score={self.score} is {value}; this job has {', '.join(metrics)}")
        return float(value)


@dataclass
class Job:
    """What a sweep directory tells of a job.

    Attributes:
        status: done, failed (an error stopped it), or cut (it is running, or was killed or stopped by a signal).
        swept: {key or group: value or choice}.
        stamp: when it was last begun or failed, in nanoseconds.
    """

    directory: Path
    number: int
    status: str
    swept: dict[str, Any]
    metrics: dict[str, float]
    error: str
    stamp: int


def run_sweep_job(
    config: DictConfig, hydra: DictConfig, work: Callable[[Path, Mapping[str, Any]], dict[str, float]]
) -> Outcome:
    """Do one job of a sweep, in any process, unless it is done already; enter it in the table.

    Args:
        config: composed, not yet checked.
        hydra: its `hydra` node.
        work: (directory, what the sweep varies) -> final metrics. Goes on with what the directory holds.
    """
    logging.getLogger("diffusion3d").setLevel(logging.INFO)
    if not hydra.job.chdir:
        with suppress(OSError):
            os.chdir(hydra.runtime.cwd)  # where a cluster started this process, relative paths lead elsewhere
    directory, score = Path(hydra.runtime.output_dir), config.task.get("score")
    swept = masked({key_of(override): value_of(override) for override in swept_overrides(hydra)})
    facts = {"number": hydra.job.num, "swept": swept, "error": ""}
    try:
        directory = _place(config, directory)
        with lock(directory):
            done = _read_json(directory / "metrics.json")
            if done is not None:
                log.info("done before: %s", directory)
                return Outcome(done, score=score)
            _write_json(directory / JOB, facts)
            _try_table(directory.parent)
            app = GlobalHydra.instance().hydra
            assert app is not None
            try:
                check(app, config, hydra)
                return Outcome(work(directory, swept), score=score)
            except Exception as error:
                with suppress(OSError):
                    _write_json(directory / JOB, {**facts, "error": describe(user_error(error))})
                raise
    except Exception as error:  # a failed job must not stop a sweep
        if isinstance(error, Locked):
            log.warning(error)
        line = describe(user_error(error))
        return Outcome(error=RunError(line), score=score)  # of any other class it might not reach another process
    finally:
        _try_table(directory.parent)


def read_jobs(sweep: Path) -> list[Job]:
    """The jobs of a sweep directory that were begun, in their order."""
    jobs = []
    for path in sweep.glob(f"*/{JOB}"):
        facts = _read_json(path)
        if facts is None:
            continue
        metrics = _read_json(path.parent / "metrics.json")
        status = "done" if metrics is not None else "failed" if facts["error"] else "cut"
        error = facts["error"] if status == "failed" else ""
        stamp = path.stat().st_mtime_ns
        jobs.append(Job(path.parent, facts["number"], status, facts["swept"], metrics or {}, error, stamp))
    return sorted(jobs, key=lambda job: (job.number, job.directory))


def write_table(sweep: Path) -> list[Job]:
    """Write sweep.csv, a row per job: directory, status, swept keys, final metrics, seconds, peak memory, error.

    Raises:
        OSError: it cannot be written.
        Timeout: other processes kept it locked.
    """
    with FileLock(sweep / ".lock", timeout=LOCK_SECONDS):
        jobs = read_jobs(sweep)
        keys = dict.fromkeys(key for job in jobs for key in job.swept)
        figures = dict.fromkeys(name for job in jobs for name in job.metrics if name not in LAST_COLUMNS)
        text = io.StringIO()
        table = csv.DictWriter(text, ["job", "status", *keys, *figures, *LAST_COLUMNS], restval="", lineterminator="\n")
        table.writeheader()
        for job in jobs:
            own = {"job": job.directory.name, "status": job.status, "error": job.error}
            table.writerow({**job.metrics, **job.swept, **own})
        write_text(sweep / TABLE, text.getvalue())
    return jobs


def _try_table(sweep: Path) -> None:
    with suppress(OSError, Timeout):  # it is written again when the next job ends
        write_table(sweep)


def _place(config: DictConfig, directory: Path) -> Path:
    """Where a job belongs: its directory, or the first of directory-2, … when that holds a run with another config."""
    for path in numbered(directory):
        if not (path / "config.yaml").exists():
            path.mkdir(parents=True, exist_ok=True)
            return path
        with suppress(UserError):  # damaged, so it is no job of ours
            if difference(read_config(path), config) is None:
                return path
    raise UserError(f"{directory} and 9,999 more of its name exist; clear some away")


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return content if isinstance(content, dict) else None


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    write_text(path, json.dumps(content, indent=2, default=str) + "\n")
