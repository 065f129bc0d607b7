"""The scripts of the study of representations: what they measure, on shapes that are known, and the tables they write."""

import importlib
import json
import sys
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
import trimesh
from omegaconf import OmegaConf
from PIL import Image

from choices import choices
from diffusion3d.cameras import orbit
from diffusion3d.config import CONF_DIR
from diffusion3d.data.raycast import render
from diffusion3d.data.textured import Y_UP

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "representations"
MODULES = tuple(path.stem for folder in (FOLDER, FOLDER.parent / "text_to_3d") for path in folder.glob("*.py"))
MADE = {"cpu": "a processor", "cores": 2, "packages": {"torch": "2.0"}}


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))

    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def rows(markdown):
    """The cells of a table's rows."""
    return [line.strip("|").split("|") for line in markdown.splitlines() if line.startswith("| ")]


def save_ball(path, radius, colour, at=(0.0, 0.0, 0.0)):
    """A ball as a textured GLB, y up."""
    ball = trimesh.creation.icosphere(4, radius)
    material = trimesh.visual.material.PBRMaterial(baseColorTexture=Image.new("RGB", (4, 4), colour))
    visual = trimesh.visual.TextureVisuals(uv=np.full((len(ball.vertices), 2), 0.5), material=material)
    trimesh.Trimesh((ball.vertices + at) @ Y_UP, ball.faces, visual=visual, process=False).export(path)


def views(mesh, lighting, count, turn):
    heights = torch.linspace(-80, 80, count)[None]
    cameras = orbit(turn + 137.5 * torch.arange(count)[None], heights, 3.0, 40.0, 64, 64)
    return render(mesh, cameras, samples=4, lighting=lighting)


def test_a_mesh_is_held_against_what_views_hit(study, tmp_path):
    meshes = study("meshes")
    save_ball(tmp_path / "true.glb", 0.5, (200, 40, 40))
    save_ball(tmp_path / "large.glb", 0.6, (200, 40, 40))
    save_ball(tmp_path / "blue.glb", 0.5, (40, 40, 200))
    true, large, blue = (meshes.read_glb(tmp_path / f"{name}.glb") for name in ("true", "large", "blue"))
    seen, held = (views(true, meshes.UNLIT, count, turn) for count, turn in ((40, 0.0), (20, 60.0)))
    same, larger, other = (meshes.compared(mesh, seen, held) for mesh in (true, large, blue))
    assert same["psnr"] > 60 and same["chamfer"] < 15 and same["floor"] < 15
    assert abs(larger["to_source"] - 100) < 3 and abs(larger["to_mesh"] - 100) < 3 and larger["psnr"] < 20
    assert other["chamfer"] == same["chamfer"] and abs(other["psnr_masked"] - 20 * np.log10(255 / 160 * 1.5**0.5)) < 0.3


def test_meshes_stand_where_they_were(study, tmp_path):
    meshes = study("meshes")
    save_ball(tmp_path / "a.glb", 0.2, (9, 9, 9), at=(0.5, -0.3, 0.1))
    mesh = meshes.read_glb(tmp_path / "a.glb")
    np.testing.assert_allclose(mesh.vertices.mean(0), (0.5, -0.3, 0.1), atol=1e-5)


def test_a_point_is_kept_for_each_cell(study):
    meshes = study("meshes")
    points = np.array([[0.001, 0, 0], [0.004, 0, 0], [0.006, 0, 0], [0.001, 0.02, 0]])
    assert len(meshes.thinned(points)) == 3


def test_finished_runs_are_kept(study, tmp_path):
    runs = study("runs")
    folder = runs.place(tmp_path, "ib planes | a standing dog")
    assert folder == tmp_path / "ib_planes_a_standing_dog"
    folder.mkdir()
    (folder / "metrics.json").write_text(json.dumps({"test/psnr": 30.5, "kind": "a word"}))
    assert runs.finish(folder, ["task=none"]) == {"test/psnr": 30.5}


def test_all_that_has_geometry_is_distilled_into(study):
    able = {
        name
        for name in choices("representation")
        if "geometry" in OmegaConf.load(CONF_DIR / "representation" / f"{name}.yaml").provides
    }
    assert set(study("distil").REPRESENTATIONS) == able


def test_what_is_distilled_becomes_a_table(study):
    figures = {"right_subject": 0.5, "steps": 3, "seconds": 10.0, "peak_memory_mb": 100}
    results = {"nerf | castle": figures, "nerf | race car": {**figures, "janus": 0.25, "seconds": 20.0}}
    [head, row] = rows(study("distil").table({**results, "versions": MADE}))
    assert [cell.strip() for cell in row] == ["nerf", "50%", "", "50%", "0.25", "3", "15", "100"]
    assert len(head) == len(row)


@pytest.mark.parametrize("script", ["fit", "meshes"])
def test_objects_of_a_kind_share_a_row(study, script):
    module = study(script)
    keys = module.FIGURES
    every = [f"{key}{guess}" for key in keys for guess in ("", "_mean_image", "_nearest_view")]
    first, second = dict.fromkeys(every, 10.0), dict.fromkeys(every, 20.0)
    results = {"nerf | toybox tree": first, "nerf | toybox castle": second, "versions": MADE}
    head, row, *_ = ([cell.strip() for cell in row] for row in rows(module.table(results)))
    assert row[:2] == ["nerf", "2 toybox"] and len(head) == len(row)
    means = [value for name, value in zip(head, row, strict=True) if name in keys.values()]
    assert means == ["15"] * len(keys)


def test_trials_stay_out_of_what_is_published(study, tmp_path, capsys):
    runs = study("runs")
    elsewhere = [f"--results={tmp_path / 'results'}", f"--state={tmp_path / 'runs'}"]
    given = runs.arguments("", "FIT.md").parse_args([*elsewhere, "task.steps=2"])
    assert given.overrides == ["task.steps=2"]
    for wrong in (
        ["task.steps=2"],
        [elsewhere[0], "task.steps=2"],
        [elsewhere[1], "task.steps=2"],
        [elsewhere[0], "--table"],
    ):
        with pytest.raises(SystemExit):
            runs.arguments("", "FIT.md").parse_args(wrong)
    assert "folder of its own" in capsys.readouterr().err


def test_figures_are_kept_with_the_commit_of_their_run(study, tmp_path):
    runs = study("runs")
    folder = runs.place(tmp_path, "nerf | a")
    folder.mkdir()
    (folder / "versions.json").write_text(json.dumps({"git": "abc"}))
    done = Future()
    done.set_result({"test/psnr": 30.5})
    runs.keep(tmp_path / "results" / "fit.json", {done: "nerf | a"}, tmp_path)
    found = runs.read(tmp_path / "results" / "fit.json")
    assert found["nerf | a"] == {"test/psnr": 30.5} and found["commits"] == {"nerf | a": "abc"}


@pytest.mark.parametrize("name", ["runs", "fit", "distil", "meshes"])
def test_every_script_can_be_imported(study, name):
    assert study(name).__doc__
