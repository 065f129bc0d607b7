"""Terms that compare a scene with what was observed."""

import pytest
import torch

from choices import cameras, choices, chosen
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.measurements import Depth, Image, Mask, NormalSmoothness, Observation
from diffusion3d.rendering.render import Render
from diffusion3d.tasks.build import build
from diffusion3d.views import PosedViews

SIDE = 8
BACKGROUND = torch.tensor([[0.2, 0.4, 0.6]])
CONDITION = Condition(extra={"background": BACKGROUND})
TERMS = [(Image, "images"), (Mask, "alpha"), (Depth, "depth")]


class Shown:
    def __init__(self, normals=None):
        generator = torch.Generator().manual_seed(0)
        self.alpha = torch.rand(1, 2, 1, SIDE, SIDE, generator=generator).requires_grad_()
        self.rgb = (self.alpha.detach() * torch.rand(1, 2, 3, SIDE, SIDE, generator=generator)).requires_grad_()
        self.depth = (2 + torch.rand(1, 2, 1, SIDE, SIDE, generator=generator)).requires_grad_()
        self.normals, self.seen = normals, []

    def render(self, cameras, pixels=None, sources=None, shading=None):
        self.seen.append((cameras, shading))
        return Render(self.rgb, self.alpha, self.depth, self.normals if shading == "normal" else None)


def views(**fields):
    scene = Shown()
    truth = {"images": scene.rgb, "alpha": scene.alpha, "depth": scene.depth}
    return PosedViews(cameras(size=SIDE), **{name: value.detach().clone() for name, value in truth.items()} | fields)


def value(term, observed, scene=None, progress=0):
    observation = Observation(observed, {"it": term}, normals=True)
    return observation(scene or Shown(), CONDITION, Step(progress, 10))["it"]


@pytest.mark.parametrize("term", [Image, Mask, Depth])
def test_what_was_observed_costs_nothing_and_is_seen_by_its_own_cameras(term):
    scene, observed = Shown(), views()
    assert value(term(), observed, scene).item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(scene.seen[0][0].c2w, observed.cameras.c2w)


def test_errors_are_their_formulas():
    kept = views()
    image = Shown().rgb + (1 - Shown().alpha) * BACKGROUND.view(1, 1, 3, 1, 1)
    black = torch.zeros(1, 2, 3, SIDE, SIDE)
    opaque = views(images=black, alpha=None)
    assert value(Image(2.0), opaque).item() == pytest.approx(2 * image.square().mean().item(), rel=1e-5)
    cut = views(images=black, alpha=torch.ones_like(kept.alpha) * (torch.arange(SIDE) < 4))
    assert value(Image(), cut).item() == pytest.approx(image[..., :4].square().mean().item(), rel=1e-5)
    assert value(Mask(), views(alpha=kept.alpha + 0.1)).item() == pytest.approx(0.01, rel=1e-3)
    other = torch.rand_like(kept.depth) + 1
    pairs = (torch.stack([a.flatten(), b.flatten()]) for a, b in zip(kept.depth[0], other[0], strict=True))
    expected = sum((1 - torch.corrcoef(pair)[0, 1].item()) / 4 for pair in pairs)
    assert value(Depth(), views(depth=other)).item() == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(("term", "field"), TERMS)
def test_only_observed_pixels_count_and_pull(term, field):
    mask = torch.zeros(1, 2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., :4] = True
    off = getattr(views(), field).clone()
    off[..., 4:] = 5 + off[..., 4:].flip(-2)
    assert value(term(), views(**{field: off}, mask=mask)).item() == pytest.approx(0, abs=1e-6)
    off[..., :4] = 0.5 + off[..., :4] * torch.linspace(1.2, 2, 4)
    scene = Shown()
    value(term(), views(**{field: off}, mask=mask), scene).backward()
    grad = {"images": scene.rgb, "alpha": scene.alpha, "depth": scene.depth}[field].grad
    assert (grad[..., :4] != 0).all() and (grad[..., 4:] == 0).all()
    if field != "depth":
        assert (grad[..., :4] < 0).all()
    assert value(term(), views(**{field: off}, mask=torch.zeros_like(mask))).isfinite()


def test_depth_forgives_scale_and_shift_of_each_view_and_nothing_else():
    scale, shift = (torch.tensor(pair).view(1, 2, 1, 1, 1) for pair in ([0.1, 3.0], [5.0, 0.0]))
    assert value(Depth(), views(depth=views().depth * scale + shift)).item() < 1e-5
    assert value(Depth(), views(depth=views().depth.flip(-1))).item() > 0.1
    assert value(Depth(), views(depth=10 - views().depth)).item() == pytest.approx(1, abs=1e-5), "near is not far"


def test_unobserved_depth_is_left_alone():
    depth = views().depth
    depth[..., 0, :] = 0
    assert value(Depth(), views(depth=depth)).item() == pytest.approx(0, abs=1e-6)


def test_a_scene_without_depth_yet_gives_finite_gradients():
    scene = Shown()
    scene.depth = torch.full_like(scene.depth, 2.0).detach().requires_grad_()
    value(Depth(), views(), scene).backward()
    assert scene.depth.grad.isfinite().all()


def test_the_scene_is_rendered_once_for_all_terms_and_not_at_weight_zero():
    scene = Shown()
    terms = {"image": Image(2.0), "mask": Mask(), "late": Depth({"from": 0.0, "to": 1.0})}
    assert set(Observation(views(), terms)(scene, CONDITION, Step(0, 10))) == set(terms) and len(scene.seen) == 1
    scene = Shown(torch.zeros(1, 2, 3, SIDE, SIDE))
    Observation(views(), {**terms, "normals": NormalSmoothness()}, normals=True)(scene, CONDITION, Step(0, 10))
    assert [(camera.height, shading) for camera, shading in scene.seen] == [(SIDE, None), (SIDE // 2, "normal")]
    scene = Shown()
    assert value(Image({"from": 0.0, "to": 1.0}), views(), scene).item() == 0 and not scene.seen
    weights = [
        value(Mask({"from": 0.0, "to": 4.0}), views(alpha=views().alpha + 1), progress=p).item() for p in (5, 10)
    ]
    assert weights == pytest.approx([2, 4], rel=1e-4)


def test_terms_that_have_nothing_to_compare_are_left_out():
    terms = {"image": Image(), "mask": Mask(), "depth": Depth(), "normals": NormalSmoothness(), "none": None}
    assert list(Observation(views(alpha=None, depth=None), terms).terms) == ["image"]
    assert list(Observation(views(), terms, normals=True).terms) == ["image", "mask", "depth", "normals"]


def test_without_an_observation_there_are_no_losses():
    assert choices("observation") == ["none", "photograph"]
    scene = Shown()
    assert build(chosen("observation", "none"), normals=True)(scene, CONDITION, Step(0, 1)) == {} and not scene.seen


def test_even_normals_are_smooth_and_a_bump_is_pulled_in():
    flat = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).expand(1, 2, 3, SIDE, SIDE).clone()
    term = NormalSmoothness(1.0, size=5)
    assert value(term, views(), Shown(flat)).item() == pytest.approx(0, abs=1e-10)
    bump = flat.clone()
    bump[0, 0, :, 4, 4] = torch.tensor([1.0, 0.0, 0.0])
    bump.requires_grad_()
    loss = value(term, views(), Shown(bump))
    loss.backward()
    assert loss > 0 and bump.grad[0, 0, 0, 4, 4] > 0 and bump.grad[0, 0, 2, 4, 4] < 0
    with pytest.raises(UserError, match="size=4"):
        NormalSmoothness(size=4)
