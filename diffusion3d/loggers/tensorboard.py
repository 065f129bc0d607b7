"""TensorBoard event files in the run directory: `tensorboard --logdir outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from diffusion3d.loggers.base import Logger, RunInfo


class TensorBoardLogger(Logger):
    """Figures, pictures and the GIFs that stand beside videos; a sweep's jobs fill the HPARAMS page with what it varies."""

    label = "TensorBoard"
    extra = "loggers"

    def __init__(self, finish_seconds: float = 8.0) -> None:
        super().__init__(finish_seconds)
        self._writer: Any = None
        self._swept: dict[str, Any] = {}
        self._gifs: dict[str, Path] = {}
        self._last = 0

    def start(self, info: RunInfo) -> None:
        from torch.utils.tensorboard import FileWriter

        self._swept = {key: _plain(value) for key, value in info.swept.items()}
        self._writer = FileWriter(str(info.directory / "tensorboard"))

    def resume(self, step: int) -> None:
        self._last = step - 1
        _forget(self._writer, step)

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._last = step
        self._scalars(metrics)

    def image(self, step: int | None, name: str, path: Path) -> None:
        self._writer.add_summary(_picture(name, path), self._last if step is None else step)

    def video(self, name: str, path: Path) -> None:
        self._gifs[name] = path.with_suffix(".gif")

    def finish(self, metrics: dict[str, float] | None) -> None:
        from torch.utils.tensorboard.summary import hparams

        for name, path in self._gifs.items():
            if path.exists():
                self._writer.add_summary(_picture(name, path), self._last)
        final = {f"final/{name}": value for name, value in (metrics or {}).items()}
        self._scalars(final)
        if self._swept and final:
            for summary in hparams(self._swept, final):
                self._writer.add_summary(summary, None)
        self._writer.close()

    def _scalars(self, metrics: dict[str, float]) -> None:
        """Of the last step."""
        from torch.utils.tensorboard.summary import scalar

        for name, value in metrics.items():
            self._writer.add_summary(scalar(name, value), self._last)


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else str(value)


def _forget(writer: Any, step: int) -> None:
    """What was logged for this step and later ones, before a resume, is void."""
    from tensorboard.compat.proto.event_pb2 import Event, SessionLog

    writer.add_event(Event(file_version="brain.Event:2"), step=step)
    writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step=step)


def _picture(name: str, path: Path) -> Any:
    """An encoded picture, moving or not, as it is."""
    from tensorboard.compat.proto.summary_pb2 import Summary

    with Image.open(path) as picture:
        width, height = picture.size
    encoded = Summary.Image(height=height, width=width, colorspace=3, encoded_image_string=path.read_bytes())
    return Summary(value=[Summary.Value(tag=name, image=encoded)])
