"""TensorBoard event files in the run directory: `tensorboard --logdir outputs`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image

from diffusion3d.loggers.background import Background
from diffusion3d.loggers.base import RunInfo


class TensorBoardLogger(Background):
    """Figures, pictures and the GIFs that stand beside videos; a sweep's jobs fill the HPARAMS page with what it varies."""

    label = "TensorBoard"
    extra = "loggers"

    def __init__(self, finish_seconds: float = 8.0) -> None:
        """
        Args:
            finish_seconds: how long `finish` may wait.
        """
        super().__init__(finish_seconds)
        self._swept: dict[str, Any] = {}
        self._gifs: dict[str, Path] = {}
        self._last = 0

    def open(self, info: RunInfo) -> Any:
        from torch.utils.tensorboard import FileWriter

        self._swept = {key: _plain(value) for key, value in info.swept.items()}
        return FileWriter(str(info.directory / "tensorboard"))

    def resume(self, step: int) -> None:
        self._last = step - 1
        self.put(lambda writer: _forget(writer, step))

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._last = step

        def action(writer: Any) -> None:
            from torch.utils.tensorboard.summary import scalar

            for name, value in metrics.items():
                writer.add_summary(scalar(name, value), step)

        self.put(action)

    def image(self, step: int | None, name: str, path: Path) -> None:
        at = self._last if step is None else step
        self.put(lambda writer: writer.add_summary(_picture(name, path), at))

    def video(self, name: str, path: Path) -> None:
        self._gifs[name] = path.with_suffix(".gif")

    def close(self, metrics: dict[str, float] | None) -> None:
        at = self._last

        def action(writer: Any) -> None:
            from torch.utils.tensorboard.summary import hparams, scalar

            for name, path in self._gifs.items():
                if path.exists():
                    writer.add_summary(_picture(name, path), at)
            final = {f"final/{name}": value for name, value in (metrics or {}).items()}
            for name, value in final.items():
                writer.add_summary(scalar(name, value), at)
            if self._swept and final:
                for summary in hparams(self._swept, final):
                    writer.add_summary(summary, None)
            writer.close()

        self.put(action)


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
