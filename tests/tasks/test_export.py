"""Exports of finished runs: a small distillation, and a scene that is no set of Gaussians."""

import json

import imageio.v2 as imageio
import numpy as np
import pytest
import torch
import trimesh
from PIL import Image
from plyfile import PlyData

import diffusion3d
from analytic_scenes import Box
from choices import CAMERA, PRIOR, SCENE
from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import UserError
from diffusion3d.tasks import export
from diffusion3d.tasks.export import OF_ANY_SHAPE, SPLATS, chosen_formats

SMALL = [
    "task.views=24",
    "task.size=96",
    "task.resolution=40",
    "task.texture=128",
    "task.faces=800",
    "task.video_size=32",
]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("export") / "run"
    typed = ["prompt=a castle", "logger=none", "device=cpu", *PRIOR, *SCENE, *CAMERA, "representation.opacity=0.6"]
    diffusion3d.run([*typed, "task.steps=2", "task.video_size=32", f"hydra.run.dir={directory}"])
    return directory


def exported(run, directory, *overrides):
    typed = ["task=export", f"run={run}", "logger=none", *SMALL, "task.frames=3", f"hydra.run.dir={directory}"]
    metrics = diffusion3d.run([*typed, *overrides])
    return metrics, {str(path.relative_to(directory)) for path in directory.rglob("*") if path.is_file()}


@pytest.fixture
def box(finished, monkeypatch):
    """A finished run whose scenes are boxes; the second one is small."""

    class Boxes:
        def scene(self, raw):
            [half] = raw["half"]
            return Box((0.0, 0.0, 0.0), tuple(half.tolist()))

    halves = torch.tensor([[0.7, 0.5, 0.3], [0.2, 0.2, 0.2]])

    def load(source, trusted, device, scene):
        return Boxes(), {"half": halves[scene : scene + 1]}, Orbit(32, elevation=(-60.0, 60.0))

    monkeypatch.setattr(export, "load_scene", load)
    return finished


MESHES = {"export/mesh.glb", "export/mesh.obj", "export/mesh.mtl", "export/mesh.png", "export/mesh.ply"}
VIDEOS = {f"videos/{name}.{suffix}" for name in ("rgb", "depth", "normal") for suffix in ("mp4", "gif")}


def test_all_that_splats_can_become(finished, tmp_path):
    metrics, files = exported(finished, tmp_path / "out")
    images = {f"transforms/images/{number:04d}.png" for number in range(24)}
    gaussians = {f"export/scene.{name}" for name in ("ply", "spz", "splat")}
    assert gaussians | MESHES | VIDEOS | images | {"transforms/transforms.json"} <= files
    assert not any(".tmp" in name for name in files) and metrics["formats"] == 8
    again = PlyData.read(str(tmp_path / "out" / "export" / "scene.ply"))["vertex"]
    before = PlyData.read(str(finished / "export" / "scene.ply"))["vertex"]
    assert metrics["gaussians"] == again.count == before.count
    for field in [p.name for p in before.properties]:
        np.testing.assert_allclose(again[field], before[field], atol=1e-4)
    assert (tmp_path / "out" / "export" / "scene.splat").stat().st_size == 32 * again.count


def test_any_scene_becomes_meshes_films_and_a_data_set(box, tmp_path):
    metrics, files = exported(box, tmp_path / "out")
    assert files >= MESHES | VIDEOS and not any("scene." in name for name in files)
    assert metrics["watertight"] == 1 and metrics["faces"] > 100 and metrics["vertices"] > 50
    folder = tmp_path / "out"
    fine = trimesh.load(folder / "export" / "mesh.ply")
    np.testing.assert_allclose(fine.bounds, [[-0.7, -0.5, -0.3], [0.7, 0.5, 0.3]], atol=0.05)
    for name in ("mesh.glb", "mesh.obj"):
        bounds = trimesh.load(folder / "export" / name, force="mesh").bounds
        np.testing.assert_allclose(bounds, [[-0.5, -0.3, -0.7], [0.5, 0.3, 0.7]], atol=0.05, err_msg="y up, front +z")
    for name in ("rgb", "depth", "normal"):
        with imageio.get_reader(folder / "videos" / f"{name}.mp4") as reader:
            film = np.stack([frame for frame in reader])  # noqa: C416, list() asks for a length
        assert film.shape == (3, 32, 32, 3)
        with Image.open(folder / "videos" / f"{name}.gif") as gif:
            assert gif.n_frames == 3
            assert np.abs(np.asarray(gif.convert("RGB")).astype(int) - film[0]).mean() < 12
        if name == "normal":
            front = film[0, 18, 16].astype(float) / 255
            np.testing.assert_allclose(front, [0.5, 0.5 - 0.5 * np.sin(np.deg2rad(15)), 0.98], atol=0.08)
    frames = json.loads((folder / "transforms" / "transforms.json").read_text())["frames"]
    heights = np.array([frame["transform_matrix"][2][3] for frame in frames])
    assert heights.max() > 3 * np.sin(np.deg2rad(65)) and heights.min() < -3 * np.sin(np.deg2rad(65))


def test_an_image_becomes_a_film_and_no_mesh(tmp_path):
    run = tmp_path / "run"
    typed = ["prompt=a castle", "logger=none", "device=cpu", *PRIOR, *CAMERA, "representation=image", "terms=none"]
    diffusion3d.run([*typed, "task.steps=1", "task.video_size=32", f"hydra.run.dir={run}"])
    metrics, files = exported(run, tmp_path / "out")
    kept = {name for name in files if name.startswith(("export/", "videos/", "transforms/"))}
    assert kept == {"videos/rgb.mp4", "videos/rgb.gif"} and metrics["formats"] == 1
    with pytest.raises(UserError, match="glb holds a shape and this scene has none; it can become videos"):
        exported(run, tmp_path / "mesh", "task.formats=[videos,glb]")


def test_what_is_asked_for_and_nothing_else(box, tmp_path):
    metrics, files = exported(
        box, tmp_path / "out", "task.formats=[glb,transforms]", "task.scene=1", "task.elevation=[0,45]", "task.views=12"
    )
    kept = {name for name in files if name.startswith(("export/", "videos/"))}
    assert kept == {"export/mesh.glb"} and metrics["formats"] == 2
    bounds = trimesh.load(tmp_path / "out" / "export" / "mesh.glb", force="mesh").bounds
    np.testing.assert_allclose(bounds[1], [0.2, 0.2, 0.2], atol=0.05)
    assert sum(name.startswith("transforms/images/") for name in files) == 12


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("task.formats=[spz]", "spz holds Gaussians and this scene has none; it can become glb, obj, mesh_ply, videos"),
        ("task.formats=[glb,stl]", "there is no stl; there are ply, spz, splat, glb"),
        ("task.elevation=[40,10]", r"-90 <= low <= high <= 90"),
        ("task.elevation=[1]", r"list of 2 numbers"),
        ("task.resolution=2", r"task.resolution=2 must be a number, at least 8"),
        ("task.parts=2", r"task.parts=2 must be a number, in 0 ... 1"),
        ("task.meshes=2", r"there is no task.meshes"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(given, message, box, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        exported(box, tmp_path / "out", given)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "export").exists() and not (tmp_path / "out" / "videos").exists()


def test_formats_are_chosen_by_what_the_scene_is():
    assert chosen_formats(None, True) == [*SPLATS, *OF_ANY_SHAPE]
    assert chosen_formats(None, False) == [*OF_ANY_SHAPE]
    assert chosen_formats(None, False, geometry=False) == ["videos"]
    assert chosen_formats("ply", True) == ["ply"] and chosen_formats(["glb", "ply", "glb"], True) == ["glb", "ply"]


def test_export_needs_a_finished_run(tmp_path):
    with pytest.raises(UserError, match="task=export needs a finished run: add run=DIR"):
        diffusion3d.run(["task=export", "logger=none", f"hydra.run.dir={tmp_path / 'out'}"])


def test_a_scene_that_the_run_does_not_have_is_refused(finished, tmp_path):
    with pytest.raises(UserError, match=r"task.scene=1: .* has scenes 0 to 0"):
        exported(finished, tmp_path / "out", "task.scene=1")
