"""A run and its directory: config, versions, metrics, checkpoints, media, log."""

from __future__ import annotations

import json
import logging
import shlex
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

from filelock import FileLock, Timeout
from omegaconf import DictConfig

from diffusion3d.config import foreign_modules, resolved, save_config
from diffusion3d.errors import UserError, unwritable
from diffusion3d.loggers.background import Loggers
from diffusion3d.loggers.base import RunInfo
from diffusion3d.naming import numbered
from diffusion3d.overrides import importing, save_overrides
from diffusion3d.tasks.facts import peak_memory, reset_peak_memory, versions, write_json
from diffusion3d.tasks.metrics_csv import MetricsCsv

log = logging.getLogger(__name__)


class Locked(UserError):
    """A run directory that another process is writing."""


class Run:
    """One run, which owns its directory. Use it as a context manager: leaving it closes log and loggers.

    Attributes:
        dir: holds config.yaml, overrides.yaml, versions.json, metrics.csv, metrics.json, run.log and the folders
            checkpoints, previews, videos and export (made on first use, see `path`).
        config: the composed config.
    """

    def __init__(
        self,
        config: DictConfig,
        directory: Path,
        overrides: Sequence[str],
        group: str | None = None,
        swept: Mapping[str, Any] | None = None,
    ) -> None:
        """Open a new directory, the one that `run.resume` names, or that of a sweep's job, begun before or not.

        Args:
            config: composed and checked.
            directory: where to write; "-2", "-3" … is appended when it already holds a run.
            overrides: in Hydra's grammar, what reproduces the config.
            group: the sweep this run belongs to.
            swept: what that sweep varies, and this run's values of it.

        Raises:
            UserError: the directory cannot be written, or another process is writing it.
        """
        self.begin, self._before = time.monotonic(), 0.0
        reset_peak_memory()
        self.config, self._overrides = config, overrides
        resume = config.run.resume is not None or group is not None
        with ExitStack() as opened:
            try:
                self.dir = directory if resume else _claim(directory)
                opened.enter_context(lock(self.dir))
                self._handler = logging.FileHandler(self.dir / "run.log", encoding="utf-8")
            except OSError as error:
                raise unwritable(error, directory) from None
            opened.callback(self._handler.close)
            self._handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
            if not logging.getLogger().handlers:  # from Python: show what the command line shows
                logging.basicConfig(format="%(message)s")
            logging.getLogger().addHandler(self._handler)
            opened.callback(logging.getLogger().removeHandler, self._handler)
            logging.getLogger("diffusion3d").setLevel(logging.INFO)
            self._facts: dict[str, Any] = self._read_facts() if resume else {"id": uuid.uuid4().hex[:12]}
            self.record(**versions(), seed=config.seed)
            plain = resolved(config)
            save_config(plain, self.dir / "config.yaml")
            save_overrides(overrides, self.dir / "overrides.yaml")
            job_type = str(config.task._target_).rpartition(".")[2].lower()
            self._csv = MetricsCsv(self.dir / "metrics.csv")
            self._info = RunInfo(self._facts["id"], self.dir, plain, job_type, group, list(config.tags), swept or {})
            self._loggers = Loggers([])
            self._start, self._finished = 0, False
            self._last: dict[str, float] = {}
            finished = (self.dir / "metrics.json").exists()
            again = ", which had finished: its results are made again" if finished else ""
            other = (
                "" if self.dir == directory else f", since {directory.name} holds an earlier run or one that goes on"
            )
            log.info("writing to %s%s", self.dir, again or other)
            self._opened = opened.pop_all()

    def start_loggers(self) -> None:
        """Make the loggers of the config."""
        from hydra.utils import instantiate

        self._loggers = Loggers([instantiate(node) for node in self.config.logger.values()])
        self._loggers.start(self._info)

    def __enter__(self) -> Run:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            stopped = logging.LogRecord(
                log.name, logging.ERROR, __file__, 0, "stopped", (), (type(error), error, trace)
            )
            self._handler.emit(stopped)
            if isinstance(error, KeyboardInterrupt) and not self._finished and "run.resume=" not in str(error):
                log.info(self.how_to_resume())
        with suppress(OSError) if error is not None else nullcontext():  # a full disk has been told of
            self._csv.flush()
        if not self._finished:
            self._loggers.finish(None)
        self._opened.close()

    def path(self, folder: str, name: str) -> Path:
        """`dir/folder/name`, the folder made if it was not there."""
        (self.dir / folder).mkdir(exist_ok=True)
        return self.dir / folder / name

    def record(self, **facts: Any) -> None:
        """Add facts about how this run computes (such as kernel="avx512") to versions.json; warns if a resume changes one."""
        for name, value in facts.items():
            if self._facts.get(name, value) != value:
                log.warning("%s was %s, is %s: the result may differ in bits", name, self._facts[name], value)
        self._facts.update(facts)
        write_json(self.dir / "versions.json", self._facts)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        """Figures of one step, or more figures of the last one, to metrics.csv and the loggers; cheap, and on disk within
        seconds."""
        self._csv.add(step, metrics)
        self._last.update(metrics)
        if step >= self._start:
            (self.dir / "metrics.json").unlink(missing_ok=True)  # a run that goes on has not finished
        if step >= self._start - 1:  # the preview of the step before a resume is made then
            self._loggers.log(step, metrics)

    def image(self, step: int | None, name: str, path: Path) -> None:
        """Tell the loggers of a picture that was written for a step, or (None) for the result."""
        self._loggers.image(step, name, path)

    def video(self, name: str, path: Path) -> None:
        """Tell the loggers of a video that was written."""
        self._loggers.video(name, path)

    def artifact(self, name: str, path: Path) -> None:
        """Tell the loggers of a result file that was written."""
        self._loggers.artifact(name, path)

    def save(self, step: int, state: Any) -> Path:
        """Write a checkpoint: everything needed to go on with `step`."""
        from diffusion3d.tasks.checkpoint import save_checkpoint

        self._csv.flush()
        return save_checkpoint(self.dir / "checkpoints", step, state)

    def load(self) -> tuple[int, Any] | None:
        """(step, state) of the newest whole checkpoint, None in a new run. Drops the rows of metrics.csv from it on."""
        from diffusion3d.tasks.checkpoint import load_checkpoint

        found = load_checkpoint(self.dir / "checkpoints")
        if found is not None:
            self._start = found[0]
            self._loggers.resume(self._start)
        self._csv.drop_from(self._start)
        self._last, self._before = self._csv.last(), self._csv.total("seconds")
        return found

    def last_good(self) -> str:
        """A clause that names the last checkpoint."""
        steps = sorted(path.stem for path in (self.dir / "checkpoints").glob("step_*.safetensors"))
        return f"the last good checkpoint is {steps[-1]} in {self.dir}" if steps else "there is no checkpoint yet"

    def how_to_resume(self) -> str:
        """A clause with the command that continues this run."""
        modules = ",".join(foreign_modules(self.config))
        trusted = [f"run.trust=[{modules}]"] if modules else []
        typed = shlex.join([f"run.resume={self.dir}", *trusted, *importing(self._overrides)])
        return f"continue with: python -m diffusion3d.run {typed}"

    def finish(self, metrics: dict[str, float]) -> dict[str, float]:
        """Write metrics.json and end the loggers: the last value of all that was logged, `metrics`, seconds (those of the
        steps before a resume included), peak memory."""
        self._csv.flush()
        seconds = round(self._before + time.monotonic() - self.begin, 3)
        final = {**self._last, **metrics, "seconds": seconds, **peak_memory()}
        write_json(self.dir / "metrics.json", final)
        self._finished = True
        self._loggers.finish(final)
        return final

    def outputs(self) -> str:
        """What the run left behind, for people: the directory, then its media and exports."""
        kinds = ("*.png", "videos/*", "export/*", "transforms/*.json")
        files = [str(path.relative_to(self.dir)) for kind in kinds for path in sorted(self.dir.glob(kind))]
        return "\n  ".join([f"outputs in {self.dir}", *files])

    def _read_facts(self) -> dict[str, Any]:
        try:
            facts = json.loads((self.dir / "versions.json").read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = {}
        return {"id": uuid.uuid4().hex[:12], **facts}


class Follower(Run):
    """A run as all processes but the first have it: they write and read nothing."""

    def __init__(self, config: DictConfig, directory: Path, overrides: Sequence[str], *others: Any) -> None:
        self.config, self.dir, self._overrides = config, directory, overrides
        logging.getLogger("diffusion3d").setLevel(logging.CRITICAL)

    def __exit__(self, *exception: object) -> None: ...

    def _nothing(self, *arguments: Any, **facts: Any) -> Any: ...

    start_loggers = record = log = image = video = artifact = save = _nothing

    def finish(self, metrics: dict[str, float]) -> dict[str, float]:
        return {}


@contextmanager
def lock(directory: Path) -> Iterator[None]:
    """Holds a run directory: what holds it already in this thread may hold it once more.

    Raises:
        Locked: another process is writing it.
    """
    held = FileLock(directory / ".lock", timeout=0, is_singleton=True)
    try:
        held.acquire()
    except Timeout:
        raise Locked(f"{directory} is being written by another process: wait for it, or stop it") from None
    try:
        yield
    finally:
        held.release()


def _claim(directory: Path) -> Path:
    """The directory, or the first free one of directory-2, -3 …; its run.log, made here, marks it as taken."""
    for path in numbered(directory):
        path.mkdir(parents=True, exist_ok=True)
        try:
            (path / "run.log").touch(exist_ok=False)
        except FileExistsError:
            continue
        return path
    raise UserError(f"{directory} and 9,999 more of its name exist; clear some away")
