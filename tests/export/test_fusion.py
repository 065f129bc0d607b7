"""Meshes of scenes that are known in closed form."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from trimesh.sample import sample_surface

from analytic_scenes import Analytic, Box, Several, Sphere
from diffusion3d.errors import UserError
from diffusion3d.export.fusion import fronts, fuse, surface
from diffusion3d.export.pictures import render_views
from diffusion3d.export.views import spread
from diffusion3d.rendering.render import Render
from diffusion3d.rendering.volume import VolumeRenderer
from diffusion3d.representations.field import FieldScene

SIZE, VIEWS, RESOLUTION = 128, 40, 64


def mesh_of(scene, elevation=(-80.0, 80.0), parts=0.01, smooth=0.5, resolution=RESOLUTION):
    cameras = spread(VIEWS, elevation, 3.0, 40.0, SIZE)
    with torch.no_grad():
        grid = fuse(fronts(render_views(scene, cameras)), cameras, resolution)
    return surface(grid, parts, smooth), grid.side


def distances(mesh, scene):
    """Of points of the mesh to the true surface."""
    points, _ = sample_surface(mesh, 20_000, seed=0)
    return scene.distance(torch.from_numpy(np.asarray(points))).abs()


@pytest.mark.parametrize("normals", [True, False])
@pytest.mark.parametrize(("scene", "volume"), [(Sphere, 4 / 3 * math.pi * 0.6**3), (Box, 8 * 0.7 * 0.35 * 0.5)])
def test_the_mesh_is_the_solid(scene, volume, normals):
    scene = scene(normals=normals)
    mesh, side = mesh_of(scene)
    assert mesh.is_watertight and mesh.is_winding_consistent and mesh.body_count == 1
    assert mesh.volume == pytest.approx(volume, rel=0.015), "positive: faces look outwards"
    away = distances(mesh, scene)
    assert away.mean() < 0.12 * side and away.max() < 0.7 * side
    points, faces = sample_surface(mesh, 4000, seed=1)
    inward = torch.from_numpy(points - 1e-3 * mesh.face_normals[faces])
    assert (scene.distance(inward) < scene.distance(torch.from_numpy(np.asarray(points)))).double().mean() > 0.99


def test_no_part_of_the_surface_is_missing():
    """The other way round: points of the true surface are near the mesh."""
    scene = Sphere()
    mesh, side = mesh_of(scene)
    direction = torch.nn.functional.normalize(torch.randn(500, 3, generator=torch.Generator().manual_seed(0)), dim=-1)
    points = torch.tensor(scene.center) + scene.radius * direction
    assert cKDTree(mesh.vertices).query(points.numpy())[0].max() < side


@pytest.mark.parametrize(("half", "error"), [((0.7, 0.7, 0.03), 0.2), ((0.05, 0.05, 0.8), 0.2)])
def test_thin_things_neither_vanish_nor_grow(half, error):
    mesh, side = mesh_of(Box((0.0, 0.0, 0.0), half), resolution=96)
    assert mesh.is_watertight and mesh.volume == pytest.approx(8 * math.prod(half), rel=error)
    np.testing.assert_allclose(mesh.extents, 2 * np.array(half), atol=2 * side)


PAIR = Several((Sphere((-0.5, 0.0, 0.0), 0.3), Box((0.5, 0.0, 0.0), (0.25, 0.25, 0.25))))
CRUMB = Several((Sphere(), Sphere((0.8, 0.8, 0.0), 0.05)))


@pytest.mark.parametrize(
    ("scene", "parts", "bodies"), [(PAIR, 0.01, 2), (PAIR, 0.95, 1), (CRUMB, 0.01, 1), (CRUMB, 0, 2)]
)
def test_small_pieces_are_dropped(scene, parts, bodies):
    mesh, _ = mesh_of(scene, parts=parts)
    assert mesh.is_watertight and mesh.body_count == bodies


def test_what_no_view_sees_is_inside():
    """From above only, the underside of a ball is closed by the shadow of the views."""
    scene = Sphere((0.0, 0.0, 0.0), 0.5)
    mesh, side = mesh_of(scene, elevation=(20.0, 80.0))
    assert mesh.is_watertight and mesh.body_count == 1
    top = mesh.vertices[:, 2] > 0.1
    assert scene.distance(torch.from_numpy(mesh.vertices[top])).abs().max() < side
    assert mesh.volume > 4 / 3 * math.pi * 0.5**3


def test_cavities_are_filled():
    """A hole in the field that no view could have made."""
    scene = Sphere()
    cameras = spread(VIEWS, (-80.0, 80.0), 3.0, 40.0, SIZE)
    grid = fuse(render_views(scene, cameras), cameras, RESOLUTION)
    middle = tuple(np.array(grid.values.shape) // 2)
    grid.values[tuple(slice(m - 5, m + 5) for m in middle)] = 1
    mesh = surface(grid)
    assert mesh.body_count == 1 and mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.015)


class Mist(Analytic):
    def __init__(self, alpha):
        self.alpha = alpha

    def render(self, cameras, pixels=None, sources=None, shading=None):
        alpha = torch.full((1, cameras.shape[1], 1, cameras.height, cameras.width), self.alpha)
        return Render(alpha.expand(-1, -1, 3, -1, -1), alpha, 3 * alpha)


def test_a_ball_of_mist_keeps_its_size():
    def ball(points, sources=None):
        return 8.0 * (points.norm(dim=-1) < 0.6).float(), torch.full_like(points, 0.5)

    mesh, _ = mesh_of(FieldScene(ball, VolumeRenderer(samples=128)))
    assert mesh.volume == pytest.approx(4 / 3 * math.pi * 0.6**3, rel=0.1)


@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_nothing_and_mist_have_no_surface(alpha):
    with pytest.raises(UserError, match="no view shows anything"):
        mesh_of(Mist(alpha))


def test_a_crumb_below_a_voxel_is_refused():
    scene = Several((Sphere((-0.9, 0.0, 0.0), 0.02), Sphere((0.9, 0.0, 0.0), 0.02)))
    with pytest.raises(UserError, match="thinner than a voxel; raise task.resolution"):
        mesh_of(scene, resolution=8)
