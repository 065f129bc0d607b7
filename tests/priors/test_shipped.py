"""The weights that ship with the package are whole, small, and know what their card says."""

import json

import pytest
import torch

from choices import composed
from diffusion3d.cameras import orbit
from diffusion3d.data.raycast import render
from diffusion3d.data.toybox.generate import draw
from diffusion3d.priors.weights import SHIPPED
from diffusion3d.tasks.build import build


@pytest.fixture(scope="module")
def prior():
    return build(composed().prior).eval()


def test_they_are_small_and_vouched_for(prior):
    [weights] = SHIPPED.glob("*.safetensors")
    assert weights.stat().st_size <= 32 * 2**20
    assert json.loads(weights.with_suffix(".json").read_text())["vocabulary"] == list(prior.vocabulary)


@torch.no_grad()
def test_they_denoise_objects_they_never_saw_and_listen_to_the_prompt(prior):
    size, names = prior.image_size, ("castle on a hill", "race car", "standing corgi dog", "mushroom")
    views = torch.arange(4)[None] * 90.0 + 20
    cameras = orbit(views, torch.full_like(views, 20.0), 3.0, 40.0, size, size)
    white = torch.ones(1, 3)
    t = torch.full((1, 4), 700)
    told, untold, mean = [], [], []
    for i, name in enumerate(names):
        x0 = prior.encode(render(draw(7, i, "test", name).mesh, cameras).over(white))
        x_t = prior.schedule.add_noise(x0, torch.randn(x0.shape, generator=torch.Generator().manual_seed(i)), t)
        condition = prior.condition([f"a {name}"], cameras, white)
        for errors, x in (
            (told, prior.denoise(x_t, t, condition).x0),
            (untold, prior.denoise(x_t, t, condition.without_text()).x0),
            (mean, x0.mean((-1, -2), keepdim=True)),
        ):
            errors.append(float((x - x0).square().mean()))
    assert sum(told) < sum(untold), "the prompt helps"
    assert sum(told) < 0.5 * sum(mean), "far better than one colour per picture"


def test_a_prompt_far_from_all_subjects_is_warned_about(prior):
    assert prior.warning("a castle on a green hill") is None
    message = prior.warning("a violin")
    assert message is not None
    assert "nearest" in message and any(name in message for name in prior.vocabulary)
