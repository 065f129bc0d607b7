"""Gaussians made of files that other libraries wrote."""

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from trimesh.visual import TextureVisuals
from trimesh.visual.material import PBRMaterial, SimpleMaterial

from choices import cameras, composed
from diffusion3d.data.textured import Y_UP
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


@pytest.mark.parametrize(
    ("name", "given", "left", "right"),
    [
        ("a.glb", ["texture"], (1, 0, 0), (0, 0, 1)),
        ("a.obj", ["texture"], (1, 0, 0), (0, 0, 1)),
        ("a.glb", ["factor"], (0, 0.735, 1), (0, 0.735, 1)),
        ("a.obj", ["factor"], (0, 0.5, 1), (0, 0.5, 1)),
        ("a.glb", ["texture", "factor"], (0, 0, 0), (0, 0, 1)),
    ],
)
def test_a_material_colours_what_covers_its_mesh(name, given, left, right, tmp_path):
    """A glTF's factor is linear and multiplies its texture; an MTL's is sRGB."""
    corners = np.array([[0.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    texture = Image.new("RGB", (64, 64), (255, 0, 0))
    texture.paste((0, 0, 255), (32, 0, 64, 64))
    kind, names = (
        (PBRMaterial, ("baseColorTexture", "baseColorFactor"))
        if name == "a.glb"
        else (SimpleMaterial, ("image", "diffuse"))
    )
    values = dict(zip(("texture", "factor"), zip(names, (texture, [0, 128, 255, 255]), strict=True), strict=True))
    visual = TextureVisuals(uv=corners[:, :2], material=kind(**dict(values[one] for one in given)))
    trimesh.Trimesh(corners, [[0, 1, 2], [0, 2, 3]], visual=visual, process=False).export(tmp_path / name)
    raw = splats(count=500, start=str(tmp_path / name)).init(1)
    along = (raw["means"][0] @ torch.from_numpy(Y_UP).float())[:, 0]
    for low, high, color in ((0.05, 0.45, left), (0.55, 0.95, right)):
        found = raw["colors"][0, (along > low) & (along < high)].sigmoid()
        assert len(found) > 150
        torch.testing.assert_close(found, torch.tensor(color).float().expand_as(found), atol=0.01, rtol=0)


def test_points_without_colours_are_grey(tmp_path):
    trimesh.PointCloud(np.random.default_rng(0).random((20, 3))).export(tmp_path / "points.ply")
    colors = splats(count=50, start=str(tmp_path / "points.ply")).init(1)["colors"]
    torch.testing.assert_close(colors.sigmoid(), torch.full((1, 20, 3), 128 / 255))


@pytest.mark.parametrize(("name", "expected"), [("a.obj", (3, 1, 2)), ("a.glb", (3, 1, 2)), ("a.ply", (1, 2, 3))])
def test_meshes_stand_upright(name, expected, tmp_path):
    ball = trimesh.creation.icosphere(radius=0.1)
    ball.apply_translation((1, 2, 3))
    ball.export(tmp_path / name)
    means = splats(count=500, start=str(tmp_path / name)).init(1)["means"]
    torch.testing.assert_close(means.mean((0, 1)), torch.tensor(expected).float(), atol=0.02, rtol=0)


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


@pytest.mark.parametrize(("degree", "said"), [(0, True), (1, True), (2, False), (3, False)])
def test_harmonics_that_are_dropped_are_named(degree, said, tmp_path, caplog):
    first = splats(count=5, sh_degree=2)
    raw = first.init(1)
    raw["sh"] = torch.ones_like(raw["sh"])
    (tmp_path / "scene.ply").write_bytes(first.export(raw)["scene.ply"])
    splats(start=str(tmp_path / "scene.ply"), sh_degree=degree).init(1)
    line = f"scene.ply has spherical harmonics of degree 2; those above representation.sh_degree={degree} are dropped"
    assert (line in caplog.text) == said == bool(caplog.records)


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


def ply(vertices=3, corner=2, x="0"):
    """A triangle, with so many vertices in the header."""
    fields = "".join(f"property float {axis}\n" for axis in "xyz")
    head = f"ply\nformat ascii 1.0\nelement vertex {vertices}\n{fields}"
    head += "element face 1\nproperty list uchar int vertex_indices\nend_header\n"
    return f"{head}{x} 0 0\n1 0 0\n0 1 0\n3 0 1 {corner}\n".encode()


def test_the_ply_below_is_sound_when_it_is_not_spoilt(tmp_path):
    (tmp_path / "a.ply").write_bytes(ply())
    assert splats(count=9, start=str(tmp_path / "a.ply")).init(1)["means"].shape == (1, 9, 3)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("odd.ply", None, "is not a file"),
        ("odd.ply", b"ply\nnonsense", "is no whole PLY"),
        ("odd.ply", b"", "is no whole PLY"),
        ("odd.ply", ply(corner=7), "has faces of vertices that are not there"),
        ("odd.ply", ply(corner=-2), "has faces of vertices that are not there"),
        ("odd.ply", ply(vertices=5), "has 4 lines of data, but its header says 6"),
        ("odd.ply", ply(vertices=2), "has 4 lines of data, but its header says 3"),
        ("odd.ply", ply(x="nan"), "NaN or infinite"),
        ("odd.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", "cannot read"),
    ],
)
def test_bad_files_are_refused_by_name(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        splats(start=str(path)).init(1)
    assert name in str(caught.value) and "\n" not in str(caught.value)


def test_degrees_beyond_three_are_refused():
    with pytest.raises(UserError, match="sh_degree=4 must be 0, 1, 2 or 3"):
        splats(sh_degree=4)
