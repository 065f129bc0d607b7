"""Cars and chairs of Scene Representation Networks (Sitzmann et al. 2019), ShapeNet objects rendered on white.

    INSTANCE/intrinsics.txt   focal length and centre in the first line, height and width in the last
    INSTANCE/pose/000000.txt  camera-to-world in OpenCV axes, 16 numbers
    INSTANCE/rgb/000000.png

The world is z up already, objects about half a unit in radius at the origin, so they are only enlarged. Which way they face is
left as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from diffusion3d.data.base import Splits
from diffusion3d.data.files import folder, inside, read_text
from diffusion3d.data.shots import Shot, check_pose, hold_out, make_shot, place, read_shots
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.errors import UserError


def srn(
    root: str,
    split: str = "train",
    scenes: int | None = 8,
    size: int | None = None,
    holdout: int = 8,
    center: Sequence[float] | None = (0.0, 0.0, 0.0),
    scale: float | None = None,
) -> Splits:
    """Scenes from `root`, which holds cars_train, cars_val, cars_test or instances or is one instance.

    Args:
        root: the folder.
        split: train, val or test: which folder, where there are several. Their instances differ.
        scenes: how many instances, the first by name; None is all.
        size: longer side that images are scaled to, pixels; None leaves them as they are.
        holdout: every n-th view of an instance is a test view.
        center, scale: see `place`.

    Raises:
        UserError: a file is missing or wrong, images differ in shape, instances in the number of views.
    """
    if scenes is not None and scenes < 1:
        raise UserError(f"data.scenes={scenes} must be at least 1")
    base = folder(root)
    part = next(iter(sorted(path for path in base.glob(f"*_{split}") if path.is_dir())), base)
    found = sorted({path.parent for level in ("", "*/", "*/*/") for path in part.glob(f"{level}intrinsics.txt")})
    if not found:
        raise UserError(f"{part} holds no folders with an intrinsics.txt")
    train: list[list[Shot]] = []
    test: list[list[Shot]] = []
    for instance in found[:scenes]:
        shots = _shots(instance)
        placed = place(shots, center, scale).shots(shots)
        for kept, views in zip((train, test), hold_out(placed, holdout, instance), strict=True):
            kept.append(views)
    what = part.resolve().name.partition("_")[0].removesuffix("s")
    captions = [[with_article(what)]] * len(train)
    return Splits(train=read_shots(train, captions, size), test=read_shots(test, captions, size))


def _shots(instance: Path) -> list[Shot]:
    path = instance / "intrinsics.txt"
    lines = [line.split() for line in read_text(inside(instance, path.name, instance)).splitlines() if line.strip()]
    try:
        focal, cx, cy = (float(value) for value in lines[0][:3])
        height, width = (int(value) for value in lines[-1])
    except (ValueError, IndexError):
        raise UserError(f"{path} does not begin with focal length and centre and end with height and width") from None
    if not (np.isfinite([focal, cx, cy]).all() and focal > 0):
        raise UserError(f"{path} gives no sound focal length and centre: {focal} {cx} {cy}")
    K = np.array([[focal, 0, cx], [0, focal, cy], [0, 0, 1]])
    poses = sorted((instance / "pose").glob("*.txt"))
    if not poses:
        raise UserError(f"{instance / 'pose'} holds no poses")
    shots = []
    for pose in poses:
        image = inside(instance, f"rgb/{pose.stem}.png", pose)
        if not image.is_file():
            raise UserError(f"{image} is missing, whose pose is {pose}")
        try:
            matrix = np.array(read_text(inside(instance, f"pose/{pose.name}", instance)).split(), np.float64).reshape(
                4, 4
            )
        except ValueError:
            raise UserError(f"{pose} does not hold 16 numbers") from None
        shots.append(make_shot(image, check_pose(matrix, str(pose)), K, width, height, path))
    return shots
