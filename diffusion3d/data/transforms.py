"""transforms.json of Blender (NeRF's synthetic scenes), nerfstudio and instant-ngp.

Cameras in OpenGL axes (x right, y up, z backward), world z up. Of nerfstudio's keys, per-frame intrinsics, the lists
train_filenames, val_filenames and test_filenames, and ply_file_path are read; the poses and points have `applied_transform`
in them already. Masks and depth maps are not read.
"""

from __future__ import annotations

import io
import json
import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from jaxtyping import Float

from diffusion3d.data.base import Splits
from diffusion3d.data.files import folder, inside, read_text
from diffusion3d.data.images import image_size
from diffusion3d.data.shots import Intrinsics, Shot, check_pose, hold_out, make_shot, place, read_shots
from diffusion3d.data.textured import check_ply
from diffusion3d.errors import UserError

log = logging.getLogger(__name__)

SUFFIXES = ("", ".png", ".jpg", ".jpeg")
UNDISTORTED = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


def transforms(
    root: str,
    size: int | None = None,
    holdout: int = 8,
    center: Sequence[float] | None = None,
    scale: float | None = None,
) -> Splits:
    """One scene from `root`, its caption the folder's name.

    transforms_train.json and transforms_test.json (or _val) if they are there; else transforms.json, whose test views are those
    of its test_filenames (or val_filenames) or every n-th.

    Args:
        root: the folder.
        size: longer side that pictures are scaled to, pixels; None leaves them as they are.
        holdout: every n-th view is a test view where the files do not say.
        center, scale: see `place`.

    Raises:
        UserError: a file is missing or wrong, a camera is not a pinhole, pictures differ in shape.
    """
    base = folder(root)
    train_path = base / "transforms_train.json"
    if train_path.is_file():
        frames = read_frames(train_path)
        train = [read_frame(train_path, frame) for frame in frames]
        test_path = next((p for p in (base / f"transforms_{n}.json" for n in ("test", "val")) if p.is_file()), None)
        if test_path is None:
            train, test = hold_out(train, holdout, train_path)
        else:
            test = [read_frame(test_path, frame) for frame in read_frames(test_path)]
    else:
        train_path = base / "transforms.json"
        frames = read_frames(train_path)
        shots = [read_frame(train_path, frame) for frame in frames]
        lists = {name: set(frames[0].get(f"{name}_filenames") or ()) for name in ("train", "val", "test")}
        held = lists["test"] or lists["val"]
        if held:
            named = list(zip(shots, (frame["file_path"] for frame in frames), strict=True))
            test = [shot for shot, name in named if name in held]
            train = [shot for shot, name in named if (name in lists["train"] if lists["train"] else name not in held)]
            if not train or not test:
                raise UserError(f"{train_path}: its lists of file names leave no view to train or test on")
        else:
            train, test = hold_out(shots, holdout, train_path)
    placement = place([*train, *test], center, scale)
    log.info("a point x of the files is %s in the scene", placement)
    points, cloud = None, None
    if frames[0].get("ply_file_path"):
        file = _points(inside(base, str(frames[0]["ply_file_path"]), train_path))
        points, cloud = placement.points(file[0]), placement.cloud(*file)
    captions = [[base.resolve().name.replace("_", " ")]]
    return Splits(
        train=read_shots([placement.shots(train)], captions, size, points=points),
        test=read_shots([placement.shots(test)], captions, size, points=points),
        points=cloud,
    )


def read_frames(path: Path) -> list[dict[str, Any]]:
    """The frames of a transforms.json, each with the keys of the whole file beside its own.

    Raises:
        UserError: it cannot be read or has none.
    """
    try:
        content = json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UserError(f"{path} has no list of frames")
    if not frames:
        raise UserError(f"{path} has an empty list of frames")
    return [{**content, **frame} for frame in frames]


def read_frame(path: Path, frame: Mapping[str, Any]) -> Shot:
    """The picture and camera of one of `read_frames`.

    Raises:
        UserError: the picture is missing, the camera is not a pinhole or not whole.
    """
    base, name = path.parent, str(frame.get("file_path", ""))
    _check_pinhole(path, frame)
    candidates = (inside(base, name + suffix, path) for suffix in SUFFIXES)
    image = next((candidate for candidate in candidates if candidate.is_file()), None)
    if image is None:
        raise UserError(f"{path} names the image {name!r}, which is not in {base}")
    try:
        matrix = frame["transform_matrix"]
        actual = image_size(image)
        width, height = float(frame.get("w", actual[0])), float(frame.get("h", actual[1]))
        K = _intrinsics(frame, width, height)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: the frame {name!r} lacks a number or holds a wrong one: {error}") from None
    c2w = check_pose(matrix, f"{path}: transform_matrix of {name!r}")
    c2w[:, 1:3] *= -1  # from OpenGL's axes (y up, z backward)
    return make_shot(image, c2w, K, width, height, path)


def _check_pinhole(path: Path, frame: Mapping[str, Any]) -> None:
    model = str(frame.get("camera_model", "PINHOLE"))
    bent = [f"{name}={frame[name]}" for name in DISTORTION if frame.get(name)]
    if frame.get("is_fisheye") or model not in UNDISTORTED:
        bent.insert(0, f"camera_model={model}" if model not in UNDISTORTED else "is_fisheye")
    if bent:
        raise UserError(
            f"{path} describes a distorted camera ({', '.join(bent)}); undistort the images first, as COLMAP's "
            "image_undistorter does"
        )


def _intrinsics(frame: Mapping[str, Any], width: float, height: float) -> Intrinsics:
    def focal(axis: str, extent: float) -> float:
        if f"fl_{axis}" in frame:
            return float(frame[f"fl_{axis}"])
        return 0.5 * extent / math.tan(0.5 * float(frame[f"camera_angle_{axis}"]))

    x = focal("x", width)
    y = focal("y", height) if "fl_y" in frame or "camera_angle_y" in frame else x
    K = np.array([[x, 0, frame.get("cx", width / 2)], [0, y, frame.get("cy", height / 2)], [0, 0, 1]], np.float64)
    if not np.isfinite(K).all() or x <= 0 or y <= 0:
        raise ValueError(f"focal lengths {x:g}, {y:g} and centre {K[0, 2]:g}, {K[1, 2]:g} make no camera")
    return K


def _points(path: Path) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3"]]:
    """Points and sRGB colours of a PLY; grey where it has none."""
    try:
        content = path.read_bytes()
        check_ply(content, str(path))
        [cloud] = trimesh.load_scene(io.BytesIO(content), file_type="ply", process=False).geometry.values()
        points = np.array(cloud.vertices, np.float64)
        colors = getattr(cloud, "colors", None)
        colors = np.full((len(points), 3), 0.5) if colors is None or not len(colors) else np.array(colors[:, :3]) / 255
    except UserError:
        raise
    except Exception as error:  # whatever trimesh's readers raise
        raise UserError(f"{path} cannot be read as a PLY of points: {error}") from None
    if not len(points) or not np.isfinite(points).all():
        raise UserError(f"{path} holds no points, or NaNs")
    return points, colors
