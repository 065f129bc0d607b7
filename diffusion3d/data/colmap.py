"""A sparse model of COLMAP, text or binary, with its images.

Cameras in OpenCV axes, pixel centres at half-integers, as here; only pinholes. The world of a COLMAP model has no up direction:
the mean of the cameras' up directions becomes z.
"""

from __future__ import annotations

import logging
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from diffusion3d.data.base import Splits
from diffusion3d.data.files import folder, inside, read_text
from diffusion3d.data.shots import Intrinsics, Matrix, check_pose, hold_out, make_shot, place, read_shots
from diffusion3d.errors import UserError

log = logging.getLogger(__name__)

MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
"""Number of a camera model in binary files -> its name and how many parameters it has."""
FOCALS = {"SIMPLE_PINHOLE": 1, "PINHOLE": 2, "SIMPLE_RADIAL": 1, "RADIAL": 1, "OPENCV": 2, "FULL_OPENCV": 2}
"""Models that are pinholes where all that follows focal lengths and centre is zero -> how many focal lengths they have."""
PLACES = ("sparse/0", "sparse", "colmap/sparse/0", ".")
"""Where a model may lie."""


@dataclass(frozen=True)
class Camera:
    """Intrinsics in pixels of a width x height image."""

    K: Intrinsics
    width: int
    height: int


@dataclass(frozen=True)
class Model:
    """Cameras by id, views by image name as (camera id, world-to-camera), points and their sRGB in [0, 1]."""

    cameras: dict[int, Camera]
    views: dict[str, tuple[int, Matrix]]
    points: Float[np.ndarray, "N 3"]
    colors: Float[np.ndarray, "N 3"]


def colmap(
    root: str,
    images: str = "images",
    size: int | None = None,
    holdout: int = 8,
    center: Sequence[float] | None = None,
    scale: float | None = None,
) -> Splits:
    """One scene from `root`, its caption the folder's name; with points.

    Args:
        root: the folder with the model in sparse/0, sparse, colmap/sparse/0 or itself.
        images: its folder of images.
        size: longer side that images are scaled to, pixels; None leaves them as they are.
        holdout: every n-th view, by name, is a test view.
        center, scale: see `place`.

    Raises:
        UserError: a file is missing or damaged, a camera is not a pinhole, images differ in shape.
    """
    base = folder(root)
    where = next(
        (base / p for p in PLACES if any((base / p / f"cameras.{end}").is_file() for end in ("bin", "txt"))), None
    )
    if where is None:
        raise UserError(
            f"data.root={root} holds no cameras.bin or cameras.txt, neither itself nor in {', '.join(PLACES[:-1])}"
        )
    model = read_model(where)
    pictures = base / images
    shots = []
    for name, (number, w2c) in sorted(model.views.items()):
        image = inside(pictures, name, where)
        if not image.is_file():
            raise UserError(f"{where} names the image {name!r}, which is not in {pictures}")
        camera = model.cameras[number]
        shots.append(make_shot(image, np.linalg.inv(w2c), camera.K, camera.width, camera.height, where))
    train, test = hold_out(shots, holdout, where)
    placement = place(shots, center, scale, model.points, upright=True)
    log.info("a point x of the files is %s in the scene", placement)
    points = placement.points(model.points)
    captions = [[base.resolve().name.replace("_", " ")]]
    return Splits(
        train=read_shots([placement.shots(train)], captions, size, points=points),
        test=read_shots([placement.shots(test)], captions, size, points=points),
        points=placement.cloud(model.points, model.colors) if len(points) else None,
    )


def read_model(where: Path) -> Model:
    """The model in a folder, binary where both are there.

    Raises:
        UserError: a file is missing or damaged, or a camera is not a pinhole.
    """
    end = "bin" if (where / "cameras.bin").is_file() else "txt"
    paths = [where / f"{name}.{end}" for name in ("cameras", "images", "points3D")]
    readers = _BINARY if end == "bin" else _TEXT
    parts = []
    for path, reader in zip(paths, readers, strict=True):
        try:
            parts.append(list(reader(path)))
        except (ValueError, IndexError, struct.error, UnicodeDecodeError) as error:
            raise UserError(f"{path} is damaged: {error}") from None
        except OSError as error:
            raise UserError(f"cannot read {path}: {error.strerror}") from None
    cameras = {number: _camera(paths[0], number, *rest) for number, *rest in parts[0]}
    views = {name: (number, _world_to_camera(paths[1], name, q, t)) for name, number, q, t in parts[1]}
    lost = sorted({number for number, _ in views.values()} - set(cameras))
    if lost or not views:
        raise UserError(
            f"{paths[1]} {f'names camera {lost[0]}, which is not in {paths[0]}' if lost else 'holds no images'}"
        )
    table = np.array(parts[2], np.float64).reshape(-1, 6)
    if not np.isfinite(table).all():
        raise UserError(f"{paths[2]} holds a NaN or an infinity")
    return Model(cameras, views, table[:, :3], table[:, 3:] / 255)


def _camera(path: Path, number: int, model: str, width: int, height: int, parameters: Sequence[float]) -> Camera:
    focals = FOCALS.get(model)
    values = np.array(parameters, np.float64)
    if focals is None or np.any(values[focals + 2 :]):
        raise UserError(
            f"{path}: camera {number} is a distorted {model}; undistort first with colmap image_undistorter"
        )
    if (
        len(values) < focals + 2
        or not np.isfinite(values).all()
        or values[:focals].min() <= 0
        or min(width, height) < 1
    ):
        raise UserError(f"{path}: camera {number} ({model}, {width} x {height}) has no sound focal lengths and centre")
    fx, fy, (cx, cy) = values[0], values[focals - 1], values[focals : focals + 2]
    return Camera(np.array([[fx, 0, cx], [0, fy, cy], [0, 0, 1]]), width, height)


def _world_to_camera(path: Path, name: str, quaternion: Sequence[float], translation: Sequence[float]) -> Matrix:
    """From (w, x, y, z), of which COLMAP writes unit ones."""
    q = np.array(quaternion, np.float64)
    if not abs(np.linalg.norm(q) - 1) < 1e-3:
        raise UserError(f"{path}: the rotation of {name!r} is no unit quaternion: {q.tolist()}")
    w, x, y, z = q / np.linalg.norm(q)
    rotation = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return check_pose(np.column_stack([rotation, translation]), f"{path}: the pose of {name!r}")


def _lines(path: Path) -> list[str]:
    """All lines but comments, the empty ones too: an image without points has one."""
    return [line.strip() for line in read_text(path).splitlines() if not line.startswith("#")]


def _text_cameras(path: Path) -> Iterator[tuple]:
    for line in filter(None, _lines(path)):
        number, model, width, height, *parameters = line.split()
        yield int(number), model, int(width), int(height), [float(p) for p in parameters]


def _text_images(path: Path) -> Iterator[tuple]:
    for line in _lines(path)[::2]:
        if line:
            fields = line.split(maxsplit=9)
            values = [float(value) for value in fields[1:8]]
            yield fields[9], int(fields[8]), values[:4], values[4:]


def _text_points(path: Path) -> Iterator[list[float]]:
    for line in filter(None, _lines(path)):
        values = [float(value) for value in line.split()[1:7]]
        if len(values) < 6:
            raise ValueError(f"the line {line[:60]!r} is too short")
        yield values


class _Bytes:
    """Little-endian numbers from the start of a file on."""

    def __init__(self, path: Path) -> None:
        self.data, self.at = inside(path.parent, path.name, path).read_bytes(), 0

    def take(self, layout: str) -> tuple:
        values = struct.unpack_from(f"<{layout}", self.data, self.at)
        self.at += struct.calcsize(f"<{layout}")
        return values

    def skip(self, count: int) -> None:
        self.at += count
        if self.at > len(self.data):
            raise ValueError("it ends too early")

    def text(self) -> str:
        end = self.data.index(b"\0", self.at)
        found, self.at = self.data[self.at : end].decode("utf-8"), end + 1
        return found


def _binary_cameras(path: Path) -> Iterator[tuple]:
    data = _Bytes(path)
    for _ in range(data.take("Q")[0]):
        number, model, width, height = data.take("iiQQ")
        name, count = MODELS.get(model, (f"model {model}", 0))
        if not count:
            raise UserError(
                f"{path}: camera {number} is of the unknown {name}; undistort first with colmap image_undistorter"
            )
        yield number, name, width, height, data.take(f"{count}d")


def _binary_images(path: Path) -> Iterator[tuple]:
    data = _Bytes(path)
    for _ in range(data.take("Q")[0]):
        values = data.take("i7di")
        name = data.text()
        data.skip(24 * data.take("Q")[0])
        yield name, values[8], values[1:5], values[5:8]


def _binary_points(path: Path) -> Iterator[tuple]:
    data = _Bytes(path)
    for _ in range(data.take("Q")[0]):
        values = data.take("Q3d3BdQ")
        data.skip(8 * values[8])
        yield values[1:7]


_TEXT = (_text_cameras, _text_images, _text_points)
_BINARY = (_binary_cameras, _binary_images, _binary_points)
