"""Collections: folders, zips, Sweet Home 3D libraries."""

import zipfile

import pytest
import torch
import trimesh

from diffusion3d.data.files import Files
from diffusion3d.data.meshes import list_models, meshes
from diffusion3d.errors import UserError
from dots import everything

RIG = {"train_views": 2, "test_views": 1, "size": 24, "samples": 2}
CATALOGUE = """# a comment
id=Some#Library
name=Not a model
license=CC0

id#1=Some#towerBlock
name#1=Caf\\u00e9 tower
model#1=/models/towerBlock/tower.obj
modelRotation#1=1 0 0 0 0 -1 0 1 0
id#2=Some#ball
name#2 = Ball
model#2=/models/ball.obj
id#10=Some#ball2
name#10=Ball
model#10=/models/other_ball.obj
"""


def obj(mesh):
    return trimesh.exchange.obj.export_obj(mesh)


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "set"
    (root / "deep").mkdir(parents=True)
    trimesh.creation.icosphere(1).export(root / "red_ball.stl")
    trimesh.creation.box().export(root / "deep" / "Old-box.glb")
    trimesh.creation.cone(1, 2).export(root / "cone.ply")
    (root / "readme.txt").write_text("no mesh")
    return root


@pytest.fixture
def library(tmp_path):
    path = tmp_path / "some.sh3f"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("PluginFurnitureCatalog.properties", CATALOGUE)
        archive.writestr("models/towerBlock/tower.obj", obj(trimesh.creation.box((0.2, 0.3, 2.0))))
        archive.writestr("models/ball.obj", obj(trimesh.creation.icosphere(1)))
        archive.writestr("models/other_ball.obj", obj(trimesh.creation.icosphere(2)))
        archive.writestr("models/not_listed.obj", obj(trimesh.creation.box()))
    return path


def test_a_folder_and_its_zip_are_the_same(folder, tmp_path):
    with zipfile.ZipFile(tmp_path / "set.zip", "w") as archive:
        for path in folder.rglob("*.*"):
            archive.write(path, path.relative_to(folder))
    first, second = (meshes(str(root), **RIG) for root in (folder, tmp_path / "set.zip"))
    assert first.train.vocabulary == second.train.vocabulary == ("a cone", "an old box", "a red ball")
    assert torch.equal(first.test.pixels, second.test.pixels) and len(first.test) == 3
    assert [len(meshes(str(folder / name), **RIG).train) for name in ("cone.ply", "red_ball.stl")] == [1, 1]


def test_a_single_file_finds_its_materials_beside_it(tmp_path):
    (tmp_path / "a.obj").write_text(f"mtllib a.mtl\nusemtl red\n{obj(trimesh.creation.box())}")
    (tmp_path / "a.mtl").write_text("newmtl red\nKd 1 0 0\n")
    (tmp_path / "b.obj").write_text("broken")
    batch = everything(meshes(str(tmp_path / "a.obj"), **RIG).train)
    assert batch.images[:, :, 0].max() > 0.5 and batch.images[:, :, 1:].max() == 0


def test_a_library_lists_its_models_with_names_and_rotations(library):
    models = list_models(Files(str(library)))
    assert [(model.name, model.stem) for model in models] == [
        ("café tower", "tower"),
        ("ball", "ball"),
        ("ball", "other_ball"),
    ]
    batch = everything(meshes(str(library), **RIG).train)
    assert batch.captions == ("a café tower", "a ball", "a ball")
    alpha = batch.alpha[0, 0, 0]
    assert alpha.any(1).sum() > 2 * alpha.any(0).sum(), "the tower lies in the file, is turned, and stands"


def test_meshes_are_selected_by_name_file_and_position(library, folder):
    def names(root, select, **more):
        return [texts[0] for texts in meshes(str(root), select=select, **more, **RIG).train.captions]

    assert names(library, "Ball") == ["a ball", "a ball"]
    assert names(library, ["other_ball", 0]) == ["a ball", "a café tower"]
    assert names(library, "ball", scenes=1) == ["a ball"]
    assert names(folder, ["deep/old-box.glb", 0]) == ["an old box", "a cone"]
    assert names(folder, None, scenes=2) == ["a cone", "an old box"]


def test_objects_are_whole_in_every_view_and_lie_in_the_unit_cube(folder):
    rig = {**RIG, "train_views": 8, "size": 48}
    batch = everything(meshes(str(folder), **rig).train)
    border = torch.cat([batch.alpha[..., 0], batch.alpha[..., -1], batch.alpha[..., 0, :], batch.alpha[..., -1, :]], -1)
    assert (border == 0).all() and (batch.alpha.amax((3, 4)) == 1).all()
    origins, directions = batch.cameras.rays()
    points = origins + directions * batch.depth[:, :, 0, ..., None]
    assert points[batch.depth[:, :, 0] > 0].norm(dim=-1).max() < 0.951
    unit = batch.normals.norm(dim=2)[batch.depth[:, :, 0] > 0]
    torch.testing.assert_close(unit, torch.ones_like(unit), atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"select": "castle"}, r"data.select: there is no 'castle' among the 3 meshes \(cone, old box, red ball, …\)"),
        ({"select": [7]}, r"there is no 7 among the 3 meshes"),
        ({"select": []}, r"data.select is empty"),
        ({"scenes": 0}, r"data.scenes=0 must be at least 1"),
        ({"up": "x"}, r"data.up=x is neither y nor z"),
    ],
)
def test_choices_that_make_no_sense_are_refused(folder, wrong, message):
    with pytest.raises(UserError, match=message):
        meshes(str(folder), **{**RIG, **wrong})


def test_bad_collections_are_refused(folder, tmp_path, library):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"holds no glb, gltf, obj, ply, stl files"):
        meshes(str(tmp_path / "empty"))
    outside = tmp_path / "outside.stl"
    trimesh.creation.box().export(outside)
    (folder / "a_link.stl").symlink_to(outside)
    with pytest.raises(UserError, match=r"'a_link.stl', which leads out of"):
        meshes(str(folder), **RIG)
    with zipfile.ZipFile(library, "a") as archive:
        archive.writestr("models/../../evil.obj", "v 0 0 0")
    with pytest.raises(UserError, match=r"some.sh3f holds 'models/../../evil.obj', which leads out of it"):
        meshes(str(library), **RIG)
    broken = tmp_path / "broken.sh3f"
    for text, message in (
        ("name#1=A\nmodel#1=/no.obj\n", r"broken.sh3f holds no 'no.obj'"),
        ("model#1=/no.obj\nmodelRotation#1=1 2 3\n", r"modelRotation#1 is no rotation"),
    ):
        with zipfile.ZipFile(broken, "w") as archive:
            archive.writestr("PluginFurnitureCatalog.properties", text)
        with pytest.raises(UserError, match=message):
            meshes(str(broken), **RIG)


def test_a_catalogue_is_latin_1(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.sh3f", "w") as archive:
        text = "name#1=Bücherregal\nmodel#1=/a.obj\n"
        archive.writestr("PluginFurnitureCatalog.properties", text.encode("latin-1"))
    assert list_models(Files(str(tmp_path / "a.sh3f")))[0].name == "bücherregal"
