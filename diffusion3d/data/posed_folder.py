"""A folder of one's own captioned posed images.

    DIR/any name/transforms.json   nerfstudio's or Blender's: intrinsics and frames with file_path and transform_matrix
    DIR/any name/caption.txt       one caption per line, all of them used
    DIR/any name/...               the images, PNG or JPEG; RGBA gives alpha

Objects should lie in [-1, 1]^3, upright along z, their front along +x.
"""

from __future__ import annotations

from pathlib import Path

from diffusion3d.data.base import Splits
from diffusion3d.data.files import folder, read_text
from diffusion3d.data.shots import Shot, read_shots
from diffusion3d.data.transforms import read_frame, read_frames
from diffusion3d.errors import UserError


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
    names = sorted(path for path in folder(root).iterdir() if path.is_dir() and not path.name.startswith("."))
    if len(names) < 2:
        raise UserError(f"data.root={root} holds {len(names)} scene folders; give two or more (one is for validation)")
    scenes = [_shots(path, views) for path in names]
    captions = [_captions(path / "caption.txt") for path in names]
    held = min(max(1, round(validation * len(scenes))), len(scenes) - 1)
    return Splits(
        train=read_shots(scenes[:-held], captions[:-held], size, alpha=True),
        validation=read_shots(scenes[-held:], captions[-held:], size, alpha=True),
    )


def _captions(path: Path) -> tuple[str, ...]:
    captions = tuple(line.strip() for line in read_text(path).splitlines() if line.strip())
    if not captions:
        raise UserError(f"{path} is empty; write one caption per line")
    return captions


def _shots(scene: Path, views: int) -> list[Shot]:
    path = scene / "transforms.json"
    frames = read_frames(path)
    if len(frames) < views:
        raise UserError(
            f"{path} has {len(frames)} frames, fewer than data.views={views}; add some or set data.views lower"
        )
    shots = [read_frame(path, frames[i * len(frames) // views]) for i in range(views)]
    for shot in shots:
        if shot.width != shot.height:
            raise UserError(
                f"{shot.image} is {shot.width} x {shot.height} pixels, not square; crop or pad it to a square and move cx, "
                "cy, w and h along"
            )
    return shots
