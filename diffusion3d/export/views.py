"""The views of a scene that meshes and data sets are made from."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from diffusion3d.cameras import Cameras, orbit
from diffusion3d.export.pictures import to_uint8
from diffusion3d.files import whole, write_text
from diffusion3d.rendering.render import EMPTY_ALPHA, Render

GOLDEN_ANGLE = 180 * (3 - math.sqrt(5))
OPENGL = (1.0, -1.0, -1.0, 1.0)


def spread(count: int, elevation: tuple[float, float], distance: float, fov: float, size: int) -> Cameras:
    """`count` cameras evenly over the part of a sphere between two elevations (degrees) around the origin, looking at it.

    Args:
        distance: from the origin, world units.
        fov: vertical field of view, degrees.
        size: side of the square views, pixels.
    """
    low, high = (math.sin(math.radians(value)) for value in elevation)
    number = torch.arange(count, dtype=torch.float32)
    heights = low + (high - low) * (number + 0.5) / count
    return orbit((GOLDEN_ANGLE * number)[None], heights.asin().rad2deg()[None], distance, fov, size, size)


def write_transforms(folder: Path, render: Render, cameras: Cameras) -> Path:
    """Views of scene 0 as RGBA PNGs (colours not multiplied by alpha) and a transforms.json for nerfstudio, instant-ngp and
    readers of Blender's NeRF scenes: OpenGL cameras, world z up. The json comes last, so it names whole files only."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rgb, alpha = render.rgb[0], render.alpha[0]
    straight = torch.where(alpha < EMPTY_ALPHA, 0.0, rgb / alpha.clamp(min=EMPTY_ALPHA))
    channels = [to_uint8(part.movedim(1, -1).expand(-1, -1, -1, 3)) for part in (straight, alpha)]
    pictures = np.concatenate([channels[0], channels[1][..., :1]], -1)
    poses = (cameras.c2w[0] * cameras.c2w.new_tensor(OPENGL)).double().cpu().tolist()
    (fx, _, cx), (_, fy, cy), _ = cameras.K[0, 0].double().cpu().tolist()
    frames = []
    for number, (picture, pose) in enumerate(zip(pictures, poses, strict=True)):
        name = f"{number:04d}.png"
        with whole(images / name) as temporary:
            Image.fromarray(picture).save(temporary)
        frames.append({"file_path": f"images/{name}", "transform_matrix": pose})
    content = {
        "camera_model": "OPENCV",
        "camera_angle_x": 2 * math.atan(cameras.width / (2 * fx)),
        "camera_angle_y": 2 * math.atan(cameras.height / (2 * fy)),
        "fl_x": fx,
        "fl_y": fy,
        "cx": cx,
        "cy": cy,
        "w": cameras.width,
        "h": cameras.height,
        "aabb_scale": 1,
        "frames": frames,
    }
    path = folder / "transforms.json"
    write_text(path, json.dumps(content, indent=1) + "\n")
    return path
