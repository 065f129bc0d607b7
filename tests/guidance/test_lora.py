"""What VSD learns a scene's renders with."""

import pytest
import torch
from torch import nn

from choices import cameras, make_prior
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.lora import LoRA
from diffusion3d.guidance.vsd import VSD
from gaussian_prior import GaussianPrior
from particles import Still

T = torch.tensor([600])


@pytest.fixture
def prior():
    return make_prior().eval().requires_grad_(False)


@pytest.fixture
def condition(prior):
    return prior.condition(["a castle"], cameras(), torch.full((1, 3), 0.5))


@pytest.fixture
def learner(prior):
    torch.manual_seed(0)
    return LoRA(prior, rank=2, lr=1e-2)


def picture(seed=0):
    return torch.rand(1, 2, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def error(learner, x, condition, count=6):
    torch.manual_seed(7)
    with torch.no_grad():
        return sum(learner.loss(x, condition).item() for _ in range(count)) / count


def test_it_is_the_prior_at_first_and_vsd_does_not_drift(prior, condition):
    x = picture()
    answer = prior.denoise(x, T, condition).x0
    learner = LoRA(prior, rank=2)
    assert torch.equal(prior.denoise(x, T, condition).x0, answer)
    assert torch.equal(learner.denoise(x, T, condition).x0, answer)
    guidance = VSD(prior, learner=lambda _: learner, scale=1.0)
    image = torch.rand(1, 2, 3, 32, 32, requires_grad=True)
    scene = Still(image)
    guidance(scene, scene.render(cameras()), cameras(), condition, Step(0, 1))["vsd"].backward()
    assert (image.grad == 0).all()


def test_it_learns_and_the_prior_does_not(prior, learner, condition):
    x, before = picture(), {name: value.clone() for name, value in make_prior().state_dict().items()}
    answer, start = prior.denoise(x, T, condition).x0, error(learner, x, condition)
    for _ in range(25):
        learner.learn(x, condition)
    assert error(learner, x, condition) < 0.8 * start
    assert torch.equal(prior.denoise(x, T, condition).x0, answer), "nothing stays attached"
    assert not torch.equal(learner.denoise(x, T, condition).x0, answer)
    after = {
        name.replace(".base_layer", ""): value for name, value in prior.state_dict().items() if ".lora_" not in name
    }
    assert after.keys() == before.keys() and all(torch.equal(before[name], value) for name, value in after.items())
    assert all(parameter.grad is None for parameter in [*prior.parameters(), *learner.adapters.parameters()])


def test_every_layer_is_adapted_and_what_it_is_told_matters(prior, learner, condition):
    x = picture()
    for _ in range(2):
        learner.learn(x, condition)
    assert len(learner.adapters) == sum(isinstance(m, nn.Linear | nn.Conv2d) for m in make_prior().network.modules())
    assert all((adapter[1].weight != 0).any() for adapter in learner.adapters), "an adapter that nothing reaches"
    moved = prior.condition(["a castle"], cameras().select(views=torch.tensor([1, 0])), torch.full((1, 3), 0.5))
    assert not torch.allclose(learner.denoise(x, T, moved).x0, learner.denoise(x, T, condition).x0)


def test_a_scene_never_learns_through_phi(prior, learner, condition):
    """The gradient of the loss reaches the picture only as the difference of the two answers."""
    guidance = VSD(prior, learner=lambda _: learner)
    image = torch.rand(1, 2, 3, 32, 32, requires_grad=True)
    scene = Still(image)
    torch.manual_seed(0)
    guidance(scene, scene.render(cameras()), cameras(), condition, Step(0, 1))["vsd"].backward()
    assert image.grad is not None
    assert all(parameter.grad is None for parameter in guidance.parameters())


def test_the_optimiser_comes_back_to_the_bit(prior, learner, condition):
    x = picture()
    for _ in range(3):
        learner.learn(x, condition)
    state = {name: value.clone() for name, value in learner.state_dict().items()}
    assert float(state["step_0"]) == 3 and not any("prior" in name for name in state)

    def follow(learner):
        torch.manual_seed(1)
        for _ in range(2):
            learner.learn(x, condition)
        return torch.cat([p.detach().flatten() for p in learner.adapters.parameters()])

    expected = follow(learner)
    fresh = LoRA(make_prior().eval().requires_grad_(False), rank=2, lr=1e-2)
    fresh.load_state_dict(state)
    assert torch.equal(follow(fresh), expected)
    learner.load_state_dict(state)
    assert torch.equal(follow(learner), expected)


def test_a_strided_convolution_and_a_linear_layer_get_additions_of_their_shape():
    network = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2, padding=1), nn.Flatten(), nn.Linear(20, 7))
    prior = GaussianPrior()
    prior.network = network
    learner, x = LoRA(prior), torch.rand(2, 3, 4, 4)
    with learner.attached():
        assert torch.equal(network(x), network(x)) and network(x).shape == (2, 7)
        nn.init.ones_(learner.adapters[1][1].weight)
        inside = network(x)
    assert not torch.equal(inside, network(x))
    assert torch.allclose(inside - network(x), learner.adapters[1](network[:2](x)), atol=1e-6)


def test_what_cannot_be_is_refused(prior):
    with pytest.raises(UserError, match="rank=0"):
        LoRA(prior, rank=0)
    empty = GaussianPrior()
    empty.network = nn.Identity()
    with pytest.raises(UserError, match="no linear or convolution layer"):
        LoRA(empty)
