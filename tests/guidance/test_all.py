"""What every guidance scheme of the config group keeps."""

import functools

import pytest
import torch

from choices import SIZE, choices, chosen, make_prior
from diffusion3d.backgrounds import Backgrounds
from diffusion3d.camera_sampling import Orbit
from diffusion3d.guidance.base import Guidance, Step
from diffusion3d.rendering.render import Render
from diffusion3d.tasks.build import build

STEPS = [Step(0, 10), Step(9, 10)]


@pytest.fixture
def prior():
    return make_prior()


config = functools.cache(chosen)


@pytest.fixture(params=choices("guidance"))
def choice(request):
    return request.param


def make(choice, prior):
    torch.manual_seed(0)
    return build(config("guidance", choice), prior=prior)


@pytest.fixture
def guidance(choice, prior):
    return make(choice, prior)


class Picture:
    """A scene that looks the same from everywhere."""

    def __init__(self):
        generator = torch.Generator().manual_seed(4)
        self.alpha = torch.rand(1, 2, 1, 32, 32, generator=generator)
        self.rgb = (self.alpha * torch.rand(1, 2, 3, 32, 32, generator=generator)).requires_grad_()

    def render(self, cameras, pixels=None, sources=None, shading=None):
        return Render(self.rgb, self.alpha, torch.ones_like(self.alpha))


def guide(guidance, prior, step, seed=0, prompt="a castle"):
    """({name: loss}, the gradient on the picture)."""
    scene = Picture()
    torch.manual_seed(seed)
    views = guidance.cameras(Orbit(SIZE, 2), step)
    condition = prior.condition([prompt], views, guidance.background(Backgrounds(), step))
    guidance.prepare(Picture(), condition)
    losses = guidance(scene, scene.render(views), views, condition, step)
    sum(losses.values()).backward()
    guidance.update(step)
    return losses, scene.rgb.grad


def copy(state):
    return {name: value.clone() for name, value in state.items()}


@pytest.mark.parametrize("step", STEPS)
def test_losses_are_finite_and_reach_the_picture(guidance, prior, step):
    assert isinstance(guidance, Guidance)
    losses, gradient = guide(guidance, prior, step)
    assert losses
    for name, loss in losses.items():
        assert name.isidentifier() and loss.shape == () and loss.requires_grad and torch.isfinite(loss)
    assert torch.isfinite(gradient).all() and (gradient != 0).flatten(2).any(2).all(), "every view is judged"


def test_the_prior_stays_as_it_is(guidance, prior):
    before = {name: value.clone() for name, value in prior.state_dict().items() if ".lora_" not in name}
    for step in STEPS:
        guide(guidance, prior, step)
    after = prior.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert all(parameter.grad is None for parameter in prior.parameters())
    assert not prior.training


def test_equal_seeds_give_equal_gradients(guidance, prior):
    state = copy(guidance.state())
    gradients = []
    for seed in (1, 1, 2):
        guidance.load_state(copy(state))
        gradients.append(guide(guidance, prior, STEPS[0], seed)[1])
    assert torch.equal(gradients[0], gradients[1])
    assert not torch.equal(gradients[0], gradients[2])


def test_the_prompt_matters(guidance, prior):
    state = copy(guidance.state())
    gradients = []
    for prompt in ("a castle", "a green dog on a yellow car"):
        guidance.load_state(copy(state))
        gradients.append(guide(guidance, prior, STEPS[0], prompt=prompt)[1])
    assert not torch.allclose(gradients[0], gradients[1], rtol=1e-3)


def test_the_state_comes_back(choice, guidance, prior):
    twin = make_prior()
    fresh = make(choice, twin)
    for step in STEPS:
        guide(guidance, prior, step)
    state = copy(guidance.state())
    assert not any(name.startswith("prior.") for name in state), "no checkpoint holds the frozen prior"
    after = guide(guidance, prior, STEPS[1], seed=3)[1]
    fresh.load_state(state)
    assert torch.equal(guide(fresh, twin, STEPS[1], seed=3)[1], after), "in the process that resumes"
