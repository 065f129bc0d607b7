"""Gaussians made of files that other libraries wrote."""

import numpy as np
import pytest
import torch
import trimesh

from choices import cameras, composed
from diffusion3d.errors import UserError
from diffusion3d.representations.gsplat import GaussianSplats
from diffusion3d.representations.starting import of_points
from diffusion3d.tasks.build import build
from diffusion3d.views import PointCloud

RATES = dict.fromkeys(("means", "quats", "scales", "opacities", "colors", "sh"), 0.01)


def splats(**arguments):
    return GaussianSplats(RATES, **arguments)


def test_a_mesh_is_covered_in_its_colours(tmp_path):
    mesh = trimesh.creation.icosphere(subdivisions=3, radius=0.5)
    mesh.visual.face_colors = np.where(mesh.triangles_center[:, 2:] > 0, [[255, 0, 0, 255]], [[0, 0, 255, 255]])
    mesh.export(tmp_path / "ball.ply")
    raw = splats(count=500, start=str(tmp_path / "ball.ply"), opacity=0.3).init(2)
    assert raw["means"].shape == (2, 500, 3) and torch.equal(raw["means"][0], raw["means"][1])
    torch.testing.assert_close(raw["means"].norm(dim=-1), torch.full((2, 500), 0.5), atol=0.01, rtol=0)
    torch.testing.assert_close(raw["opacities"].sigmoid(), torch.full((2, 500), 0.3))
    up = raw["means"][0, :, 2] > 0.05
    assert (raw["colors"][0, up].sigmoid()[:, 0] > 0.9).all() and (raw["colors"][0, up].sigmoid()[:, 2] < 0.1).all()


def test_points_of_a_capture_are_taken_and_evenly_thinned():
    points = PointCloud(torch.rand(1000, 3), torch.rand(1000, 3))
    raw = splats(count=100).init(1, points=points)
    assert raw["means"].shape == (1, 100, 3) and torch.equal(raw["means"][0, -1], points.points[-1])
    assert splats(count=3000).init(1, points=points)["means"].shape == (1, 1000, 3)


def test_sizes_are_the_distance_to_the_neighbours():
    line = torch.tensor([[0.0, 0, 0], [0.1, 0, 0], [0.2, 0, 0], [0.3, 0, 0]])
    scales = of_points(line, torch.rand(4, 3), 0.5).log_scales.exp()
    torch.testing.assert_close(scales[:, 0], torch.tensor([0.2, 0.4 / 3, 0.4 / 3, 0.2]))
    assert of_points(line[:1], torch.rand(1, 3), 0.5).log_scales.shape == (1, 3)


def test_an_exported_scene_is_where_another_run_starts(tmp_path):
    first = splats(count=50, sh_degree=2)
    raw = first.init(1, torch.Generator().manual_seed(0))
    raw["sh"] = 0.1 * torch.randn(raw["sh"].shape)
    raw["colors"] = torch.randn(raw["colors"].shape)
    (tmp_path / "scene.ply").write_bytes(first.export(raw)["scene.ply"])
    node = composed(f"representation.start={tmp_path / 'scene.ply'}", "representation.sh_degree=2").representation
    again = build(node)
    views = cameras(1, 3)
    one, other = first.scene(raw).render(views), again.scene(again.init(1)).render(views)
    torch.testing.assert_close(one.rgb, other.rgb, atol=1e-4, rtol=0)
    flat = splats(start=str(tmp_path / "scene.ply")).init(1)
    assert "sh" not in flat
    more = splats(start=str(tmp_path / "scene.ply"), sh_degree=3).init(1)
    assert torch.equal(more["sh"][:, :, :8], again.init(1)["sh"]) and (more["sh"][:, :, 8:] == 0).all()


def test_harmonics_change_the_colour_with_the_direction():
    both = splats(count=30, sh_degree=1, scale=0.2, opacity=0.9)
    raw = both.init(1, torch.Generator().manual_seed(0))
    views = cameras(1, 2)
    plain = splats(count=30, scale=0.2, opacity=0.9)
    without = plain.scene({name: value for name, value in raw.items() if name != "sh"}).render(views).rgb
    torch.testing.assert_close(both.scene(raw).render(views).rgb, without, atol=1e-5, rtol=0)
    raw["sh"][:, :, 2] = 0.5  # along x
    changed = both.scene(raw).render(views).rgb
    assert (changed - without).abs().max() > 0.05


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "is not a file"), (b"ply\nnonsense", "cannot read|holds neither"), (b"", "cannot read|neither")],
)
def test_bad_files_are_refused_by_name(content, message, tmp_path):
    path = tmp_path / "odd.ply"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        splats(start=str(path)).init(1)
    assert "odd.ply" in str(caught.value) and "\n" not in str(caught.value)


def test_degrees_beyond_three_are_refused():
    with pytest.raises(UserError, match="sh_degree=4 must be 0, 1, 2 or 3"):
        splats(sh_degree=4)
