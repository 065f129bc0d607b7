import json

import numpy as np
import pytest
import torch
from PIL import Image

from analytic_scenes import Analytic, Sphere
from diffusion3d.export.pictures import render_views
from diffusion3d.export.views import spread, write_transforms
from diffusion3d.rendering.render import Render


def test_cameras_are_spread_evenly_and_look_at_the_centre():
    cameras = spread(200, (-30.0, 60.0), 2.5, 50.0, 32)
    assert cameras.elevation.min() > -30 and cameras.elevation.max() < 60
    torch.testing.assert_close(cameras.origins.norm(dim=-1), torch.full((1, 200), 2.5))
    pixels, depth = cameras.project(torch.zeros(1, 1, 3))
    torch.testing.assert_close(pixels, torch.full_like(pixels, 16.0), atol=1e-3, rtol=0)
    assert (depth > 0).all()
    gaps = torch.cdist(cameras.origins[0], cameras.origins[0]).fill_diagonal_(9).amin(1)
    assert gaps.min() > 0.5 * gaps.max() > 0
    assert spread(1, (10.0, 10.0), 3.0, 40.0, 8).elevation.item() == pytest.approx(10, abs=1e-3)


def test_points_project_into_the_pictures_as_transforms_say(tmp_path):
    """Reading transforms.json by its own definition (OpenGL cameras), balls are seen where they should be, in their colour."""
    centers = [(0.5, 0.0, 0.0), (0.0, 0.6, 0.1), (-0.2, -0.3, 0.7)]

    class Balls(Analytic):
        def hit(self, rays_o, rays_d):
            hits = [Sphere(center, 0.12).hit(rays_o, rays_d) for center in centers]
            depth, which = torch.stack([depth for depth, _ in hits]).min(0)
            self.which = which
            return depth, hits[0][1]

        def color(self, points):
            return torch.eye(3)[self.which[..., 0]]

    size = 120
    cameras = spread(6, (-20.0, 50.0), 3.0, 40.0, size)
    path = write_transforms(tmp_path / "t", render_views(Balls(), cameras), cameras)
    content = json.loads(path.read_text())
    assert (content["w"], content["h"], len(content["frames"])) == (size, size, 6)
    assert content["fl_x"] == pytest.approx(0.5 * size / np.tan(np.deg2rad(20)), rel=1e-5)
    assert content["camera_angle_x"] == pytest.approx(np.deg2rad(40), rel=1e-5)
    seen = 0
    for frame in content["frames"]:
        picture = np.asarray(Image.open(path.parent / frame["file_path"]))
        assert picture.shape == (size, size, 4) and picture.dtype == np.uint8
        pose = np.array(frame["transform_matrix"])
        assert np.allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-5) and np.linalg.det(pose) > 0
        local = (np.linalg.inv(pose) @ np.c_[centers, np.ones(3)].T)[:3]
        assert (local[2] < 0).all(), "OpenGL cameras look along -z"
        x = content["fl_x"] * local[0] / -local[2] + content["cx"]
        y = content["fl_y"] * -local[1] / -local[2] + content["cy"]
        for ball in np.argsort(-local[2])[:1]:
            pixel = picture[int(y[ball]), int(x[ball])]
            assert pixel[3] == 255 and pixel[ball] == 255 and pixel[:3].sum() == 255
            seen += 1
    assert seen == 6


def test_colours_are_not_multiplied_by_alpha(tmp_path):
    class Glass:
        def render(self, cameras, pixels=None, sources=None, shading=None):
            alpha = torch.full((1, cameras.shape[1], 1, 4, 4), 0.5)
            alpha[..., 2:] = 0
            return Render(alpha * torch.tensor([1.0, 0.6, 0.2])[:, None, None], alpha, 3 * alpha)

    cameras = spread(2, (0.0, 30.0), 3.0, 40.0, 4)
    write_transforms(tmp_path, render_views(Glass(), cameras), cameras)
    picture = np.asarray(Image.open(tmp_path / "images" / "0001.png"))
    assert picture[0, 0].tolist() == [255, 153, 51, 128] and picture[0, 3].tolist() == [0, 0, 0, 0]
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["0000.png", "0001.png", "transforms.json"]
