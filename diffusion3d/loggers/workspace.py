"""A W&B workspace for a sweep: `python -m diffusion3d.loggers.workspace SWEEP_DIR`.

Its runs with the swept keys as columns, the table of prompts, variants and their media, and the curves.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffusion3d.config import read_config
from diffusion3d.errors import UserError, one_line
from diffusion3d.loggers.wandb import TABLE, column
from diffusion3d.sweeps import LAST_COLUMNS, Job, read_jobs

MEDIA = {
    "videos/rgb.mp4": "rgb",
    "videos/depth.mp4": "depth",
    "contact_sheet.png": "contact_sheet",
    "grid.png": "samples",
}
"""{file of a run: what it is logged as}."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns 0: done, 2: bad input."""
    parser = argparse.ArgumentParser(prog="python -m diffusion3d.loggers.workspace", description=__doc__)
    parser.add_argument("sweep", type=Path, help="a sweep's directory, whose jobs were logged by logger=wandb")
    parser.add_argument("--entity", help="user or team (default: logger.wandb.entity of the jobs, or the account's)")
    parser.add_argument("--save", action="store_true", help="save it in W&B and print its address, instead of its JSON")
    given = parser.parse_args(arguments)
    try:
        made = workspace(given.sweep, given.entity)
        if given.save:
            print(made.save().url)
        else:
            print(json.dumps(content(made), indent=2))
    except UserError as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return error.exit_code
    return 0


def workspace(sweep: Path, entity: str | None = None) -> Any:
    """The `wandb_workspaces.workspaces.Workspace` of a sweep, not saved.

    Raises:
        UserError: the directory holds no such sweep, wandb-workspaces is missing, or no entity is known.
    """
    jobs = read_jobs(sweep)
    if not jobs:
        raise UserError(f"{sweep} is not the directory of a sweep: it holds no jobs")
    logger = read_config(next((job.directory for job in jobs if job.status == "done"), jobs[0].directory)).logger
    if "wandb" not in logger:
        raise UserError(f"the jobs of {sweep} were not logged to W&B: run the sweep with logger=wandb")
    try:
        from wandb_workspaces import expr
        from wandb_workspaces import workspaces as ws
    except ImportError:
        raise UserError("wandb-workspaces is not installed: pip install 'diffusion3d[loggers]'") from None
    swept = list(dict.fromkeys(key for job in jobs for key in job.swept))
    shown = [name for name in _finals(jobs) if name in ("loss", *LAST_COLUMNS) or "/" in name]
    pinned = [f"config:{column(key)}" for key in swept] + [f"summary:final/{name}" for name in shown]
    return ws.Workspace(
        entity=entity or logger.wandb.entity or _default_entity(),
        project=logger.wandb.project,
        name=sweep.resolve().name,
        sections=_sections(jobs, swept, shown),
        runset_settings=ws.RunsetSettings(
            filters=[expr.Metric("Group") == sweep.resolve().name], pinned_columns=["run:displayName", *pinned]
        ),
    )


def content(made: Any) -> dict[str, Any]:
    """What saving a workspace would send."""
    plain: dict[str, Any] = json.loads(made._to_model().model_dump_json(by_alias=True, exclude_none=True))
    return plain


def _sections(jobs: Sequence[Job], swept: Sequence[str], shown: Sequence[str]) -> list[Any]:
    from wandb_workspaces import workspaces as ws
    from wandb_workspaces.reports import v2 as wr

    media = [name for file, name in MEDIA.items() if any((job.directory / file).exists() for job in jobs)]
    axes = [wr.Config(column(key)) for key in swept] + [wr.SummaryMetric(f"final/{name}") for name in shown]
    results: list[Any] = [
        wr.WeavePanelSummaryTable(table_name=TABLE),
        *([wr.MediaBrowser(title="media", media_keys=media)] if media else []),
        wr.ParallelCoordinatesPlot(columns=[wr.ParallelCoordinatesPlotColumn(metric=axis) for axis in axes]),
        *(wr.BarPlot(title=name, metrics=[f"final/{name}"]) for name in shown),
    ]
    curves: list[Any] = [wr.LinePlot(title=name, x="Step", y=[name]) for name in _curves(jobs)]
    return [
        ws.Section(name="Results", panels=results, is_open=True),
        ws.Section(name="Curves", panels=curves, is_open=True),
    ]


def _finals(jobs: Sequence[Job]) -> list[str]:
    return list(dict.fromkeys(name for job in jobs for name in job.metrics))


def _curves(jobs: Sequence[Job]) -> list[str]:
    """The columns of the jobs' metrics.csv."""
    names: dict[str, None] = {}
    for path in (job.directory / "metrics.csv" for job in jobs):
        if path.exists():
            with path.open(encoding="utf-8") as file:
                names.update(dict.fromkeys(file.readline().strip().split(",")[1:]))
    return list(names)


def _default_entity() -> str:
    import wandb

    try:
        return str(wandb.Api().default_entity)
    except Exception as error:  # wandb's errors share no base
        raise UserError(f"W&B does not tell the account's entity ({one_line(error)}); give --entity") from None


if __name__ == "__main__":
    sys.exit(main())
