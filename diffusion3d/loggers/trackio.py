"""trackio: a local dashboard, `trackio show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion3d.loggers.base import Logger, RunInfo


class TrackioLogger(Logger):
    """One trackio run per run directory, in trackio's database on this machine (TRACKIO_DIR); a resumed run goes on."""

    label = "trackio"
    extra = "loggers"

    def __init__(self, project: str, finish_seconds: float = 8.0) -> None:
        """
        Args:
            project: trackio's project.
            finish_seconds: how long the end of a run may wait for it.
        """
        self.project, self.finish_seconds = project, finish_seconds
        self._run: Any = None
        self._last = 0

    def start(self, info: RunInfo) -> None:
        import trackio

        self._run = trackio.init(
            project=self.project,
            name=f"{info.directory.name}_{info.id}",
            group=info.group,
            config={**info.config, "sweep": dict(info.swept), "tags": info.tags, "job_type": info.job_type},
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def resume(self, step: int) -> None:
        self._last = step - 1

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._last = step
        self._run.log(metrics, step=step)

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._media("Image", name, path, self._last if step is None else step)

    def video(self, name: str, path: Path) -> None:
        self._media("Video", name, path, self._last)

    def finish(self, metrics: dict[str, float] | None) -> None:
        if metrics is not None:
            self._run.log({f"final/{name}": value for name, value in metrics.items()}, step=self._last)
        self._run.finish()

    def _media(self, kind: str, name: str, path: Path, step: int) -> None:
        import trackio

        self._run.log({name: getattr(trackio, kind)(str(path))}, step=step)
