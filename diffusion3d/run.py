"""Compose a config, check it, run its task: `python -m diffusion3d.run key=value ...` or `diffusion3d.run([...])`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import run_job
from hydra.types import HydraContext, RunMode
from omegaconf import DictConfig

from diffusion3d import processes
from diffusion3d.config import check, check_same, check_targets, compose, given_overrides, hydra_app
from diffusion3d.errors import Interrupted, RunError, UserError, describe, one_line, unwritable, user_error
from diffusion3d.hydra_cli import SHOW, show, sweep
from diffusion3d.overrides import resume_directory, resumed, to_hydra
from diffusion3d.plan import show_plan
from diffusion3d.sweeps import Outcome, run_sweep_job
from diffusion3d.tasks.run_dir import Follower, Run

log = logging.getLogger(__name__)


@processes.together()
def run(overrides: Sequence[str]) -> dict[str, float]:
    """Run one job as the command line does, and return its final metrics.

    Args:
        overrides: as on the command line, one each: `["representation=gsplat", "prompt=a corgi, standing"]`.

    Returns:
        {metric: final value}, empty with `run.dry_run=true` and in all processes of torchrun but the first.

    Raises:
        UserError: bad input, or a run that had to stop.
        Interrupted: SIGINT or SIGTERM stopped it.
    """
    given = to_hydra(overrides)
    with hydra_app() as app:
        resume = resume_directory(given)
        if resume is not None:
            given = resumed(resume, given)
        config = compose(app, given)
        HydraConfig.instance().set_config(config)
        check(app, config, config.hydra)
        if resume is not None:
            check_targets(config, config.run.trust)
            check_same(config, resume)
        if config.run.dry_run:
            show_plan(config, config.hydra, Path(config.hydra.run.dir))
            return {}
        try:
            ended = run_job(
                task_function=job,
                config=config,
                job_dir_key="hydra.run.dir",
                job_subdir_key=None,
                hydra_context=HydraContext(app.config_loader, Callbacks(config)),
                configure_logging=False,
            )
        except OSError as error:
            raise unwritable(error, config.hydra.run.dir) from None
    outcome: Outcome = ended.return_value
    return outcome.result()


def job(config: DictConfig) -> Outcome:
    """Run a composed config in its directory. Hydra's launchers call this, in any process."""
    node: Any = HydraConfig.get()
    if node.mode == RunMode.MULTIRUN:
        group = Path(node.sweep.dir).name
        return run_sweep_job(config, node, lambda directory, swept: work(config, node, directory, group, swept))
    try:
        return Outcome(work(config, node, Path(node.runtime.output_dir)))
    except Exception as error:
        return Outcome(error=user_error(error))


def work(
    config: DictConfig, node: Any, directory: Path, group: str | None = None, swept: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Run the task of a checked config, whose `hydra` node is `node`; its final metrics."""
    if processes.count() > 1:
        kind = hydra.utils.get_class(config.task._target_)
        if not getattr(kind, "several_processes", False):
            raise UserError(
                f"task={kind.__name__.lower()} runs in one process and {processes.count()} were started: leave torchrun or "
                "accelerate out; task=train is what they are for"
            )
    opened = Run if processes.rank() == 0 else Follower
    with opened(config, directory, given_overrides(node), group, swept) as current:
        current.start_loggers()  # which get ready while this process imports and loads
        import torch

        from diffusion3d.tasks.rng import seed_everything

        processes.meet()

        task = hydra.utils.get_class(config.task._target_)
        current.record(threads=torch.get_num_threads(), processes=processes.count())
        seed_everything(config.seed)
        metrics = current.finish(task(config, current).run())
        log.info(current.outputs())
        return metrics


def main() -> int:
    """The command line. Returns 0: done, 1: failed while running, 2: bad input, 128 + n: stopped by signal n."""
    if processes.rank() > 0:
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    typed = sys.argv[1:]
    flags = {argument.partition("=")[0] for argument in typed if argument.startswith("-")}
    overrides = [argument for argument in typed if argument not in ("-m", "--multirun")]
    logging.basicConfig(format="%(message)s")
    logging.raiseExceptions = False  # a run.log that cannot be written to costs no traceback
    signal.signal(signal.SIGTERM, _terminate)
    try:
        processes.join()
        if flags & SHOW:
            show(typed, job)
        elif unknown := flags - {"-m", "--multirun"}:
            raise UserError(f"unknown flag {min(unknown)}; --help shows what there is")
        elif flags:
            if processes.count() > 1:
                raise UserError("a sweep (-m) starts its own processes: leave torchrun or accelerate out")
            sweep(overrides, job)
        else:
            run(overrides)
        return 0
    except KeyboardInterrupt as stop:
        print(one_line(stop) or "interrupted", file=sys.stderr)
        return getattr(stop, "exit_code", 130)
    except Exception as error:  # every error leaves in one line, with an exit code
        if "run.debug=true" in typed or os.environ.get("HYDRA_FULL_ERROR") == "1":
            traceback.print_exc()
        print(f"error: {describe(error)}", file=sys.stderr)
        return error.exit_code if isinstance(error, UserError) else RunError.exit_code


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Interrupted("terminated", number)


class _Callable(ModuleType):
    """`diffusion3d.run` is both this module and the function: importing the module must not hide the function."""

    def __call__(self, overrides: Sequence[str]) -> dict[str, float]:
        return run(overrides)


sys.modules[__name__].__class__ = _Callable

if __name__ == "__main__":
    from diffusion3d.run import main as importable_main

    sys.exit(importable_main())
