"""Captures in the layouts that other programs write, with known points painted as dots by the formulas of those programs."""

import json
import math

import numpy as np
import pycolmap
from PIL import Image

from dots import paint, ring

POINTS = np.array([[0.5, -0.6, 0.3], [-0.4, 0.2, 0.8], [0.1, 0.9, -0.7]])
CENTER = np.array([3.0, -2.0, 1.0])
WIDTH, HEIGHT = 96, 64


def matrices(views):
    eyes, right, up, back = ring(views, center=CENTER)
    return np.stack([np.vstack([np.stack([right[v], up[v], back[v], eyes[v]], 1), [0, 0, 0, 1]]) for v in range(views)])


def seen(matrix, focal_x, focal_y, cx, cy):
    """Where a camera that looks along its own -z, y up, draws the points."""
    local = np.c_[POINTS + CENTER, np.ones(3)] @ np.linalg.inv(matrix).T
    return [(cx + focal_x * x / -z, cy - focal_y * y / -z) for x, y, z, _ in local]


def blender(root, parts=("train", "test"), views=5, alpha=False):
    """NeRF-synthetic's layout: camera_angle_x and names without suffix."""
    angle = 0.9
    focal = 0.5 * WIDTH / math.tan(angle / 2)
    every = matrices(views * len(parts))
    for number, part in enumerate(parts):
        frames = []
        for view, matrix in enumerate(every[number :: len(parts)]):
            image = root / part / f"r_{view}.png"
            paint(image, seen(matrix, focal, focal, WIDTH / 2, HEIGHT / 2), WIDTH, HEIGHT)
            if alpha:
                picture = Image.open(image).convert("RGBA")
                picture.putalpha(128)
                picture.save(image)
            frames.append({"file_path": f"./{part}/r_{view}", "rotation": 0.01, "transform_matrix": matrix.tolist()})
        (root / f"transforms_{part}.json").write_text(json.dumps({"camera_angle_x": angle, "frames": frames}))
    return root


MODELS = {
    "SIMPLE_PINHOLE": [90.0, 50.0, 30.0],
    "PINHOLE": [90.0, 85.0, 50.0, 30.0],
    "OPENCV": [90.0, 85.0, 50.0, 30.0, 0.0, 0.0, 0.0, 0.0],
}


def colmap_scene(root, model="PINHOLE", parameters=None, binary=True):
    """A scene of eight views and twenty points, three of which are painted red, green and blue."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig, options.num_frames_per_rig, options.num_points3D = 1, 1, 8, 20
    options.camera_width, options.camera_height = WIDTH, HEIGHT
    options.camera_model_id = getattr(pycolmap.CameraModelId, model)
    options.camera_params = parameters or MODELS[model]
    pycolmap.set_random_seed(0)
    made = pycolmap.synthesize_dataset(options)
    shown = [made.points3D[number] for number in sorted(made.points3D)[:3]]
    for number, point in enumerate(shown):
        point.color = np.eye(3, dtype=np.uint8)[number] * 255
    for image in made.images.values():
        paint(root / "images" / image.name, [image.project_point(point.xyz) for point in shown], WIDTH, HEIGHT)
    where = root / "sparse" / "0"
    where.mkdir(parents=True)
    (made.write_binary if binary else made.write_text)(where)
    return made


CAR_POINTS = np.array([[0.2, -0.25, 0.1], [-0.15, 0.1, 0.3], [0.05, 0.3, -0.25]])
CAR_FOCAL, CAR_SIZE = 131.25, 128


def srn_instance(folder, views=6, distance=1.3):
    """SRN's layout: 131.25-pixel cameras at a distance of 1.3, as the cars have; x right, y down, z forward."""
    eyes, right, up, back = ring(views, distance, 0.3)
    for name in ("pose", "rgb"):
        (folder / name).mkdir(parents=True)
    for view in range(views):
        matrix = np.eye(4)
        matrix[:3] = np.stack([right[view], -up[view], -back[view], eyes[view]], 1)
        (folder / "pose" / f"{view:06d}.txt").write_text(" ".join(repr(float(value)) for value in matrix.ravel()))
        local = (CAR_POINTS - eyes[view]) @ np.stack([right[view], up[view], back[view]], 1)
        paint(
            folder / "rgb" / f"{view:06d}.png",
            [(64 + CAR_FOCAL * x / -z, 64 - CAR_FOCAL * y / -z) for x, y, z in local],
            CAR_SIZE,
            CAR_SIZE,
        )
    (folder / "intrinsics.txt").write_text("131.250000 64.000000 64.000000 0.\n0. 0. 0.\n1.\n128 128\n")
