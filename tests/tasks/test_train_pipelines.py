"""Training the parts of a small Stable Diffusion on a folder of pictures; the result is a pipeline of diffusers."""

import csv
import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

import diffusion3d
from choices import SIZE, small
from posed_scenes import training, write_scenes
from tiny_pipelines import edit, folder

STEPS = 4
LEARNS = {"autoencoder": "vae", "text_distillation": "text_encoder", "latent_denoising": "unet"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("posed")
    write_scenes(root)
    return root


@pytest.fixture(scope="module", params=sorted(LEARNS))
def objective(request):
    return request.param


@pytest.fixture(scope="module")
def typed(root, objective, tmp_path_factory):
    cache = tmp_path_factory.mktemp("latents")
    return training(
        root,
        f"objective={objective}",
        "prior=stable_diffusion",
        *small("prior", "stable_diffusion"),
        "precision=fp32",
        "task.batches=[{scenes: 3, views: 1}]",
        "task.checkpoint_every=2",
        "task.preview_every=3",
        f"task.steps={STEPS}",
        *([f"objective.cache={cache}"] if objective == "latent_denoising" else []),
    )


@pytest.fixture(scope="module")
def whole(typed, tmp_path_factory):
    """An undisturbed run."""
    directory = tmp_path_factory.mktemp("train") / "run"
    diffusion3d.run([*typed, f"hydra.run.dir={directory}"])
    return directory


def weights(path):
    return {p.relative_to(path).parts[0]: load_file(p) for p in path.rglob("*.safetensors")}


def table(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def test_one_part_learns_and_only_that(whole, objective):
    before, after = weights(folder("sd")), weights(whole / "export")
    assert set(after) == {"unet", "vae", "text_encoder"}
    for part, state in after.items():
        assert state.keys() == before[part].keys()
        same = all(torch.equal(value, before[part][name].half()) for name, value in state.items())
        assert same == (part != LEARNS[objective]), part
        assert all(value.dtype == torch.float16 for value in state.values() if value.is_floating_point())


def test_plain_diffusers_draws_with_it(whole):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(whole / "export")
    pipeline.set_progress_bar_config(disable=True)
    image = pipeline("a castle", num_inference_steps=2, output_type="pt").images
    assert image.shape == (1, 3, SIZE, SIZE) and torch.isfinite(image).all()


def test_facts_stand_beside_it(whole, objective):
    facts = json.loads((whole / "export" / "training.json").read_text())
    assert (facts["steps"], facts["scenes"]) == (STEPS, 2)
    metrics = json.loads((whole / "metrics.json").read_text())
    assert all(value == pytest.approx(metrics[name], abs=1e-5) for name, value in facts["scores"].items())
    scale = json.loads((whole / "export" / "vae" / "config.json").read_text())["scaling_factor"]
    spread = facts["scores"].get("validation/latent_std", 2.0)
    assert scale == pytest.approx(1 / spread, rel=1e-4), "the pipeline of the tests has one of 0.5"


def test_a_stopped_run_resumes_to_the_same_bits(whole, typed, tmp_path):
    killed = tmp_path / "killed"
    shutil.copytree(whole, killed)
    sorted((killed / "checkpoints").iterdir())[-1].unlink()
    (killed / "metrics.json").unlink()
    diffusion3d.run([f"run.resume={killed}"])
    assert table(killed) == table(whole)
    for path in (whole / "export").rglob("*.json"):
        assert str(folder("sd").parent) not in path.read_text(), f"{path.name} tells where the model was"
    for path in (whole / "export").rglob("*"):
        if path.is_file():
            assert (killed / path.relative_to(whole)).read_bytes() == path.read_bytes(), path
    final = f"checkpoints/step_{STEPS:08d}.safetensors"
    assert (killed / final).read_bytes() == (whole / final).read_bytes()


def test_what_is_exported_is_trained_further(whole, typed, tmp_path):
    export = tmp_path / "export"
    shutil.copytree(whole / "export", export)
    edit(export / "training.json", note="kept")
    again = [f"prior.model={export}" if key.startswith("prior.model=") else key for key in typed]
    metrics = diffusion3d.run([*again, "task.steps=1", f"hydra.run.dir={tmp_path / 'run'}"])
    assert all(value == value for value in metrics.values())
