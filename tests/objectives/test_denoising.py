import pytest
import torch

from choices import SIZE, chosen, make_prior
from diffusion3d.diffusion.condition import Prediction
from diffusion3d.tasks.build import build
from discs import views_of


def objective_of(prior, **settings):
    return build(chosen("objective", "denoising"), prior=prior, **settings)


@pytest.fixture
def prior():
    return make_prior().train()


def test_levels_that_validation_looks_at(prior):
    first = objective_of(prior).validate([views_of()])
    assert set(first) == {f"validation/x0_error_t{level}" for level in (100, 300, 500, 700, 900)}


def test_validation_before_training_is_the_mean_square_of_the_data():
    """An untrained network answers 0."""
    torch.manual_seed(0)
    objective, held = objective_of(build(chosen("prior", "ddpm"))), views_of()
    x0 = held.over(torch.ones(4, 3)) * 2 - 1
    for value in objective.validate([held]).values():
        assert value == pytest.approx(x0.square().mean().item(), rel=1e-5)


def test_clean_views_carry_no_loss_and_the_others_their_weight(prior, monkeypatch):
    """A denoiser that errs by 1 on noisy views and by 100 on clean ones: the loss is the mean weight of the noisy ones."""
    cap = 20.0
    objective, batch = objective_of(prior, weight_cap=cap, scales=[]), views_of()
    t = torch.tensor([[-1, 500], [800, 800], [30, -1], [999, 999]])
    monkeypatch.setattr(objective, "draw_levels", lambda scenes, views: t)
    clean = []

    def denoise(x_t, levels, condition):
        x0 = clean[-1]
        return Prediction(x0 + torch.where(levels < 0, 100.0, 1.0)[..., None, None, None])

    encode = prior.encode
    monkeypatch.setattr(prior, "encode", lambda images: clean.append(encode(images)) or clean[-1])
    monkeypatch.setattr(prior, "denoise", denoise)
    level = prior.schedule.alphas_cumprod[t[t >= 0]]
    expected = (level / (1 - level) + 1).clamp(max=cap)
    assert (expected == cap).any() and (expected < cap).any()
    assert objective.loss(batch)["denoising"].item() == pytest.approx(expected.mean().item(), rel=1e-4)


def test_errors_of_averages_count_once_for_every_scale(prior, monkeypatch):
    """An even error counts at all scales; one that alternates between pixels at that of the pixels alone."""
    objective, batch = objective_of(prior, scales=[{"side": 2, "weight": 3.0}, {"side": 64, "weight": 5.0}]), views_of()
    stripes = torch.tensor([1.0, -1.0]).repeat(SIZE // 2)
    errors = []
    for error in (torch.ones(SIZE), stripes):
        monkeypatch.setattr(
            objective, "difference", lambda batch, *_, e=error: e.expand(*batch.cameras.shape, 3, SIZE, SIZE)
        )
        torch.manual_seed(0)
        errors.append(objective.loss(batch)["denoising"].item())
    assert errors[0] == pytest.approx((1 + 3 + 5) * errors[1], rel=1e-5)


def test_levels_are_logit_normal_and_shared_by_the_views(prior):
    objective = objective_of(prior, level_mean=0.5, level_std=0.8, clean_view=0.25)
    torch.manual_seed(0)
    t = objective.draw_levels(20_000, 3)
    clean = t < 0
    assert clean.any(1).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert clean.sum(1).max() == 1
    assert (clean.float().mean(0) - 0.25 / 3).abs().max() < 0.01, "any view may be the clean one"
    level = t.max(1).values
    assert ((t == level[:, None]) | clean).all()
    logit = torch.logit((level + 0.5) / 1000)
    assert logit.median().item() == pytest.approx(0.5, abs=0.03)
    assert (logit.quantile(0.84) - logit.quantile(0.16)).item() == pytest.approx(2 * 0.8 * 0.994, rel=0.03)
    assert (objective.draw_levels(1000, 1) >= 0).all(), "a single view is never clean"


def test_dropped_text_is_the_null_condition_of_guidance(prior):
    objective, batch = objective_of(prior), views_of(2)
    condition = prior.condition(batch.captions, batch.cameras)
    dropped = objective.drop_text(condition, torch.tensor([True, False]))
    x_t, t = torch.randn(2, 2, 3, SIZE, SIZE), torch.tensor([500, 500])
    with torch.no_grad():
        mixed = prior.denoise(x_t, t, dropped).x0
        null, told = prior.denoise(x_t, t, condition.without_text()).x0, prior.denoise(x_t, t, condition).x0
    torch.testing.assert_close(mixed[0], null[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(mixed[1], told[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(null[1], told[1], atol=1e-3)


def test_noise_on_the_text_is_as_large_as_asked_and_differs_between_scenes(prior):
    objective = objective_of(prior, text_noise=0.8)
    told = prior.condition(["a red castle"] * 64, views_of(2).cameras.select(scenes=torch.zeros(64, dtype=torch.long)))
    blurred = objective.blur_text(told)
    assert torch.equal(blurred.token_mask, told.token_mask)
    for name in ("tokens", "pooled"):
        clean, noisy = getattr(told, name), getattr(blurred, name)
        share = (noisy - clean).norm(dim=-1).flatten(1).mean(1) / clean.norm(dim=-1).flatten(1).mean(1)
        assert 0 < share.min() < 0.1, "some scenes keep theirs"
        assert 0.7 < share.max() < 0.9
        assert share.mean().item() == pytest.approx(0.4, abs=0.1)
    noise = (blurred.pooled - told.pooled)[:, 0]
    assert (torch.corrcoef(noise) - torch.eye(64)).abs().max() < 0.3, "scenes draw on their own"


def test_the_background_is_told_and_seen(prior, monkeypatch):
    objective, batch = objective_of(prior), views_of(2)
    colour = torch.tensor([[0.2, 0.4, 0.6], [1.0, 0.0, 0.0]])
    seen = {}

    def denoise(x_t, t, condition):
        seen["told"] = condition.extra["background"]
        return Prediction(x_t)

    monkeypatch.setattr(prior, "denoise", denoise)
    clean = torch.full((2, 2), -1)
    error = objective.difference(batch, colour, clean, objective.told(batch, colour), torch.zeros(2, 2, 3, SIZE, SIZE))
    assert (error == 0).all(), "the target is what a clean view holds"
    assert torch.equal(seen["told"], colour)
    corner = prior.encode(batch.over(colour))[:, 0, :, 0, 0]
    torch.testing.assert_close(corner, colour * 2 - 1)


def test_previews_are_four_views_of_every_prompt(prior):
    objective = objective_of(prior.eval())
    assert objective.preview([], []) == {}
    first = objective.preview(["a castle", "a dog"], [])
    assert list(first) == ["a castle", "a dog"]
    assert all(row.shape == (4, 3, SIZE, SIZE) for row in first.values())
    assert not torch.allclose(first["a castle"], first["a dog"], atol=1e-3)
