import torch

from diffusion3d.diffusion.combine import classifier_free, composed, rescale
from diffusion3d.diffusion.condition import Prediction


def test_scale_one_is_the_conditional_and_zero_the_null():
    null, cond = torch.randn(2, 3), torch.randn(2, 3)
    both = {"null": Prediction(null), "cond": Prediction(cond)}
    assert torch.equal(classifier_free(both, 0.0), null)
    assert torch.allclose(classifier_free(both, 1.0), cond)
    assert torch.allclose(classifier_free(both, 3.0), null + 3 * (cond - null))


def test_rescale_matches_the_spread_of_each_scene():
    cond = torch.randn(2, 4, 50) * torch.tensor([1.0, 3.0]).view(2, 1, 1)
    guided = 5 * cond + 1
    full = rescale(guided, cond, 1.0)
    assert torch.allclose(full.std((1, 2)), cond.std((1, 2)), rtol=1e-4)
    assert torch.equal(rescale(guided, cond, 0.0), guided)


def test_perpendicular_prompts_take_nothing_from_the_prompt():
    null, cond, other = (Prediction(torch.randn(2, 1, 3, 4, 4)) for _ in range(3))
    named = {"null": null, "cond": cond, "other": other}
    main = (cond.x0 - null.x0).flatten(1)
    added = (composed(named, {"other": -2.0}, perpendicular=True) - cond.x0).flatten(1)
    assert (added * main).sum(1).abs().max() < 1e-3
    whole = (composed(named, {"other": -2.0}) - cond.x0).flatten(1)
    along = (whole * main).sum(1, keepdim=True) / main.square().sum(1, keepdim=True) * main
    assert torch.allclose(added, whole - along, atol=1e-4)
    same = composed({**named, "other": cond}, {"other": 3.0}, perpendicular=True)
    assert torch.allclose(same, cond.x0, atol=1e-4)
