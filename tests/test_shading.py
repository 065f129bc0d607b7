"""How often a step is lit, and how."""

from collections import Counter

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.shading import Shadings

STEP = Step(0, 10)


def test_kinds_come_as_often_as_they_should():
    torch.manual_seed(0)
    shadings = Shadings(albedo=1.0, lambertian=2.0, textureless=4.0, normal=1.0)
    found = Counter(shadings.sample(STEP) for _ in range(4000))
    shares = {None: 1 / 8, "lambertian": 2 / 8, "textureless": 4 / 8, "normal": 1 / 8}
    assert {name: count / 4000 for name, count in found.items()} == pytest.approx(shares, abs=0.03)


@pytest.mark.parametrize("name", ["albedo", "lambertian", "textureless", "normal"])
def test_one_kind_alone_draws_nothing(name):
    before = torch.get_rng_state()
    shadings = Shadings(**{"albedo": 0.0, name: 0.3})
    assert shadings.sample(STEP) == (None if name == "albedo" else name)
    assert shadings.lit == (name != "albedo")
    assert torch.equal(torch.get_rng_state(), before)


def test_weights_follow_their_schedules():
    shadings = Shadings(
        albedo={"from": 1.0, "to": 0.0, "start": 0.0, "end": 0.5},
        normal={"from": 0.0, "to": 1.0, "start": 0.5, "end": 0.5},
    )
    assert shadings.lit
    assert shadings.sample(Step(0, 10)) is None and shadings.sample(Step(10, 10)) == "normal"


def test_they_come_from_the_global_generator():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append([Shadings(1.0, 1.0, 1.0, 1.0).sample(STEP) for _ in range(20)])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("weights", [{"albedo": 0.0}, {"lambertian": -1.0}])
def test_impossible_weights_are_refused(weights):
    with pytest.raises(UserError, match=r"task\.shading at step 0 is .*: weights must be >= 0, and one above"):
        Shadings(**weights).sample(STEP)
