"""The regularisers, and what every file of the config group keeps."""

import math

import pytest
import torch

from choices import cameras, choices, chosen
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step, Term
from diffusion3d.guidance.terms import DepthVariance, Entropy, Opacity, Orientation, RayEntropy, Size, Sparsity
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import SceneParameters
from diffusion3d.tasks.build import CAPABILITIES, build

STEP = Step(5, 10)


class Elements:
    """Two elements, as far as the terms look."""

    def __init__(self):
        self.opacities = torch.tensor([[0.2, 0.6]], requires_grad=True)
        self.scales = torch.tensor([[[0.3, 0.1, 0.05], [0.15, 0.1, 0.0]]], requires_grad=True)

    def render(self, cameras, pixels=None, sources=None, shading=None):
        alpha = torch.tensor([0.0, 0.5, 1.0, 0.25]).view(1, 1, 1, 2, 2).requires_grad_()
        variance = torch.tensor([5.0, 6.0, 0.3, 7.0]).view(1, 1, 1, 2, 2)
        extras = {"entropy": 0.1 * variance, "facing_away": 0.01 * variance}
        return Render(alpha.expand(1, 1, 3, 2, 2), alpha, torch.zeros_like(alpha), None, variance, extras)


def value(term, step=STEP):
    scene = Elements()
    return term(scene, scene.render(None), cameras(size=2), Condition(), step)


def binary_entropy(p):
    p = min(max(p, 1e-3), 1 - 1e-3)
    return -p * math.log(p) - (1 - p) * math.log(1 - p)


@pytest.mark.parametrize(
    ("term", "expected"),
    [
        (Opacity(2.0), 2 * sum(math.sqrt(a * a + 0.01) for a in (0, 0.5, 1, 0.25)) / 4),
        (Entropy(3.0), 3 * sum(binary_entropy(a) for a in (0, 0.5, 1, 0.25)) / 4),
        (Sparsity(1.0), 0.4),
        (DepthVariance(2.0), 0.6),
        (RayEntropy(2.0), 2 * 0.1 * 18.3 / 4),
        (Orientation(2.0), 2 * 0.01 * 18.3 / 4),
        (Size(10.0, limit=0.1), 10 * (0.2**2 + 0.05**2) / 2),
    ],
)
def test_terms_are_their_formulas(term, expected):
    assert value(term).item() == pytest.approx(expected, rel=1e-4)


def test_weights_follow_their_schedule():
    term = Sparsity({"from": 1.0, "to": 3.0, "start": 0.5, "end": 1.0})
    weights = [value(term, Step(index, 100)).item() / 0.4 for index in (0, 50, 75, 100)]
    assert weights == pytest.approx([1.0, 1.0, 2.0, 3.0])


@pytest.mark.parametrize("schedule", [{"from": 1.0}, {"from": 1.0, "to": 2.0, "stop": 1.0}])
def test_a_schedule_of_other_keys_is_refused(schedule):
    with pytest.raises(UserError, match="a schedule is"):
        Sparsity(schedule)


def test_a_term_of_weight_zero_is_not_evaluated():
    class Broken(Opacity):
        def measure(self, scene, render):
            raise AssertionError("evaluated")

    assert value(Broken(0.0)).item() == 0


@pytest.mark.parametrize("choice", choices("terms"))
def test_every_term_of_a_choice_is_finite_and_pulls_at_the_scene(choice):
    name = "nerf" if choice == "field" else "gsplat"
    representation = build(chosen("representation", name))
    node = chosen("terms", choice, f"representation={name}")
    for name in [name for name in node if name not in CAPABILITIES]:
        if "weight" in node[name]:
            node[name].weight = 1.0
        term = build(node[name])
        assert isinstance(term, Term)
        owner = SceneParameters(representation, representation.init(1, torch.Generator().manual_seed(0)))
        scene = owner.scene()
        render = scene.render(cameras(), shading="lambertian" if term.lit else None)
        loss = term(scene, render, cameras(), Condition(), Step(9, 10))
        assert loss.shape == () and torch.isfinite(loss) and loss != 0, name
        loss.backward()
        assert any(p.grad is not None and (p.grad != 0).any() for p in owner.raw.values()), name


def test_orientation_needs_lit_views_where_it_weighs():
    assert Orientation(0.1).lit and Orientation({"from": 0.0, "to": 1.0}).lit
    assert not Orientation(0.0).lit and not RayEntropy(1.0).lit
