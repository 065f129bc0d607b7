"""Terms that compare a scene with what was observed."""

import pytest
import torch

from choices import cameras
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.measurements import Depth, Image, Mask, NormalSmoothness
from diffusion3d.rendering.render import Render
from diffusion3d.views import PosedViews

SIDE = 8
BACKGROUND = torch.tensor([[0.2, 0.4, 0.6]])
CONDITION = Condition(extra={"background": BACKGROUND})


class Shown:
    def __init__(self, normals=None):
        generator = torch.Generator().manual_seed(0)
        self.alpha = torch.rand(1, 2, 1, SIDE, SIDE, generator=generator).requires_grad_()
        self.rgb = (self.alpha.detach() * torch.rand(1, 2, 3, SIDE, SIDE, generator=generator)).requires_grad_()
        self.depth = (2 + torch.rand(1, 2, 1, SIDE, SIDE, generator=generator)).requires_grad_()
        self.normals, self.seen = normals, []

    def render(self, cameras, pixels=None, sources=None, shading=None):
        self.seen.append(cameras)
        return Render(self.rgb, self.alpha, self.depth, self.normals)


def views(**fields):
    scene = Shown()
    truth = {"images": scene.rgb, "alpha": scene.alpha, "depth": scene.depth}
    return PosedViews(cameras(size=SIDE), **{name: value.detach().clone() for name, value in truth.items()} | fields)


def value(term, scene=None, progress=0):
    scene = scene or Shown()
    return term(scene, Shown().render(None), cameras(size=SIDE), CONDITION, Step(progress, 10))


@pytest.mark.parametrize("term", [Image, Mask, Depth])
def test_what_was_observed_costs_nothing_and_is_seen_by_its_own_cameras(term):
    scene, observed = Shown(), views()
    assert value(term(observed), scene).item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(scene.seen[0].c2w, observed.cameras.c2w)


def test_errors_are_their_formulas():
    kept = views()
    image = Shown().rgb + (1 - Shown().alpha) * BACKGROUND.view(1, 1, 3, 1, 1)
    opaque = views(images=torch.zeros(1, 2, 3, SIDE, SIDE), alpha=None)
    assert value(Image(opaque, 2.0)).item() == pytest.approx(2 * image.square().mean().item(), rel=1e-5)
    assert value(Mask(views(alpha=kept.alpha + 0.1))).item() == pytest.approx(0.01, rel=1e-3)
    assert value(Depth(views(depth=kept.depth + 0.3))).item() == pytest.approx(0.3, rel=1e-3)


@pytest.mark.parametrize(("term", "field"), [(Image, "images"), (Mask, "alpha"), (Depth, "depth")])
def test_only_observed_pixels_count_and_pull(term, field):
    mask = torch.zeros(1, 2, 1, SIDE, SIDE, dtype=torch.bool)
    mask[..., :4] = True
    off = getattr(views(), field).clone()
    off[..., 4:] += 5.0
    assert value(term(views(**{field: off}, mask=mask))).item() == pytest.approx(0, abs=1e-6)
    off[..., :4] += 0.5
    scene = Shown()
    value(term(views(**{field: off}, mask=mask)), scene).backward()
    grad = {"images": scene.rgb, "alpha": scene.alpha, "depth": scene.depth}[field].grad
    assert (grad[..., :4] < 0).all() and (grad[..., 4:] == 0).all()
    nothing = value(term(views(**{field: off}, mask=torch.zeros_like(mask))))
    assert nothing.item() == 0


def test_relative_depth_forgives_scale_and_shift_of_each_view_and_nothing_else():
    guessed = views().depth * torch.tensor([0.1, 3.0]).view(1, 2, 1, 1, 1) + torch.tensor([5.0, 0.0]).view(
        1, 2, 1, 1, 1
    )
    assert value(Depth(views(depth=guessed), relative=True)).item() < 1e-4
    assert value(Depth(views(depth=guessed))).item() > 1
    assert value(Depth(views(depth=guessed.flip(-1)), relative=True)).item() > 0.1


def test_unobserved_depth_is_left_alone():
    depth = views().depth
    depth[..., 0, :] = 0
    assert value(Depth(views(depth=depth))).item() == pytest.approx(0, abs=1e-6)


def test_at_weight_zero_nothing_is_rendered():
    scene = Shown()
    assert value(Image(views(), {"from": 0.0, "to": 1.0}), scene).item() == 0 and not scene.seen


def test_views_that_lack_the_field_are_refused():
    for term, field in ((Image, "images"), (Mask, "alpha"), (Depth, "depth")):
        with pytest.raises(UserError, match=f"needs views with {field}"):
            term(views(**{field: None}))


def test_even_normals_are_smooth_and_a_bump_is_pulled_in():
    flat = torch.tensor([0.0, 0.0, 1.0]).view(1, 1, 3, 1, 1).expand(1, 2, 3, SIDE, SIDE).clone()
    term = NormalSmoothness(1.0, size=5)
    assert value_of(term, flat).item() == pytest.approx(0, abs=1e-10)
    bump = flat.clone()
    bump[0, 0, :, 4, 4] = torch.tensor([1.0, 0.0, 0.0])
    bump.requires_grad_()
    loss = value_of(term, bump)
    loss.backward()
    assert loss > 0 and bump.grad[0, 0, 0, 4, 4] > 0 and bump.grad[0, 0, 2, 4, 4] < 0
    assert value_of(term, None).item() == 0
    with pytest.raises(UserError, match="size=4"):
        NormalSmoothness(size=4)


def value_of(term, normals):
    scene = Shown(normals)
    return term(scene, scene.render(None), cameras(size=SIDE), CONDITION, Step(0, 1))
