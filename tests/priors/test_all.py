"""What every prior of the config group keeps."""

import dataclasses

import pytest
import torch

from choices import SIZE, cameras, choices, chosen, make_prior
from diffusion3d.priors.base import Prior

SCENES = 2


@pytest.fixture(scope="module", params=choices("prior"))
def choice(request):
    return request.param


@pytest.fixture(scope="module")
def prior(choice):
    return make_prior(choice)


@pytest.fixture(scope="module")
def provides(choice):
    return set(chosen("prior", choice).provides)


def case(prior, views):
    """(x_t, t, condition): two scenes whose views have levels of their own."""
    generator = torch.Generator().manual_seed(3)
    x_t = prior.encode(torch.rand(SCENES, views, 3, SIZE, SIZE, generator=generator))
    t = torch.randint(prior.schedule.num_timesteps, (SCENES, views), generator=generator)
    return (
        x_t,
        t,
        prior.condition(["a castle", "a red race car with wings"], cameras(SCENES, views), torch.rand(SCENES, 3)),
    )


@pytest.mark.parametrize("views", [1, 4])
@torch.no_grad()
def test_an_estimate_has_the_shape_of_the_item_in_float32(prior, views):
    assert isinstance(prior, Prior)
    x_t, t, condition = case(prior, views)
    x0 = prior.denoise(x_t, t, condition).x0
    assert x0.shape == x_t.shape and x0.dtype == torch.float32 and torch.isfinite(x0).all()


@torch.no_grad()
def test_clean_items_come_back_bit_for_bit_and_the_others_do_not(prior):
    x_t, t, condition = case(prior, 4)
    clean = torch.tensor([[True, False, False, True], [False, False, True, False]])
    x0 = prior.denoise(x_t, t.masked_fill(clean, -1), condition).x0
    assert torch.equal(x0[clean], x_t[clean])
    assert (x0[~clean] != x_t[~clean]).flatten(1).any(1).all()


@torch.no_grad()
def test_one_level_per_scene_is_that_level_for_every_view(prior):
    x_t, t, condition = case(prior, 4)
    one = prior.denoise(x_t, t[:, 0], condition).x0
    torch.testing.assert_close(one, prior.denoise(x_t, t[:, :1].expand(-1, 4), condition).x0)


@torch.no_grad()
def test_every_view_is_told_its_own_level(prior):
    x_t, t, condition = case(prior, 4)
    before = prior.denoise(x_t, t, condition).x0
    for level in (-1, (int(t[0, 2]) + 400) % 1000):
        changed = t.clone()
        changed[0, 2] = level
        after = prior.denoise(x_t, changed, condition).x0
        assert not torch.allclose(after[0, 2], before[0, 2], atol=1e-4)
        assert torch.allclose(after[1], before[1], atol=1e-5), "scenes do not see each other"


@torch.no_grad()
def test_views_are_judged_jointly_or_one_by_one(prior, provides):
    x_t, t, condition = case(prior, 4)
    other = x_t.clone()
    other[0, 3] = -other[0, 3]
    difference = (prior.denoise(other, t, condition).x0 - prior.denoise(x_t, t, condition).x0).abs()
    assert difference[0, 3].max() > 1e-2 and difference[1].max() < 1e-5
    assert (difference[0, 0].max() > 1e-5) == ("multiview" in provides)


@torch.no_grad()
def test_the_order_of_views_does_not_matter(prior):
    x_t, t, condition = case(prior, 4)
    order = torch.tensor([2, 0, 3, 1])
    turned = condition.select(order)
    expected = prior.denoise(x_t, t, condition).x0[:, order]
    torch.testing.assert_close(prior.denoise(x_t[:, order], t[:, order], turned).x0, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_what_it_is_told_counts(prior, provides):
    x_t, t, condition = case(prior, 2)
    told = prior.denoise(x_t, t, condition).x0
    turned = dataclasses.replace(condition, cameras=cameras(SCENES, 2).select(views=torch.tensor([1, 0])))
    others = {
        "no text": condition.without_text(),
        "other text": condition.with_text(prior.condition(["a cat", "a cat"], condition.cameras)),
        "other cameras": turned,
        "other background": prior.condition(
            ["a castle", "a red race car with wings"], condition.cameras, torch.zeros(2, 3)
        ),
    }
    for name, other in others.items():
        counts = name.split()[1].removesuffix("s") in provides
        assert torch.allclose(prior.denoise(x_t, t, other).x0, told, atol=1e-4) != counts, name


@torch.no_grad()
def test_predict_is_one_denoise_per_condition(prior):
    x_t, t, condition = case(prior, 2)
    conditions = {
        "null": condition.without_text(),
        "cond": condition,
        "other": condition.with_text(prior.condition(["a cat", "a dog"], condition.cameras)),
    }
    if conditions["other"].tokens.shape != condition.tokens.shape:
        conditions.pop("other")
    together = prior.predict(x_t, t, conditions)
    assert list(together) == list(conditions)
    for name, one in conditions.items():
        torch.testing.assert_close(together[name].x0, prior.denoise(x_t, t, one).x0, atol=1e-4, rtol=1e-4, msg=name)


@torch.no_grad()
def test_prompts_of_other_lengths_beside_it_change_nothing(prior):
    x_t, t, _ = case(prior, 2)
    alone = prior.condition(["a castle"], cameras(1, 2))
    beside = prior.condition(["a castle", "a very long story of a dog that sits on a hill"], cameras(1, 2).expand(2))
    together = prior.denoise(x_t[:1].expand(2, -1, -1, -1, -1), t[:1].expand(2, -1), beside).x0
    torch.testing.assert_close(together[:1], prior.denoise(x_t[:1], t[:1], alone).x0, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_images_come_back_from_the_priors_space(prior, provides):
    images = torch.rand(1, 2, 3, SIZE, SIZE)
    x = prior.encode(images)
    back = prior.decode(x)
    assert x.shape == prior.noise_shape(1, 2) and back.shape == images.shape and prior.image_size == SIZE
    assert {prior.space} == provides & {"pixel", "latent"}
    if prior.space == "pixel":
        torch.testing.assert_close(back, images, atol=1e-6, rtol=0)


def test_a_frozen_one_answers_the_same_and_learns_nothing(choice):
    prior = make_prior(choice)
    x_t, t, condition = case(prior, 2)
    with torch.no_grad():
        before = prior.train().eval().denoise(x_t, t, condition).x0
    assert all(parameter.requires_grad for parameter in prior.network.parameters())
    assert prior.train().freeze(torch.device("cpu")) is prior and not prior.training
    assert torch.equal(prior.denoise(x_t, t, condition).x0, before)
    assert not any(parameter.requires_grad for parameter in prior.parameters())


def test_gradients_flow_through_encode(prior):
    images = torch.rand(1, 2, 3, SIZE, SIZE, requires_grad=True)
    prior.encode(images).square().sum().backward()
    assert torch.isfinite(images.grad).all() and (images.grad != 0).any()


def test_gradients_flow_through_denoise(prior):
    x_t, t, condition = case(prior, 2)
    x_t.requires_grad_()
    prior.denoise(x_t, t, condition).x0.square().sum().backward()
    assert torch.isfinite(x_t.grad).all() and (x_t.grad != 0).any()


@torch.no_grad()
def test_clean_conditioning_needs_no_text(prior):
    x_t, t, condition = case(prior, 1)
    assert torch.isfinite(prior.denoise(x_t, t, condition.without_text()).x0).all()


def test_a_condition_without_cameras_is_refused_by_who_needs_them(prior, provides):
    x_t, t, condition = case(prior, 1)
    if "camera" not in provides:
        assert torch.isfinite(prior.denoise(x_t, t, dataclasses.replace(condition, cameras=None)).x0).all()
        return
    with pytest.raises(ValueError, match="no cameras"):
        prior.denoise(x_t, t, dataclasses.replace(condition, cameras=None))
