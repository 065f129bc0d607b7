"""TensorBoard event files in the run directory: `tensorboard --logdir outputs`."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from PIL import Image

from diffusion3d.loggers.base import Logger, RunInfo


class TensorBoardLogger(Logger):
    """Figures, pictures and the GIFs that stand beside videos; a sweep's jobs fill the HPARAMS page with what it varies."""

    label = "TensorBoard"
    extra = "loggers"

    def __init__(self, finish_seconds: float = 8.0) -> None:
        """
        Args:
            finish_seconds: how long the end of a run may wait for it.
        """
        self.finish_seconds = finish_seconds
        self._writer: Any = None
        self._swept: dict[str, Any] = {}
        self._gifs: dict[str, Path] = {}
        self._last = 0

    def start(self, info: RunInfo) -> None:
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._swept = {key: _plain(value) for key, value in info.swept.items()}
        self._writer = EventFileWriter(str(info.directory / "tensorboard"))

    def resume(self, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import SessionLog

        self._last = step - 1
        self._add(step, session_log=SessionLog(status=SessionLog.START))  # TensorBoard drops this step and later ones

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._last = step
        self._scalars(metrics)

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._add(self._last if step is None else step, summary=_picture(name, path))

    def video(self, name: str, path: Path) -> None:
        self._gifs[name] = path.with_suffix(".gif")

    def finish(self, metrics: dict[str, float] | None) -> None:
        from tensorboard.plugins.hparams import summary_v2 as hparams

        try:
            for name, path in self._gifs.items():
                if path.exists():
                    self._add(self._last, summary=_picture(name, path))
            final = {f"final/{name}": value for name, value in (metrics or {}).items()}
            self._scalars(final)
            if self._swept and final:
                keys, figures = [hparams.HParam(key) for key in self._swept], [hparams.Metric(name) for name in final]
                self._add(None, summary=hparams.hparams_config_pb(keys, figures))
                self._add(None, summary=hparams.hparams_pb(self._swept))
        finally:
            self._writer.close()

    def _scalars(self, metrics: dict[str, float]) -> None:
        """Of the last step."""
        from tensorboard.compat.proto.summary_pb2 import Summary

        values = [Summary.Value(tag=name, simple_value=value) for name, value in metrics.items()]
        self._add(self._last, summary=Summary(value=values))

    def _add(self, step: int | None, **what: Any) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        self._writer.add_event(Event(wall_time=time.time(), step=step, **what))


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _picture(name: str, path: Path) -> Any:
    """An encoded picture, moving or not, as it is."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(path) as picture:
        width, height = picture.size
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=name, image=encoded)])
