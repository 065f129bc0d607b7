"""Priors from pipelines in whole runs."""

import json

import numpy as np
import pytest
from PIL import Image

import diffusion3d
from choices import SCENE, SIZE, small
from diffusion3d.errors import UserError
from tiny_pipelines import folder

TYPED = ["logger=none", "device=cpu", "precision=fp32", "prompt=a castle", "camera.turntable_frames=3"]
DISTILL = [
    "task=distill",
    "task.steps=2",
    "task.video_size=16",
    *SCENE,
    "representation.density=null",
    "camera.views=2",
]
SAMPLE = ["task=sample", "sampler.steps=2", "task.count=1", "task.views=2"]


def run(directory, prior, *typed):
    metrics = diffusion3d.run([*TYPED, f"prior={prior}", *small("prior", prior), f"hydra.run.dir={directory}", *typed])
    return metrics


@pytest.mark.parametrize("prior", ["stable_diffusion", "sdxl", "deepfloyd", "mvdream"])
def test_samples_are_drawn(prior, tmp_path):
    assert run(tmp_path, prior, *SAMPLE)["samples"] == 1
    picture = np.asarray(Image.open(tmp_path / "samples/000.png"))
    assert picture.shape == (SIZE, 2 * SIZE, 3) and picture.std() > 1
    record = json.loads((tmp_path / "versions.json").read_text())
    assert len(record["prior_weights"]) == 64


@pytest.mark.parametrize("guidance", ["sds", "hifa", "vsd", "perp_neg"])
def test_a_scene_is_distilled_from_latents_at_the_models_own_size(guidance, tmp_path):
    size = ["prior.image_size=null", "prior.view_prompts.blend=true", f"prior.text_cache={tmp_path / 'cache'}"]
    run(tmp_path / "run", "stable_diffusion", *DISTILL, f"guidance={guidance}", *size)
    rows = (tmp_path / "run/metrics.csv").read_text().splitlines()
    assert len(rows) == 3 and "nan" not in rows[-1]
    assert list((tmp_path / "cache").glob("*.safetensors"))
    if guidance == "sds":
        again = ["task=render", f"run={tmp_path / 'run'}", "task.size=24", "task.frames=2", "logger=none"]
        assert diffusion3d.run([*again, f"hydra.run.dir={tmp_path / 'again'}"])["frames"] == 2


@pytest.mark.parametrize(("prior", "guidance"), [("mvdream", "mvdream"), ("deepfloyd", "sds"), ("sdxl", "csd")])
def test_every_kind_distils(prior, guidance, tmp_path):
    assert run(tmp_path, prior, *DISTILL, f"guidance={guidance}")["steps"] == 2


def test_a_distilled_model_runs_without_guidance_and_says_so_with_it(tmp_path):
    model = [f"prior.model={folder('lcm')}"]
    run(tmp_path / "a", "stable_diffusion", *DISTILL, *model, "guidance.scale=1")
    run(tmp_path / "b", "stable_diffusion", *SAMPLE, *model, "task.scale=1")
    with pytest.raises(UserError, match="set guidance.scale=1"):
        run(tmp_path / "c", "stable_diffusion", *DISTILL, *model)


def test_what_it_cannot_is_refused_at_composition(tmp_path):
    with pytest.raises(UserError, match=r"objective=denoising needs 'pixel'"):
        run(tmp_path, "stable_diffusion", "task=train", "objective=denoising")
    with pytest.raises(UserError, match=r"prior.model=nowhere is no folder here"):
        run(tmp_path, "stable_diffusion", *SAMPLE, "prior.model=nowhere")
