"""Meshes that trimesh and the formats' own text make: colours, textures, orientation, and what is wrong with them."""

import struct

import numpy as np
import pytest
import torch
import trimesh
from PIL import Image

from diffusion3d.cameras import orbit
from diffusion3d.data.files import Files
from diffusion3d.data.raycast import Lighting, render
from diffusion3d.data.textured import read_mesh, sample
from diffusion3d.errors import UserError

BLUE_TINT = np.array([0, 0, 1, 1], np.float32)
EVEN = Lighting(key_strength=0.0, fill_strength=0.0, sky=1.0, ground=1.0)
"""All faces have their own colour."""
RED, GREEN, BLUE, WHITE = (255, 0, 0, 255), (0, 255, 0, 255), (0, 0, 255, 255), (255, 255, 255, 255)

QUAD = """mtllib quad.mtl
v 0 0 0
v 0 0 2
v 0 2 2
v 0 2 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
usemtl paint
f 2/1 1/2 4/3
f 2/1 4/3 3/4
"""
"""Stands in the y-z plane of a y-up world and faces +x; its texture is upright for who looks at it from there."""


def look(mesh, azimuth, elevation=0.0, size=64, samples=1):
    cameras = orbit(torch.tensor([azimuth]), torch.full((1, len(azimuth)), elevation), 3.0, 40.0, size, size)
    return render(mesh, cameras, samples=samples, lighting=EVEN)


def colour_at(views, point, view=0):
    """What is drawn where a camera sees a point."""
    x, y = views.cameras.project(torch.tensor(point).float().view(1, 1, 3))[0][0, view, 0].floor().int().tolist()
    return [round(value * 255) for value in views.images[0, view, :, y, x].tolist()]


def save(folder, geometry, name):
    geometry.export(folder / name)
    return read_mesh(Files(str(folder)), name)


def coloured_box():
    """A box whose six faces have their own colours: +x red, +y green, +z blue, the others white."""
    box = trimesh.creation.box((2.0, 1.6, 1.2))
    colours = np.tile(np.array(WHITE, np.uint8), (len(box.faces), 1))
    for axis, colour in enumerate((RED, GREEN, BLUE)):
        colours[box.face_normals[:, axis] > 0.5] = colour
    return box, colours


@pytest.mark.parametrize("suffix", ["ply", "glb", "obj"])
def test_known_faces_are_drawn_where_they_are_whatever_axis_is_up(tmp_path, suffix):
    """In glTF and OBJ +y is up and +z the front; in PLY the axes are ours."""
    box, colours = coloured_box()
    box.unmerge_vertices()
    box.visual = trimesh.visual.ColorVisuals(box, vertex_colors=np.repeat(colours, 3, 0))
    mesh = save(tmp_path, box, f"box.{suffix}")
    half = np.array([1.0, 0.8, 0.6])
    scale = 0.95 / np.linalg.norm(half)
    if suffix == "ply":
        faces = {0.0: ([half[0], 0, 0], RED), 90.0: ([0, half[1], 0], GREEN), "top": ([0, 0, half[2]], BLUE)}
    else:
        faces = {0.0: ([half[2], 0, 0], BLUE), 90.0: ([0, half[0], 0], RED), "top": ([0, 0, half[1]], GREEN)}
    for where, (point, colour) in faces.items():
        views = look(mesh, (0.0,), 80.0) if where == "top" else look(mesh, (where,))
        point = np.array(point) * scale
        assert colour_at(views, point) == list(colour[:3])
        expected = views.cameras.project(torch.tensor(point).float().view(1, 1, 3))[1][0, 0, 0]
        if where != "top":
            torch.testing.assert_close(views.depth[0, 0, 0, 32, 32], expected, atol=1e-4, rtol=0)
            normal = torch.nn.functional.normalize(torch.tensor(point).float(), dim=0)
            torch.testing.assert_close(views.normals[0, 0, :, 32, 32], normal, atol=1e-5, rtol=0)


def test_the_silhouette_is_where_the_corners_are_projected(tmp_path):
    box, _ = coloured_box()
    views = look(save(tmp_path, box, "box.ply"), (30.0, 200.0), 25.0, size=256)
    corners = torch.from_numpy(box.vertices * (0.95 / np.linalg.norm([1.0, 0.8, 0.6]))).float()[None]
    places, _ = views.cameras.project(corners)
    for view in range(2):
        rows, columns = torch.nonzero(views.alpha[0, view, 0], as_tuple=True)
        for seen, expected in ((columns, places[0, view, :, 0]), (rows, places[0, view, :, 1])):
            assert abs(seen.min() - expected.min()) <= 1 and abs(seen.max() + 1 - expected.max()) <= 1


def texture():
    """Red, green over blue, white, each a quarter."""
    pixels = np.zeros((2, 2, 4), np.uint8)
    pixels[0, 0], pixels[0, 1], pixels[1, 0], pixels[1, 1] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels).resize((64, 64), Image.Resampling.NEAREST)


def write_quad(folder, material="Kd 0.1 0.1 0.1\nmap_Kd paint.png\n", image=None):
    (folder / "quad.obj").write_text(QUAD)
    (folder / "quad.mtl").write_text(f"newmtl paint\n{material}")
    if image is not None:
        image.save(folder / "paint.png")


QUARTERS = {RED: (0.4, 0.4), GREEN: (-0.4, 0.4), BLUE: (0.4, -0.4), WHITE: (-0.4, -0.4)}
"""Corner of the texture -> (towards the left of who looks, up)."""


def test_an_obj_texture_stands_upright_and_replaces_the_diffuse_colour(tmp_path):
    """x of the file becomes y here, z becomes x: who looks from +y sees the quad with +x to the left."""
    write_quad(tmp_path, image=texture())
    mesh = read_mesh(Files(str(tmp_path)), "quad.obj")
    views = look(mesh, (90.0, -90.0))
    for colour, (left, up) in QUARTERS.items():
        assert colour_at(views, [left, 0.0, up]) == list(colour[:3])
        assert colour_at(views, [left, 0.0, up], view=1) == list(colour[:3]), "seen from behind, too"
    front, back = views.normals[0, :, :, 32, 32]
    assert front.tolist() == [0, 1, 0] and back.tolist() == [0, -1, 0]


def test_a_glb_texture_is_the_same_as_the_obj(tmp_path):
    write_quad(tmp_path, image=texture())
    made = trimesh.load_scene(tmp_path / "quad.obj")
    [part] = made.geometry.values()
    part.visual.material = trimesh.visual.material.PBRMaterial(baseColorTexture=texture().convert("RGB"))
    made.export(tmp_path / "quad.glb")
    first, second = (look(read_mesh(Files(str(tmp_path)), f"quad.{s}"), (90.0,)) for s in ("obj", "glb"))
    torch.testing.assert_close(first.images, second.images, atol=1e-3, rtol=0)


def test_gltf_factors_are_linear(tmp_path):
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[55, 128, 255, 255])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    views = look(save(tmp_path, box, "box.glb"), (0.0,))
    linear = np.array([55, 128, 255]) / 255
    expected = 255 * np.where(linear < 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    assert np.abs(np.array(views.images[0, 0, :, 32, 32] * 255) - expected).max() < 1


def test_gltf_vertex_colours_multiply_the_factor(tmp_path):
    box = trimesh.creation.box()
    material = trimesh.visual.material.PBRMaterial(baseColorFactor=[255, 255, 0, 255])
    box.visual = trimesh.visual.TextureVisuals(uv=np.zeros((8, 2)), material=material)
    box.visual.vertex_attributes["color"] = np.tile(np.array([0, 255, 255, 255], np.uint8), (8, 1))
    assert colour_at(look(save(tmp_path, box, "box.glb"), (0.0,)), [0.5, 0.0, 0.0]) == [0, 255, 0]


def test_gltf_alpha_counts_only_where_the_material_says_so(tmp_path):
    holed = np.asarray(texture()).copy()
    holed[:32, :32, 3] = 0
    write_quad(tmp_path, image=texture())
    made = trimesh.load_scene(tmp_path / "quad.obj")
    [part] = made.geometry.values()
    for mode, seen in (("MASK", [0, 0, 0]), ("BLEND", [0, 0, 0]), ("OPAQUE", [255, 0, 0]), (None, [255, 0, 0])):
        part.visual.material = trimesh.visual.material.PBRMaterial(
            baseColorTexture=Image.fromarray(holed), alphaMode=mode
        )
        made.export(tmp_path / "quad.glb")
        views = look(read_mesh(Files(str(tmp_path)), "quad.glb"), (90.0,))
        assert colour_at(views, [0.4, 0.0, 0.4]) == seen and colour_at(views, [-0.4, 0.0, 0.4]) == [0, 255, 0]


def test_nodes_of_a_gltf_scene_are_placed(tmp_path):
    scene = trimesh.Scene()
    for offset in (-2.0, 2.0):
        scene.add_geometry(
            trimesh.creation.box(),
            geom_name="box",
            transform=trimesh.transformations.translation_matrix([offset, 0, 0]),
        )
    views = look(save(tmp_path, scene, "two.glb"), (0.0,))
    alpha = views.alpha[0, 0, 0, 32]
    assert alpha[32] == 0 and alpha[:32].any() and alpha[32:].any()


def test_transparent_texels_and_materials_are_holes(tmp_path):
    holed = np.asarray(texture()).copy()
    holed[:32, :32, 3] = 0
    write_quad(tmp_path, image=Image.fromarray(holed))
    views = look(read_mesh(Files(str(tmp_path)), "quad.obj"), (90.0,))
    for colour, (left, up) in QUARTERS.items():
        assert colour_at(views, [left, 0.0, up]) == ([0, 0, 0] if colour is RED else list(colour[:3]))
    assert views.alpha.mean() < 0.8 * look(read_square(tmp_path), (90.0,)).alpha.mean()


@pytest.mark.parametrize(
    ("line", "hole"), [("d 0.2", True), ("Tr 0.9", True), ("d 0.8", False), ("Tr 0.1", False), ("d x", False)]
)
def test_transparent_materials_are_holes_in_what_is_not_all_glass(tmp_path, line, hole):
    text = QUAD.replace("f 2/1 4/3 3/4", "usemtl glass\nf 2/1 4/3 3/4")
    (tmp_path / "quad.obj").write_text(text)
    (tmp_path / "quad.mtl").write_text(f"newmtl paint\nKd 1 0 0\nnewmtl glass\nKd 0 0 1\n{line}\n")
    views = look(read_mesh(Files(str(tmp_path)), "quad.obj"), (90.0,))
    assert colour_at(views, [-0.3, 0, -0.4]) == [255, 0, 0]
    assert colour_at(views, [0.3, 0, 0.4]) == ([0, 0, 0] if hole else [0, 0, 255])
    write_quad(tmp_path, f"Kd 0 1 0\n{line}\n")
    assert colour_at(look(read_mesh(Files(str(tmp_path)), "quad.obj"), (90.0,)), [0.3, 0, 0.4]) == [0, 255, 0]


def read_square(folder):
    write_quad(folder, image=texture())
    return read_mesh(Files(str(folder)), "quad.obj")


def test_what_is_behind_a_hole_is_seen(tmp_path):
    """Two quads, one behind the other; the front one has a hole."""
    behind = QUAD.split("usemtl")[0] + "".join(f"v -0.5 {y} {z}\n" for y, z in ((0, 0), (0, 2), (2, 2), (2, 0)))
    (tmp_path / "quad.obj").write_text(
        behind + "usemtl paint\nf 2/1 1/2 4/3\nf 2/1 4/3 3/4\nusemtl plain\nf 6 5 8\nf 6 8 7\n"
    )
    holed = np.asarray(texture()).copy()
    holed[:32, :32, 3] = 0
    Image.fromarray(holed).save(tmp_path / "paint.png")
    (tmp_path / "quad.mtl").write_text("newmtl paint\nmap_Kd paint.png\nnewmtl plain\nKd 0 1 1\n")
    views = look(read_mesh(Files(str(tmp_path)), "quad.obj"), (90.0,))
    assert colour_at(views, [0.3, 0.0, 0.3]) == [0, 255, 255] and colour_at(views, [-0.3, 0.0, 0.3]) == [0, 255, 0]
    through, front = (views.depth[0, 0, 0, 24, column] for column in (24, 40))
    scale = 2 * 0.95 / np.linalg.norm([0.5, 2, 2])
    torch.testing.assert_close(through - front, torch.tensor(0.5 * scale).float(), atol=1e-3, rtol=0)


def test_textures_are_sampled_between_texel_centres_and_repeat():
    picture = np.zeros((2, 2, 4), np.float32)
    picture[0, 1] = 1  # upper right
    uv = np.array([[0.75, 0.75], [0.25, 0.75], [0.5, 0.75], [0.75, 0.5], [1.75, -0.25], [0.0, 0.75]], np.float32)
    np.testing.assert_allclose(sample(picture, uv)[:, 0], [1, 0, 0.5, 0.5, 1, 0.5], atol=1e-6)


def test_fine_textures_are_averaged(tmp_path):
    noise = np.random.default_rng(0).integers(0, 2, (512, 512)).astype(np.uint8) * 255
    write_quad(tmp_path, image=Image.fromarray(noise).convert("RGB"))
    files = Files(str(tmp_path))
    rough, fine = (look(read_mesh(files, "quad.obj", detail=d), (90.0,)) for d in (0.0, 0.05))
    inside = rough.alpha[0, 0, 0] == 1
    assert rough.images[0, 0, 0][inside].std() > 0.3 and fine.images[0, 0, 0][inside].std() < 0.1
    torch.testing.assert_close(fine.images[0, 0, 0][inside].mean(), torch.tensor(0.5), atol=0.02, rtol=0)


def test_stl_is_z_up_smooth_where_round_and_flat_where_sharp(tmp_path):
    ball = look(save(tmp_path, trimesh.creation.icosphere(3), "ball.stl"), (20.0,))
    origins, directions = ball.cameras.rays()
    hit = ball.alpha[0, 0, 0] == 1
    points = (origins + directions * ball.depth[:, :, 0, ..., None])[0, 0][hit]
    normals = ball.normals[0, 0].permute(1, 2, 0)[hit]
    inner = points.norm(dim=1).sub(0.95).abs() < 0.02
    assert (normals * torch.nn.functional.normalize(points, dim=1)).sum(1)[inner].min() > 0.99
    assert colour_at(ball, [0.95, 0.0, 0.0]) == [178, 178, 178]
    box = look(save(tmp_path, trimesh.creation.box(), "box.stl"), (0.0,))
    assert box.normals[0, 0, :, 20, 20].tolist() == [1, 0, 0]


def test_up_can_be_told(tmp_path):
    trimesh.creation.cylinder(0.2, 2.0).export(tmp_path / "pole.stl")
    upright, lying = (
        look(read_mesh(Files(str(tmp_path)), "pole.stl", up), (90.0,)).alpha[0, 0, 0] for up in ("z", "y")
    )
    assert upright.any(1).sum() > 3 * upright.any(0).sum() and lying.any(0).sum() > 3 * lying.any(1).sum()


def ply(vertices="0 0 0\n1 0 0\n0 1 0\n", faces="3 0 1 2\n", count=3, properties="xyz"):
    fields = "".join(f"property float {name}\n" for name in properties)
    head = f"ply\nformat ascii 1.0\nelement vertex {count}\n{fields}element face 1\nproperty list uchar int vertex_indices\n"
    return (head + "end_header\n" + vertices + faces).encode()


def binary_ply(count):
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {count}",
        *(f"property float {name}" for name in "xyz"),
        "element face 1",
        "property list uchar int vertex_indices",
        "end_header\n",
    ]
    vertices = struct.pack("<9f", 0, 0, 0, 1, 0, 0, 0, 1, 0)
    return "\n".join(header).encode() + vertices + struct.pack("<B3i", 3, 0, 1, 2)


def test_the_plys_below_are_sound_when_they_are_not_spoilt(tmp_path):
    for content in (ply(), binary_ply(3)):
        (tmp_path / "a.ply").write_bytes(content)
        assert len(read_mesh(Files(str(tmp_path)), "a.ply").faces) == 1


STL = trimesh.creation.box().export(file_type="stl")
GLB = trimesh.creation.box().export(file_type="glb")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.ply", ply(vertices="0 0 0\nnan 0 0\n0 1 0\n"), r"a.ply has vertices that are NaN"),
        ("a.ply", ply(vertices="0 0 0\ninf 0 0\n0 1 0\n"), r"a.ply has vertices that are NaN"),
        ("a.ply", ply(properties="xy", vertices="0 0\n1 0\n0 1\n"), r"a.ply is no whole PLY: its header lacks z"),
        ("a.ply", ply(count=2), r"a.ply has 4 lines of data, but its header says 3"),
        ("a.ply", ply(count=9**15), r"a.ply has 4 lines of data, but its header says"),
        ("a.ply", ply(faces="3 0 1 7\n"), r"a.ply (has faces of vertices that are not there|cannot be read)"),
        ("a.ply", ply(faces="3 0 1 -2\n"), r"a.ply has faces of vertices that are not there"),
        ("a.ply", ply(faces="3 0 0 0\n"), r"a.ply has no faces"),
        ("a.ply", b"ply\nformat ascii 1.0\nelement vertex 3\n", r"a.ply is no whole PLY: its header lacks"),
        ("a.ply", b"solid nonsense", r"a.ply is no whole PLY"),
        ("a.ply", binary_ply(4), r"a.ply (cannot be read|has no faces)"),
        ("a.ply", binary_ply(2), r"a.ply (cannot be read|has no faces)"),
        ("a.ply", binary_ply(10**15), r"a.ply (cannot be read|has no faces)"),
        ("a.ply", binary_ply(3)[:-5], r"a.ply cannot be read"),
        ("a.ply", trimesh.PointCloud(np.eye(3)).export(file_type="ply"), r"a.ply has no faces"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\n", r"a.obj has no faces"),
        ("a.obj", b"v 0 0 0\nv 1 0 0\nv 0 1 0\nf 1 2 9\n", r"a.obj (cannot be read|has faces of vertices)"),
        ("a.obj", b"v 0 0 0\nv nan 0 0\nv 0 1 0\nf 1 2 3\n", r"a.obj (has vertices that are NaN|cannot be read)"),
        ("a.obj", b"v 1 1 1\nv 1 1 1\nv 1 1 1\nf 1 2 3\n", r"a.obj has no faces"),
        ("a.obj", b"", r"a.obj (has no faces|cannot be read)"),
        ("a.stl", STL[:-20], r"a.stl (cannot be read|has no faces)"),
        ("a.stl", STL[:80] + struct.pack("<I", 2**31) + STL[84:], r"a.stl (cannot be read|has no faces)"),
        ("a.stl", b"", r"a.stl (cannot be read|has no faces)"),
        ("a.glb", GLB[: len(GLB) // 2], r"a.glb cannot be read"),
        ("a.glb", b"glTF" + bytes(40), r"a.glb cannot be read"),
    ],
)
def test_bad_meshes_are_refused_in_one_line(name, content, message, tmp_path):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_mesh(Files(str(tmp_path)), name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda root: (root / "paint.png").replace(root.parent / "out.png"), r"'paint.png', which leads out of"),
        (lambda root: (root / "paint.png").write_bytes(b"\x89PNG"), r"paint.png is not a readable image"),
        (lambda root: texture().convert("CMYK").save(root / "paint.png", "JPEG"), r"paint.png is a CMYK image"),
    ],
)
def test_bad_textures_are_refused_in_one_line(spoil, message, tmp_path):
    write_quad(tmp_path, image=texture())
    spoil(tmp_path)
    if not (tmp_path / "paint.png").exists():
        (tmp_path / "paint.png").symlink_to(tmp_path.parent / "out.png")
    with pytest.raises(UserError, match=message):
        read_mesh(Files(str(tmp_path)), "quad.obj")


@pytest.mark.parametrize("name", ["no.png", "../out.png", "/etc/passwd", "C:/Users/me/wood.jpg", "..\\..\\out.png"])
def test_textures_that_are_not_there_are_done_without(tmp_path, caplog, name):
    root = tmp_path / "set"
    root.mkdir()
    texture().save(tmp_path / "out.png")
    write_quad(root, f"Kd 0 0 1\nmap_Kd {name}\n")
    mesh = read_mesh(Files(str(root)), "quad.obj")
    assert mesh.textures == () and (mesh.tints == BLUE_TINT).all()
    [record] = caplog.records
    assert "quad.obj names" in record.getMessage() and name in record.getMessage()


def test_open_meshes_are_lit_on_the_side_that_is_seen(tmp_path):
    """By one light from +y."""
    light = Lighting(key=(0, 1, 0), key_strength=1.0, fill_strength=0.0, sky=0.0, ground=0.0)
    cameras = orbit(torch.tensor([[90.0, -90.0]]), torch.zeros(1, 2), 3.0, 40.0, 16, 16)
    write_quad(tmp_path, "Kd 1 1 1\n")
    drawn = render(read_mesh(Files(str(tmp_path)), "quad.obj"), cameras, samples=1, lighting=light)
    assert drawn.images[0, :, 0, 8, 8].tolist() == [1, 0] and drawn.alpha[0, :, 0, 8, 8].tolist() == [1, 1]


def test_a_texture_cut_off_inside_a_glb_is_refused(tmp_path):
    write_quad(tmp_path, image=texture())
    made = trimesh.load_scene(tmp_path / "quad.obj")
    [part] = made.geometry.values()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3)).astype(np.uint8)
    part.visual.material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.fromarray(noise))
    content = made.export(file_type="glb")
    start = content.index(b"IDAT") + 2000
    (tmp_path / "quad.glb").write_bytes(content[:start] + bytes(4000) + content[start + 4000 :])
    with pytest.raises(UserError, match=r"a texture of .*quad.glb is not a readable image"):
        read_mesh(Files(str(tmp_path)), "quad.glb")


def test_palette_textures_are_expanded(tmp_path):
    write_quad(tmp_path, image=texture().convert("RGB").quantize(4))
    views = look(read_mesh(Files(str(tmp_path)), "quad.obj"), (90.0,))
    for colour, (left, up) in QUARTERS.items():
        assert colour_at(views, [left, 0.0, up]) == list(colour[:3])
