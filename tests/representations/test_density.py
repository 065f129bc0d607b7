"""Pruning and splitting by rank, under a hard cap."""

import math
from types import SimpleNamespace

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import SceneParameters
from diffusion3d.representations.density import RankedDensification
from diffusion3d.representations.gsplat import GaussianSplats

RATES = dict.fromkeys(("means", "quats", "scales", "opacities", "colors"), 0.01)


SETTINGS = {"start": 0, "stop": 1, "rounds": 10, "cap": 6000, "growth": 0.1, "min_opacity": 0.02}


def ranked(**settings):
    return RankedDensification(**{**SETTINGS, **settings})


def owner_of(opacities):
    splats = GaussianSplats(RATES, count=len(opacities))
    raw = splats.init(1, torch.Generator().manual_seed(0))
    raw["opacities"] = torch.logit(torch.tensor([opacities]))
    raw["colors"] = torch.arange(3.0 * len(opacities)).view(1, -1, 3)
    owner = SceneParameters(splats, raw)
    optimizer = torch.optim.Adam(owner.param_groups())
    sum((value * torch.arange(1, 1 + value.numel()).view(value.shape)).sum() for value in owner.raw.values()).backward()
    optimizer.step()
    return owner, optimizer


def test_the_faint_go_and_those_with_the_largest_gradients_are_split():
    owner, optimizer = owner_of([0.5, 0.01, 0.6, 0.7, 0.8])
    before = {name: value.detach().clone() for name, value in owner.raw.items()}
    moments = {
        group["name"]: optimizer.state[group["params"][0]]["exp_avg"].clone() for group in optimizer.param_groups
    }
    density = ranked(growth=0.5, cap=100, min_opacity=0.05)
    gradient = torch.zeros(2, 5, 2)
    gradient[0, :, 0] = torch.tensor([1.0, 9.0, 3.0, 0.0, 0.0])
    gradient[1, :, 1] = torch.tensor([0.0, 0.0, 0.0, 2.5, 0.1])
    density.observe(gradient, 10, 10)
    torch.manual_seed(0)
    density.apply(owner, optimizer)
    kept, split = [0, 2, 3, 4], [2, 3]
    after = {name: value.detach() for name, value in owner.raw.items()}
    assert after["means"].shape == (1, 6, 3)
    assert torch.equal(after["colors"], before["colors"][:, [*kept, *split]])
    assert torch.equal(after["means"][:, [0, 3]], before["means"][:, [0, 4]]), "the others stay"
    middle = (after["means"][:, [1, 2]] + after["means"][:, [4, 5]]) / 2
    torch.testing.assert_close(middle, before["means"][:, split])
    assert not torch.allclose(after["means"][:, 1], after["means"][:, 4])
    torch.testing.assert_close(after["scales"][:, [1, 2, 4, 5]], before["scales"][:, split * 2] - math.log(1.6))
    for group in optimizer.param_groups:
        assert group["params"][0] is owner.raw[group["name"]]
        state = optimizer.state[group["params"][0]]["exp_avg"]
        assert torch.equal(state[:, :4], moments[group["name"]][:, kept]) and (state[:, 4:] == 0).all()


@pytest.mark.parametrize(("cap", "expected"), [(7, 7), (6, 6), (3, 6), (100, 12)])
def test_the_cap_is_never_passed(cap, expected):
    owner, optimizer = owner_of([0.5] * 6)
    density = ranked(growth=1.0, cap=cap)
    density.observe(torch.rand(1, 6, 2), 8, 8)
    density.apply(owner, optimizer)
    assert owner.raw["means"].shape[1] == expected


def test_a_scene_that_has_faded_altogether_is_left_alone():
    owner, optimizer = owner_of([0.01] * 4)
    density = ranked(min_opacity=0.5)
    density.observe(torch.rand(1, 4, 2), 8, 8)
    density.apply(owner, optimizer)
    assert owner.raw["means"].shape[1] == 4


def test_gradients_add_up_in_units_of_the_half_image():
    density = ranked()
    gradient = torch.tensor([[[0.3, 0.0]], [[0.0, 0.4]]])
    for _ in range(2):
        density.observe(gradient, width=20, height=10)
    assert density.score.tolist() == pytest.approx([2 * (0.3 * 10 + 0.4 * 5)])


def test_when_it_is_due():
    density = ranked(start=0.2, stop=0.6, rounds=4)
    assert [step for step in range(50) if density.due(step, 50)] == [10, 15, 20, 25]
    assert [step for step in range(5) if density.due(step, 5)] == [1, 2]


@pytest.mark.parametrize("total", [17, 400])
def test_a_short_run_ends_with_as_many_as_a_long_one(total):
    counts, after = [], []
    for step in range(total):
        if not step:
            owner, optimizer = owner_of([0.5] * 40)
            density = ranked(start=0.3, stop=0.9, rounds=6)
        count = owner.raw["means"].shape[1]
        means2d = SimpleNamespace(grad=torch.rand(1, 1, count, 2))
        one = torch.ones(1, 1, 1, 8, 8)
        render = Render(
            one.expand(1, 1, 3, 8, 8), one, one, extras={"meta": {"means2d": means2d, "width": 8, "height": 8}}
        )
        density.after_step(owner, optimizer, render, step, total)
        counts.append(owner.raw["means"].shape[1])
        if counts[-1] != count:
            after.append(step / total)
    assert counts[-1] == 68 and len(after) == 6 and after[0] > 0.25 and after[-1] < 0.9


@pytest.mark.parametrize(("start", "stop"), [(0.9, 0.1), (-0.1, 0.5), (0.5, 380)])
def test_impossible_shares_are_refused(start, stop):
    with pytest.raises(UserError, match="shares of the run"):
        ranked(start=start, stop=stop)


@pytest.mark.parametrize("opacity", [0.0, 1.0])
def test_impossible_opacities_are_refused(opacity):
    with pytest.raises(UserError, match="min_opacity"):
        ranked(min_opacity=opacity)


def test_a_start_above_the_cap_is_refused():
    with pytest.raises(UserError, match="count=70 exceeds"):
        GaussianSplats({}, count=70, density=ranked(cap=60))
