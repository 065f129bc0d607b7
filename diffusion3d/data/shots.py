"""Pictures with cameras, from files into memory; where to put the world's origin and how large to make it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from diffusion3d.cameras import Cameras
from diffusion3d.data.base import InMemory
from diffusion3d.data.images import image_size, read_pixels
from diffusion3d.errors import UserError
from diffusion3d.views import PointCloud

Matrix = Float[np.ndarray, "4 4"]
Intrinsics = Float[np.ndarray, "3 3"]


@dataclass(frozen=True)
class Shot:
    """One picture, not read yet, and its camera.

    Attributes:
        image: its file.
        c2w: OpenCV axes, float64.
        K: in pixels of the file.
        width, height: of the file, pixels.
    """

    image: Path
    c2w: Matrix
    K: Intrinsics
    width: int
    height: int


def make_shot(image: Path, c2w: Matrix, K: Intrinsics, width: float, height: float, source: Path) -> Shot:
    """A shot whose intrinsics are meant for width x height pixels and scaled to what the file has.

    Raises:
        UserError: the picture cannot be read or has another shape than `source` says.
    """
    actual_width, actual_height = image_size(image)
    if not (width > 0 and height > 0) or abs(actual_width * height - actual_height * width) > max(width, height):
        raise UserError(
            f"{image} is {actual_width} x {actual_height} pixels, which is not the shape of {width:g} x {height:g} in {source}"
        )
    scale = np.array([[actual_width / width], [actual_height / height], [1.0]])
    return Shot(image, c2w, K * scale, actual_width, actual_height)


def check_pose(matrix: Any, what: str) -> Matrix:
    """A camera-to-world or world-to-camera transform as float64 [4, 4].

    Args:
        matrix: 4 x 4, or its first three rows.
        what: for messages.

    Raises:
        UserError: it is no rotation and translation.
    """
    try:
        pose = np.array(matrix, np.float64)
    except (TypeError, ValueError):
        pose = np.zeros(0)
    if pose.shape == (3, 4):
        pose = np.vstack([pose, [0, 0, 0, 1]])
    if pose.shape == (4, 4) and not np.isfinite(pose).all():
        raise UserError(f"{what} holds a NaN or an infinity")
    if pose.shape == (4, 4) and np.allclose(pose[3], [0, 0, 0, 1], atol=1e-5):
        rotation = pose[:3, :3]
        if np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-3) and np.linalg.det(rotation) > 0:
            return pose
    raise UserError(f"{what} is not a 4 x 4 matrix of a rotation and a translation")


def read_shots(
    scenes: Sequence[Sequence[Shot]],
    captions: Sequence[Sequence[str]],
    size: int | None = None,
    alpha: bool = False,
    points: Float[np.ndarray, "N 3"] | None = None,
) -> InMemory:
    """Read the pictures of all scenes.

    Args:
        scenes: the same number of views each, not none.
        captions: of every scene.
        size: longer side that pictures are scaled to, pixels; None leaves them as they are.
        alpha: whether to give alpha though all pictures are opaque.
        points: what the cameras see, for the depth range; None is an object in [-1, 1]^3.

    Raises:
        UserError: a picture cannot be read, or differs in shape from the others.
    """
    if size is not None and size < 1:
        raise UserError(f"data.size={size} must be at least 1")
    first = scenes[0][0]
    pixels = []
    for shots in scenes:
        if len(shots) != len(scenes[0]):
            raise UserError(
                f"{shots[0].image.parent} has {len(shots)} views and {first.image.parent} {len(scenes[0])}; "
                "all scenes must have the same number"
            )
        for shot in shots:
            if _scaled(shot, size) != _scaled(first, size):
                raise UserError(
                    f"{shot.image} is {shot.width} x {shot.height} pixels and {first.image} {first.width} x {first.height}; "
                    "all views must have one shape" + (", or set data.size" if size is None else " when scaled, too")
                )
            pixels.append(read_pixels(shot.image, *_scaled(shot, size)))
    if not alpha and all(picture.shape[2] == 3 or picture[..., 3].min() == 255 for picture in pixels):
        pixels = [picture[..., :3] for picture in pixels]
    else:
        pixels = [
            picture if picture.shape[2] == 4 else np.pad(picture, ((0, 0), (0, 0), (0, 1)), constant_values=255)
            for picture in pixels
        ]
    width, height = _scaled(first, size)
    c2w = np.stack([[shot.c2w for shot in shots] for shots in scenes])
    K = np.stack([[shot.K * [[width / shot.width], [height / shot.height], [1]] for shot in shots] for shots in scenes])
    near, far = depth_range(c2w.reshape(-1, 4, 4), points)
    stacked = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
    return InMemory(
        Cameras(torch.from_numpy(c2w).float(), torch.from_numpy(K).float(), height, width, near, far),
        stacked.view(len(scenes), len(scenes[0]), *stacked.shape[1:]),
        captions,
    )


def _scaled(shot: Shot, size: int | None) -> tuple[int, int]:
    """(width, height) of a picture whose longer side becomes `size`."""
    factor = 1 if size is None else size / max(shot.width, shot.height)
    return max(1, round(shot.width * factor)), max(1, round(shot.height * factor))


def hold_out(shots: Sequence[Shot], every: int, source: Path) -> tuple[list[Shot], list[Shot]]:
    """(views to train on, views to test on): every n-th, from the first on, is tested on.

    Raises:
        UserError: one of the two is empty.
    """
    if every < 2 or len(shots) < 2:
        raise UserError(
            f"data.holdout={every} of the {len(shots)} views of {source} leaves none to train or test on; "
            "two views and data.holdout=2 is the least"
        )
    return [shot for i, shot in enumerate(shots) if i % every], list(shots[::every])


@dataclass(frozen=True)
class Placement:
    """Where a scene goes: x becomes scale * turn (x - center)."""

    center: Float[np.ndarray, "3"]
    scale: float
    turn: Float[np.ndarray, "3 3"]

    def __str__(self) -> str:
        center, *rows = (", ".join(f"{value:.6g}" for value in row) for row in (self.center, *self.turn))
        turned = "" if np.array_equal(self.turn, np.eye(3)) else f"[[{'], ['.join(rows)}]] "
        return f"{self.scale:.6g} {turned}(x - [{center}])"

    def points(self, points: Float[np.ndarray, "N 3"]) -> Float[np.ndarray, "N 3"]:
        return self.scale * (points - self.center) @ self.turn.T

    def shots(self, shots: Sequence[Shot]) -> list[Shot]:
        placed = []
        for shot in shots:
            c2w = shot.c2w.copy()
            c2w[:3, :3] = self.turn @ c2w[:3, :3]
            c2w[:3, 3] = self.points(shot.c2w[None, :3, 3])[0]
            placed.append(dataclasses.replace(shot, c2w=c2w))
        return placed

    def cloud(self, points: Float[np.ndarray, "N 3"], colors: Float[np.ndarray, "N 3"]) -> PointCloud:
        """Points of the file with sRGB in [0, 1]."""
        return PointCloud(torch.from_numpy(self.points(points)).float(), torch.from_numpy(colors).float())


def place(
    shots: Sequence[Shot],
    center: Sequence[float] | None,
    scale: float | None,
    points: Float[np.ndarray, "N 3"] | None = None,
    upright: bool = False,
) -> Placement:
    """Bring a scene into [-1, 1]^3.

    Without points the origin becomes the point nearest to all optical axes, and the largest ball about it that is inside the
    view of a typical (median) camera becomes the unit ball. With points the origin becomes their median, and the ball that
    holds nine tenths of them the unit ball.

    Args:
        shots: all views.
        center: what becomes the origin, in the file's units; None chooses it.
        scale: by which lengths are multiplied; None chooses it.
        points: of the scene; fewer than ten are left alone.
        upright: whether to turn the mean up direction of the cameras to +z.

    Raises:
        UserError: center and scale make no sense, or cannot be chosen because the cameras look at no common point.
    """
    if center is not None and (len(center) != 3 or not np.isfinite(center).all()):
        raise UserError(f"data.center={list(center)} must be three numbers")
    if scale is not None and not 0 < scale < math.inf:
        raise UserError(f"data.scale={scale} must be positive")
    if points is not None and len(points) < 10:
        points = None
    if center is not None:
        origin = np.array(center, np.float64)
    elif points is not None:
        origin = np.median(points, 0)
    else:
        origin = _focus(shots)
    if scale is None:
        far = None if points is None else np.percentile(np.linalg.norm(points - origin, axis=1), 90)
        radius = _visible(shots, origin) if far is None else float(far)
        if not radius > 0:
            raise UserError("all cameras or points are in one place; set data.scale")
        scale = 1 / radius
    turn = _turn_to_z(-np.mean([shot.c2w[:3, 1] for shot in shots], 0)) if upright else np.eye(3)
    return Placement(origin, scale, turn)


def _focus(shots: Sequence[Shot]) -> Float[np.ndarray, "3"]:
    """The point with the least squared distance to all optical axes."""
    forward, eyes = np.stack([shot.c2w[:3, 2] for shot in shots]), np.stack([shot.c2w[:3, 3] for shot in shots])
    across = np.eye(3) - forward[:, :, None] * forward[:, None]
    total = across.mean(0)
    if np.linalg.eigvalsh(total)[0] > 1e-3:
        focus = np.linalg.solve(total, (across @ eyes[..., None]).mean(0)[:, 0])
        if np.median(((focus - eyes) * forward).sum(1)) > 0:
            return focus
    raise UserError(f"the cameras of {shots[0].image.parent} look at no common point; set data.center and data.scale")


def _visible(shots: Sequence[Shot], center: Float[np.ndarray, "3"]) -> float:
    """Median radius of the balls about a point that the views see whole, were the point in their middle."""
    radii = []
    for shot in shots:
        K = shot.K
        slope = min(
            K[0, 2] / K[0, 0], (shot.width - K[0, 2]) / K[0, 0], K[1, 2] / K[1, 1], (shot.height - K[1, 2]) / K[1, 1]
        )
        radii.append(np.linalg.norm(shot.c2w[:3, 3] - center) * math.sin(math.atan(slope)))
    return float(np.median(radii))


def _turn_to_z(up: Float[np.ndarray, "3"]) -> Float[np.ndarray, "3 3"]:
    """The smallest rotation that takes a direction to +z."""
    length = np.linalg.norm(up)
    if length < 1e-6:
        return np.eye(3)
    x, y, z = up / length
    if z < -1 + 1e-9:
        return np.diag([1.0, -1.0, -1.0])
    return np.array(
        [[1 - x * x / (1 + z), -x * y / (1 + z), -x], [-x * y / (1 + z), 1 - y * y / (1 + z), -y], [x, y, z]]
    )


def depth_range(c2w: Float[np.ndarray, "V 4 4"], points: Float[np.ndarray, "N 3"] | None = None) -> tuple[float, float]:
    """(near, far) that hold [-1, 1]^3 and, roughly, what is beyond it: half the nearest hundredth of the points' depths and
    one and a half times the farthest."""
    distance, reach = np.linalg.norm(c2w[:, :3, 3], axis=1), math.sqrt(3)
    near, far = float(distance.min()) - reach, float(distance.max()) + reach
    if points is not None and len(points):
        forward, eyes = c2w[:, :3, 2], c2w[:, :3, 3]
        depths = points[:: 1 + len(points) // 10000] @ forward.T - (eyes * forward).sum(1)
        low, high = np.percentile(depths[depths > 0], (1, 99)) if (depths > 0).any() else (near, far)
        near, far = min(near, 0.5 * float(low)), max(far, 1.5 * float(high))
    return max(0.05, near), far
