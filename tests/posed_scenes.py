"""A folder of captioned posed images, drawn on the spot and written as other programs write it."""

import json
import math

import numpy as np
from PIL import Image

from diffusion3d.camera_sampling import Orbit
from diffusion3d.data.raycast import render
from diffusion3d.data.toybox.generate import draw

FOV, SIZE = 40.0, 32
FLIP = np.diag([1.0, -1.0, -1.0, 1.0])


def write_scene(folder, number=0, views=4, alpha=True):
    """One toy object, straight alpha, in Blender's layout. Returns what was drawn."""
    obj = draw(0, number)
    cameras = Orbit(SIZE, fov=FOV).turntable(views, elevation=(10.0, 30.0))
    drawn = render(obj.mesh, cameras)
    folder.mkdir(parents=True)
    frames = []
    for view in range(views):
        opacity = drawn.alpha[0, view].permute(1, 2, 0).numpy()
        colour = drawn.images[0, view].permute(1, 2, 0).numpy() / np.maximum(opacity, 1e-6)
        picture = np.concatenate([colour, opacity], 2) if alpha else colour
        Image.fromarray((picture.clip(0, 1) * 255).round().astype(np.uint8)).save(folder / f"r_{view}.png")
        matrix = cameras.c2w[0, view].double().numpy() @ FLIP
        frames.append({"file_path": f"./r_{view}", "transform_matrix": matrix.tolist()})
    content = {"camera_angle_x": math.radians(FOV), "frames": frames}
    (folder / "transforms.json").write_text(json.dumps(content))
    (folder / "caption.txt").write_text(f"a {obj.subject}\n\nthe {obj.subject}, number {number}\n")
    return drawn


def write_scenes(root, count=3, views=4):
    return [write_scene(root / f"scene_{number}", number, views) for number in range(count)]


def training(root, *more):
    """What makes a small training on scenes written to `root`."""
    return [
        "task=train",
        "data=posed_folder",
        f"data.root={root}",
        f"data.size={SIZE}",
        "data.views=4",
        "logger=none",
        "device=cpu",
        "task.validation_batches=1",
        "task.warmup=2",
        "task.preview_prompts=[a castle]",
        *more,
    ]
