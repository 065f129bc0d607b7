import pytest
import torch

from analytic_scenes import Box, Sphere
from diffusion3d.cameras import Cameras, orbit
from diffusion3d.rendering.depth import depth_normals, depth_points, seen_normals


def views(scene, size=96):
    cameras = orbit(torch.tensor([[20.0, 130.0, 250.0]]), torch.tensor([[10.0, -50.0, 70.0]]), 3.0, 40.0, size, size)
    return scene.render(cameras), cameras


@pytest.mark.parametrize("scene", [Sphere(), Box()])
def test_points_lie_on_the_surface(scene):
    render, cameras = views(scene)
    points = depth_points(render.depth, cameras).movedim(2, -1)[render.alpha[:, :, 0] > 0]
    assert len(points) > 1000 and scene.distance(points).abs().max() < 1e-5


@pytest.mark.parametrize(("scene", "error"), [(Sphere(), 1e-3), (Box(), 1e-5)])
def test_normals_are_those_of_the_surface(scene, error):
    render, cameras = views(scene)
    cosine = (depth_normals(render.depth, cameras) * render.normals).sum(2)[render.alpha[:, :, 0] > 0]
    assert (1 - cosine).median() < error and (cosine > 0.95).float().mean() > 0.93
    length = depth_normals(render.depth, cameras).norm(dim=2)[render.alpha[:, :, 0] > 0]
    torch.testing.assert_close(length, torch.ones_like(length))


def test_an_edge_does_not_blur_normals():
    """Each side of a box keeps its own normal up to the pixel at the edge."""
    render, cameras = views(Box())
    cosine = (depth_normals(render.depth, cameras) * render.normals).sum(2)[render.alpha[:, :, 0] > 0]
    assert (cosine > 0.999).float().mean() > 0.96, "all but corners of the silhouette"


def test_given_normals_count_and_one_pixel_is_enough():
    render, cameras = views(Sphere())
    assert seen_normals(render, cameras) is render.normals
    one = Cameras(cameras.c2w, cameras.K, 1, 1)
    assert depth_normals(render.depth[..., :1, :1], one).shape == (1, 3, 3, 1, 1)
