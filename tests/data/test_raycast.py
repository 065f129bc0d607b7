"""Pictures follow the camera conventions and are exact."""

import dataclasses

import numpy as np
import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.data.raycast import EVENING, Caster, Mesh, render, render_rgba
from diffusion3d.data.toybox import solids
from diffusion3d.data.toybox.generate import draw, finish
from diffusion3d.data.toybox.parts import COLOURS, Builder


def cameras(azimuth=(0.0, 90.0), elevation=15.0, size=64):
    azimuth = torch.tensor([azimuth])
    return orbit(azimuth, torch.full_like(azimuth, elevation), 3.0, 40.0, size, size)


@pytest.fixture(scope="module")
def castle():
    return draw(0, 0, subject="castle").mesh


def sphere_mesh(radius=0.8):
    vertices, faces, normals = solids.ellipsoid((radius,) * 3, subdivisions=5)
    return Mesh(
        vertices.astype(np.float32),
        faces.astype(np.int32),
        np.full((len(faces), 3), 0.5, np.float32),
        np.ones(len(faces), np.int32),
        normals.astype(np.float32),
        ("ball",),
    )


def test_azimuth_0_sees_the_front_and_left_is_at_the_right_of_the_picture():
    b = Builder()
    b.box((1, 1, 1), np.array(COLOURS["grey"]), "body", (0, 0, 0))
    b.box((0.1, 0.5, 0.5), np.array(COLOURS["red"]), "front", (0.5, 0, 0))
    b.box((0.5, 0.1, 0.5), np.array(COLOURS["blue"]), "left", (0, 0.5, 0))
    b.box((0.3, 0.3, 0.3), np.array(COLOURS["green"]), "top", (0, 0, 0.6))
    views = render(finish(b), cameras((0.0, 90.0, 180.0), elevation=20.0))
    assert views.labels is not None
    seen = [set(views.labels[0, v].unique().tolist()) for v in range(3)]
    assert 2 in seen[0] and 2 not in seen[1] and 2 not in seen[2]
    assert 3 in seen[1] and 3 not in seen[2]
    _rows, columns = torch.nonzero(views.labels[0, 0, 0] == 3, as_tuple=True)
    assert (columns > 32).all()
    assert torch.nonzero(views.labels[0, 0, 0] == 4)[:, 0].float().mean() < 32


def test_depth_normals_and_labels_belong_to_the_mesh(castle):
    views = render(castle, cameras((20.0, 200.0)))
    mesh, cams = castle, views.cameras
    origins, directions = cams.rays()
    hit = views.labels[:, :, 0] > 0
    points = (origins + directions * views.depth[:, :, 0, ..., None])[hit].numpy()
    assert len(points) > 300
    assert (np.linalg.norm(points, axis=1) < 0.951).all()
    corners = mesh.vertices[mesh.faces]
    normal = solids.unit(np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]))
    for point in points[:: len(points) // 60]:
        near = np.abs(((point - corners[:, 0]) * normal).sum(1)) < 2e-4
        a, b, c = corners[near, 0], corners[near, 1], corners[near, 2]
        inside = [(np.cross(q - p, point - p) * normal[near]).sum(1) > -1e-4 for p, q in ((a, b), (b, c), (c, a))]
        assert np.logical_and.reduce(inside).any()
    normals = views.normals.permute(0, 1, 3, 4, 2)[hit]
    torch.testing.assert_close(normals.norm(dim=-1), torch.ones(len(normals)), atol=1e-5, rtol=0)
    assert ((normals * directions[hit]).sum(-1) < 1e-5).all()
    assert views.labels.max() <= len(mesh.names)
    assert (views.depth[:, :, 0][~hit] == 0).all() and (views.normals.permute(0, 1, 3, 4, 2)[~hit] == 0).all()


def test_alpha_of_a_sphere_is_exact():
    radius, samples = 0.8, 4
    cams = cameras((30.0,), size=32)
    views = render(sphere_mesh(radius), cams, samples=samples)
    fine = cams.resize(32 * samples, 32 * samples)
    origins, directions = fine.rays()
    directions = torch.nn.functional.normalize(directions, dim=-1)
    along = (origins * directions).sum(-1)
    inside = (origins.square().sum(-1) - along.square() < radius**2).float()[0]
    expected = torch.nn.functional.avg_pool2d(inside[:, None], samples)
    assert (views.alpha[0] - expected).abs().mean() < 2e-3
    assert (views.alpha[0] - expected).abs().max() <= 3 / samples**2
    centre = views.depth[0, 0, 0, 15:17, 15:17]
    torch.testing.assert_close(centre, torch.full((2, 2), 3 - radius), atol=5e-3, rtol=0)


def test_images_are_premultiplied_and_agree_with_the_fast_path(castle):
    cams = cameras((0.0, 135.0))
    views = render(castle, cams)
    assert (views.images <= views.alpha + 1e-6).all() and views.images.min() >= 0
    fast = render_rgba(castle, cams.c2w[0].numpy(), cams.K[0].numpy(), 64, 64)
    slow = torch.cat([views.images, views.alpha], 2)[0].permute(0, 2, 3, 1)
    assert (torch.from_numpy(fast).float() / 255 - slow).abs().max() < 0.51 / 255
    assert views.cameras is cams and views.images.dtype == torch.float32


def test_only_the_bounding_rectangle_is_cast_but_nothing_is_lost(castle, monkeypatch):
    cams = cameras((10.0,), elevation=-5.0)
    narrow = render(castle, cams)
    monkeypatch.setattr(Caster, "bounds", lambda self, viewmat, K, height, width: (0, height, 0, width))
    torch.testing.assert_close(narrow.images, render(castle, cams).images)


def test_colours_stay_near_their_names_and_no_side_is_black():
    views = render(sphere_mesh(), cameras((0.0, 90.0, 180.0, 270.0)))
    grey = views.images[:, :, 0][views.alpha[:, :, 0] == 1]
    assert grey.min() > 0.2 and 0.3 < grey.mean() < 0.52 and grey.max() <= 0.62


def test_lighting_can_be_chosen(castle):
    cams = cameras((0.0,))
    normal, evening = render(castle, cams), render(castle, cams, lighting=EVENING)
    torch.testing.assert_close(normal.alpha, evening.alpha)
    assert (normal.images - evening.images).abs().max() > 0.05


def test_cameras_of_several_scenes_are_refused(castle):
    cams = cameras()
    with pytest.raises(ValueError, match="one scene"):
        render(castle, dataclasses.replace(cams, c2w=cams.c2w.expand(2, -1, -1, -1), K=cams.K.expand(2, -1, -1, -1)))
