"""trackio: a local dashboard, `trackio show`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from diffusion3d.loggers.background import Background
from diffusion3d.loggers.base import RunInfo


class TrackioLogger(Background):
    """One trackio run per run directory, in trackio's database on this machine (TRACKIO_DIR); a resumed run goes on."""

    label = "trackio"
    extra = "loggers"

    def __init__(self, project: str, finish_seconds: float = 8.0) -> None:
        """
        Args:
            project: trackio's project.
            finish_seconds: how long `finish` may wait.
        """
        super().__init__(finish_seconds)
        self.project = project
        self._last = 0

    def open(self, info: RunInfo) -> Any:
        import trackio

        return trackio.init(
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
        self.put(lambda run: run.log(metrics, step=step))

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._media(name, "Image", path, self._last if step is None else step)

    def video(self, name: str, path: Path) -> None:
        self._media(name, "Video", path, self._last)

    def close(self, metrics: dict[str, float] | None) -> None:
        if metrics is not None:
            final = {f"final/{name}": value for name, value in metrics.items()}
            self.put(lambda run: run.log(final, step=self._last))
        self.put(lambda run: run.finish())

    def _media(self, name: str, kind: str, path: Path, step: int) -> None:
        def action(run: Any) -> None:
            import trackio

            run.log({name: getattr(trackio, kind)(str(path))}, step=step)

        self.put(action)
