"""Mesh files, read by trimesh, pygltflib and plyfile and compared with scenes that are known in closed form."""

import dataclasses
import io
import json
import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData
from pygltflib import GLTF2
from scipy.ndimage import map_coordinates
from trimesh.triangles import points_to_barycentric

from analytic_scenes import Box, Several, Sphere
from diffusion3d.cameras import orbit
from diffusion3d.export.colouring import view_colors
from diffusion3d.export.meshes import SceneMesh, decimated, write_glb, write_mesh_ply, write_obj
from diffusion3d.export.pictures import render_views
from diffusion3d.export.views import spread

FACES, TEXTURE = 3000, 256
SCENE = Several((Sphere((0.3, 0.1, 0.2), 0.5), Box((-0.5, 0.0, 0.0), (0.3, 0.4, 0.6))))


@pytest.fixture(scope="module")
def mesh():
    cameras = spread(40, (-80.0, 80.0), 3.0, 40.0, 160)
    return SceneMesh.of(render_views(SCENE, cameras), cameras, resolution=80, faces=FACES, texture=TEXTURE)


def ours(vertices):
    """From y up, front +z to z up, front +x."""
    return np.asarray(vertices)[:, [2, 0, 1]]


def texture_at(picture, uv):
    """Bilinear look-up as OpenGL defines it: v upwards, row 0 of the picture at the top."""
    height, width = picture.shape[:2]
    at = [(1 - uv[:, 1]) * height - 0.5, uv[:, 0] * width - 0.5]
    return np.stack([map_coordinates(picture[..., c].astype(float), at, order=1, mode="nearest") for c in range(3)], 1)


def check_colours(vertices, faces, uv, picture, mean, most):
    """Points on the faces have the scene's colour."""
    random = np.random.default_rng(0)
    face = faces[random.integers(0, len(faces), 5000)]
    weights = random.dirichlet((1, 1, 1), 5000)[..., None]
    points = (vertices[face] * weights).sum(1)
    found = texture_at(picture, (uv[face] * weights).sum(1)) / 255
    difference = np.abs(found - SCENE.color(torch.from_numpy(points)).numpy()).max(1)
    assert difference.mean() < mean and np.quantile(difference, 0.99) < most


def check_shape(vertices, faces, mesh, faces_at_most):
    shape = trimesh.Trimesh(vertices, faces)
    assert len(faces) <= faces_at_most and shape.is_watertight and shape.volume > 0
    assert SCENE.distance(torch.from_numpy(shape.vertices)).abs().mean() < 0.3 * mesh.grid.side
    return shape


def test_plyfile_reads_the_vertex_colours(mesh):
    data = PlyData.read(io.BytesIO(write_mesh_ply(mesh.fine)))
    vertex = data["vertex"]
    points = np.stack([vertex[c] for c in "xyz"], 1).astype(float)
    check_shape(points, np.stack(data["face"]["vertex_indices"]), mesh, 10**9)
    found = np.stack([vertex[c] for c in ("red", "green", "blue")], 1) / 255
    difference = np.abs(found - SCENE.color(torch.from_numpy(points)).numpy())
    assert difference.mean() < 0.02 and np.quantile(difference, 0.99) < 0.08


def test_trimesh_reads_the_glb(mesh):
    [read] = trimesh.load(io.BytesIO(write_glb(mesh.light)), file_type="glb").geometry.values()
    vertices = ours(read.vertices)
    check_shape(vertices, read.faces, mesh, FACES)
    picture = np.asarray(read.visual.material.baseColorTexture.convert("RGB"))
    assert picture.shape == (TEXTURE, TEXTURE, 3)
    check_colours(vertices, read.faces, read.visual.uv, picture, 0.025, 0.12)
    outward = SCENE.distance(torch.from_numpy(vertices + 0.02 * ours(read.vertex_normals))).numpy()
    assert np.median(outward) == pytest.approx(0.02, abs=0.01)


def test_pygltflib_reads_the_glb(mesh):
    """The buffers as glTF 2.0 defines them: v downwards, y up."""
    gltf = GLTF2.load_from_bytes(write_glb(mesh.light))
    assert gltf.asset.version == "2.0"
    [primitive] = gltf.meshes[0].primitives
    blob = gltf.binary_blob()

    def array(index):
        accessor = gltf.accessors[index]
        view = gltf.bufferViews[accessor.bufferView]
        kind = {5123: "<u2", 5125: "<u4", 5126: "<f4"}[accessor.componentType]
        width = {"SCALAR": 1, "VEC2": 2, "VEC3": 3}[accessor.type]
        start = (view.byteOffset or 0) + (accessor.byteOffset or 0)
        return np.frombuffer(blob, kind, accessor.count * width, start).reshape(accessor.count, width)

    attributes = primitive.attributes
    vertices, uv, faces = (
        array(attributes.POSITION),
        array(attributes.TEXCOORD_0),
        array(primitive.indices).reshape(-1, 3),
    )
    check_shape(ours(vertices).astype(float), faces, mesh, FACES)
    material = gltf.materials[primitive.material].pbrMetallicRoughness
    assert material.metallicFactor == 0 and material.baseColorFactor in (None, [1, 1, 1, 1])
    source = gltf.images[gltf.textures[material.baseColorTexture.index].source]
    view = gltf.bufferViews[source.bufferView]
    picture = np.asarray(
        Image.open(io.BytesIO(blob[view.byteOffset : view.byteOffset + view.byteLength])).convert("RGB")
    )
    flipped = np.stack([uv[:, 0], 1 - uv[:, 1]], 1).astype(float)
    check_colours(ours(vertices).astype(float), faces.astype(int), flipped, picture, 0.025, 0.12)
    assert struct.unpack("<I", write_glb(mesh.light)[:4]) == (0x46546C67,)
    nodes = json.loads(gltf.to_json())["nodes"]
    assert all(node.get("matrix", list(np.eye(4).ravel())) == list(np.eye(4).ravel()) for node in nodes)


def test_the_obj_is_what_its_lines_say_and_trimesh_reads_it(mesh, tmp_path):
    files = write_obj(mesh.light, "thing")
    assert list(files) == ["thing.png", "thing.mtl", "thing.obj"]
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    lines = [line.split() for line in files["thing.obj"].decode().splitlines() if line]
    assert ["mtllib", "thing.mtl"] in lines and ["usemtl", "thing"] in lines
    assert b"newmtl thing" in files["thing.mtl"] and b"map_Kd thing.png" in files["thing.mtl"]
    vertices = ours(np.array([line[1:4] for line in lines if line[0] == "v"], float))
    uv = np.array([line[1:3] for line in lines if line[0] == "vt"], float)
    corners = np.array([[c.split("/")[:2] for c in line[1:]] for line in lines if line[0] == "f"], int) - 1
    picture = np.asarray(Image.open(io.BytesIO(files["thing.png"])))
    assert (corners[..., 0] == corners[..., 1]).all()
    check_shape(vertices, corners[..., 0], mesh, FACES)
    check_colours(vertices, corners[..., 0], uv, picture, 0.025, 0.12)
    read = trimesh.load(tmp_path / "thing.obj", force="mesh")
    check_shape(ours(read.vertices), read.faces, mesh, FACES)
    assert np.array_equal(np.asarray(read.visual.material.image.convert("RGB")), picture)


def test_rendered_again_the_textured_mesh_looks_like_the_scene(mesh):
    cameras = orbit(torch.tensor([[10.0, 100.0, 200.0]]), torch.tensor([[10.0, 40.0, -30.0]]), 3.0, 40.0, 64, 64)
    render = SCENE.render(cameras)
    light = mesh.light
    rays_o, rays_d = (value.reshape(-1, 3).double().numpy() for value in cameras.rays())
    points, ray, face = light.mesh.ray.intersects_location(rays_o, rays_d, multiple_hits=False)
    weights = points_to_barycentric(light.mesh.triangles[face], points)[..., None]
    picture = np.zeros((len(rays_o), 3))
    picture[ray] = texture_at(light.texture, (light.uv[light.mesh.faces[face]] * weights).sum(1)) / 255
    expected = render.rgb.movedim(2, -1).reshape(-1, 3).numpy()
    covered = np.zeros(len(rays_o), bool)
    covered[ray] = True
    both = covered & (render.alpha.flatten().numpy() > 0)
    assert both.sum() > 0.97 * (covered | (render.alpha.flatten().numpy() > 0)).sum()
    assert -10 * np.log10(np.square(picture - expected)[both].mean()) > 27


def test_a_simplified_mesh_stays_closed(mesh):
    for faces in (200, 1000, 10**9):
        simpler = decimated(mesh.fine, faces)
        assert simpler.is_watertight and len(simpler.faces) <= faces
        assert simpler.volume == pytest.approx(mesh.fine.volume, rel=0.03)


def test_a_rugged_surface_is_closed_in_its_light_mesh_too(mesh):
    noise = np.random.default_rng(0).normal(scale=0.6, size=mesh.grid.values.shape).astype(np.float32)
    values = np.where(np.abs(mesh.grid.values) < 1, mesh.grid.values + noise, mesh.grid.values)
    rugged = dataclasses.replace(mesh, grid=dataclasses.replace(mesh.grid, values=values))
    assert not decimated(rugged.fine, FACES).is_watertight, "or else this tests nothing"
    assert rugged.light.whole.is_watertight and len(rugged.light.whole.faces) <= FACES


def test_points_take_the_colour_of_who_sees_them_best():
    """The far side of a ball is seen by nobody: it looks like the nearest place that is seen."""
    scene = Sphere((0.0, 0.0, 0.0), 0.5)
    cameras = orbit(torch.tensor([[0.0]]), torch.tensor([[0.0]]), 3.0, 40.0, 128, 128)
    points = 0.5 * np.array([[1.0, 0, 0], [0.9, 0.3, np.sqrt(0.1)], [-1.0, 0, 0], [0.0, -1, 0]])
    found = view_colors(points, 2 * points, scene.render(cameras), cameras, 0.05)
    expected = scene.color(torch.from_numpy(points)).numpy()
    np.testing.assert_allclose(found[:2], expected[:2], atol=0.03)
    assert np.abs(found[2:] - found[:2].mean(0)).max() < 0.5
    hidden = view_colors(points[2:3], 2 * points[2:3], scene.render(cameras), cameras, 0.05)
    assert np.array_equal(hidden, np.full((1, 3), 0.5, np.float32)), "grey where nobody sees anything"
