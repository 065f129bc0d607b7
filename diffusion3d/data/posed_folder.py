"""A folder of one's own captioned posed images.

    DIR/any name/transforms.json   nerfstudio's or Blender's: intrinsics and frames with file_path and transform_matrix
    DIR/any name/caption.txt       one caption per line, all of them used
    DIR/any name/...               the images, PNG or JPEG; RGBA gives alpha

Objects should lie in [-1, 1]^3, upright along z, their front along +x.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.typing import NDArray
from PIL import Image

from diffusion3d.cameras import Cameras
from diffusion3d.data.base import Splits
from diffusion3d.errors import UserError
from diffusion3d.views import PosedViews

VOCABULARY = 200
SUFFIXES = ("", ".png", ".jpg", ".jpeg")
UNDISTORTED = ("PINHOLE", "SIMPLE_PINHOLE", "OPENCV")
DISTORTION = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2")


@dataclass(frozen=True)
class PosedScene:
    """One scene in memory.

    Attributes:
        rgba: sRGB premultiplied by alpha.
        c2w: OpenCV axes.
        K: in pixels of `rgba`.
        captions: at least one.
    """

    rgba: UInt8[np.ndarray, "V S S 4"]
    c2w: Float[np.ndarray, "V 4 4"]
    K: Float[np.ndarray, "V 3 3"]
    captions: tuple[str, ...]


class PosedFolder:
    """Scenes in memory as `PosedData`."""

    def __init__(self, scenes: Sequence[PosedScene], views: int, size: int) -> None:
        self.scenes, self.views, self.size = list(scenes), views, size
        self.vocabulary = tuple(dict.fromkeys(caption for scene in scenes for caption in scene.captions))[:VOCABULARY]

    def __len__(self) -> int:
        return len(self.scenes)

    def batch(self, indices: NDArray[np.integer], views: NDArray[np.integer], rng: np.random.Generator) -> PosedViews:
        """Scenes `indices` [B] seen from `views` [B, V], each with a random one of its captions."""
        chosen = [(self.scenes[i], v) for i, v in zip(indices, views, strict=True)]
        pictures = torch.from_numpy(np.stack([s.rgba[v] for s, v in chosen])).permute(0, 1, 4, 2, 3).float() / 255
        c2w, K = (torch.from_numpy(np.stack([getattr(s, name)[v] for s, v in chosen])) for name in ("c2w", "K"))
        distance, reach = c2w[..., :3, 3].norm(dim=-1), math.sqrt(3)
        near, far = max(0.05, float(distance.min()) - reach), float(distance.max()) + reach
        return PosedViews(
            cameras=Cameras(c2w, K, self.size, self.size, near, far),
            images=pictures[:, :, :3].contiguous(),
            alpha=pictures[:, :, 3:].contiguous(),
            captions=tuple(str(rng.choice(s.captions)) for s, _ in chosen),
        )


def posed_folder(root: str, size: int = 128, views: int = 8, validation: float = 0.1) -> Splits:
    """Read all scenes below `root`; the last ones by name become the validation data.

    Args:
        root: the folder.
        size: side of the square images, pixels.
        views: used of every scene, evenly spaced in the order of its transforms.json.
        validation: share of the scenes to hold apart; at least one is.

    Raises:
        UserError: a file is missing or cannot be read, a camera is not a pinhole, an image is not square, a scene has too few
            views or no caption.
    """
    if size < 1 or views < 1 or not 0 < validation < 1:
        raise UserError(
            f"data: size={size} and views={views} must be positive, validation={validation} between 0 and 1"
        )
    folder = Path(root).expanduser()
    if not folder.is_dir():
        raise UserError(f"data.root={root} is not a folder")
    names = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"data.root={root} holds {len(names)} scene folders; give two or more (one is for validation)")
    scenes = [_scene(path, size, views) for path in names]
    held = min(max(1, round(validation * len(scenes))), len(scenes) - 1)
    return Splits(PosedFolder(scenes[:-held], views, size), PosedFolder(scenes[-held:], views, size))


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def _scene(folder: Path, size: int, views: int) -> PosedScene:
    path = folder / "transforms.json"
    try:
        content = json.loads(_text(path))
    except json.JSONDecodeError as error:
        raise UserError(f"{path} is not valid JSON: {error}") from None
    frames = content.get("frames") if isinstance(content, dict) else None
    if not isinstance(frames, list) or not all(isinstance(frame, dict) for frame in frames):
        raise UserError(f"{path} has no list of frames")
    if len(frames) < views:
        raise UserError(
            f"{path} has {len(frames)} frames, fewer than data.views={views}; add some or set data.views lower"
        )
    captions = tuple(line.strip() for line in _text(folder / "caption.txt").splitlines() if line.strip())
    if not captions:
        raise UserError(f"{folder / 'caption.txt'} is empty; write one caption per line")
    read = [_frame(folder, {**content, **frames[i * len(frames) // views]}, size) for i in range(views)]
    rgba, c2w, K = (np.stack(parts) for parts in zip(*read, strict=True))
    return PosedScene(rgba, c2w, K, captions)


def _frame(
    folder: Path, frame: Mapping[str, Any], size: int
) -> tuple[UInt8[np.ndarray, "S S 4"], Float[np.ndarray, "4 4"], Float[np.ndarray, "3 3"]]:
    """Image, c2w and K of one frame, whose keys stand beside those of the whole file."""
    path, name = folder / "transforms.json", str(frame.get("file_path", ""))
    _check_pinhole(path, frame)
    image = next((folder / (name + suffix) for suffix in SUFFIXES if (folder / (name + suffix)).is_file()), None)
    if image is None:
        raise UserError(f"{path} names the image {name!r}, which is not in {folder}")
    try:
        with Image.open(image) as opened:
            picture = opened.convert("RGBA")
    except (OSError, ValueError) as error:
        raise UserError(f"{image} is not a readable image: {error}") from None
    try:
        width, height = float(frame.get("w", picture.width)), float(frame.get("h", picture.height))
        if width != height or picture.width != picture.height:
            raise UserError(
                f"{image} is {picture.width} x {picture.height} pixels ({width:g} x {height:g} in transforms.json), not "
                "square; crop or pad it to a square and move cx, cy, w and h along"
            )
        K = _intrinsics(frame, width) * np.array([[size / width], [size / width], [1]])
        c2w = np.array(frame["transform_matrix"], np.float64)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise UserError(f"{path}: the frame {name!r} lacks a number or holds a wrong one: {error}") from None
    if c2w.shape != (4, 4) or not np.allclose(c2w[:3, :3] @ c2w[:3, :3].T, np.eye(3), atol=1e-3):
        raise UserError(f"{path}: transform_matrix of {name!r} is not a 4 x 4 matrix of a rotation and a translation")
    c2w[:, 1:3] *= -1  # from OpenGL's axes (y up, z backward)
    pixels = np.array(picture.convert("RGBa").resize((size, size), Image.Resampling.BOX))
    return pixels, c2w.astype(np.float32), K.astype(np.float32)


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


def _intrinsics(frame: Mapping[str, Any], width: float) -> Float[np.ndarray, "3 3"]:
    def focal(axis: str) -> float:
        if f"fl_{axis}" in frame:
            return float(frame[f"fl_{axis}"])
        return 0.5 * width / math.tan(0.5 * float(frame[f"camera_angle_{axis}"]))

    x = focal("x")
    y = focal("y") if "fl_y" in frame or "camera_angle_y" in frame else x
    K = np.array([[x, 0, frame.get("cx", width / 2)], [0, y, frame.get("cy", width / 2)], [0, 0, 1]], np.float64)
    if not np.isfinite(K).all() or x <= 0 or y <= 0:
        raise ValueError(f"focal lengths {x:g}, {y:g} and centre {K[0, 2]:g}, {K[1, 2]:g} make no camera")
    return K
