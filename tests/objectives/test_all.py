"""What every objective of the config group keeps."""

import numpy as np
import pytest
import torch
from hydra.errors import InstantiationException

from choices import SIZE, choices, chosen, composed, make_prior, small
from diffusion3d.data.base import PosedData
from diffusion3d.errors import UserError
from diffusion3d.objectives.base import Objective
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.tasks.build import build
from discs import data_of
from tiny_pipelines import folder, pipeline

PRIORS = {"denoising": "ddpm"}
"""The prior that an objective is tested with, where it is not Stable Diffusion."""
STEPS = {"text_distillation": 15}
BETTER = {"validation/psnr", "validation/psnr_object", "validation/cosine"}
"""Figures that grow while it learns; the others fall."""
UNRELATED = {"validation/latent_std", "validation/cosine_words"}
SCENES = np.arange(4)
VIEWS = np.tile(np.arange(2), (4, 1))


@pytest.fixture(params=choices("objective"))
def choice(request):
    return request.param


def made(choice, tmp_path):
    prior = make_prior(PRIORS.get(choice, "stable_diffusion"))
    settings = {"cache": str(tmp_path / "latents")} if choice == "latent_denoising" else {}
    return prior, build(
        chosen("objective", choice, f"prior={PRIORS.get(choice, 'stable_diffusion')}"), prior=prior, **settings
    )


def batch_of(objective):
    data = objective.prepare(data_of())
    assert isinstance(data, PosedData) and len(data) == 4
    return data.batch(SCENES, VIEWS, np.random.default_rng(0))


def test_the_loss_falls_and_nothing_else_learns(choice, tmp_path):
    _, objective = made(choice, tmp_path)
    assert isinstance(objective, Objective)
    learner, batch = objective.trained().train(), batch_of(objective)
    mine = {id(parameter) for parameter in learner.parameters()}
    others = {name: p.detach().clone() for name, p in objective.named_parameters() if id(p) not in mine}
    optimizer = torch.optim.Adam(learner.parameters(), lr=3e-3)
    before = objective.validate([batch])
    for _ in range(STEPS.get(choice, 40)):
        loss = sum(objective.loss(batch).values())
        assert loss.shape == () and torch.isfinite(loss)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    after = objective.validate([batch])
    for name in before.keys() - UNRELATED:
        assert (after[name] - before[name] > 0) == (name in BETTER), name
    assert all(p.grad is not None for name, p in learner.named_parameters() if name != "clean")
    found = dict(objective.named_parameters())
    assert others and all(found[name].grad is None and torch.equal(found[name], p) for name, p in others.items())


def test_validation_and_previews_are_the_same_at_every_call_and_leave_the_generator_alone(choice, tmp_path):
    _, objective = made(choice, tmp_path)
    batch = batch_of(objective)
    state = torch.get_rng_state()
    first, seen = objective.validate([batch]), objective.preview(["a castle"], [batch])
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    assert objective.validate([batch]) == first
    for label, row in objective.preview(["a castle"], [batch]).items():
        assert torch.equal(row, seen[label])
        assert row.shape[1:] == (3, SIZE, SIZE) and row.min() >= 0 and row.max() <= 1


@pytest.mark.parametrize(
    ("objective", "prior", "need"),
    [
        ("autoencoder", "ddpm", "latent"),
        ("autoencoder", "deepfloyd", "latent"),
        ("latent_denoising", "ddpm", "latent"),
        ("text_distillation", "ddpm", "text_encoder"),
        ("text_distillation", "deepfloyd", "text_encoder"),
        ("denoising", "stable_diffusion", "pixel"),
    ],
)
def test_priors_that_lack_what_learns_are_refused(objective, prior, need):
    with pytest.raises(
        UserError, match=f"objective={objective} needs '{need}', which .*prior={prior}.*; these provide it: prior="
    ):
        composed("task=train", f"objective={objective}", f"prior={prior}", *small("prior", prior))


def test_which_of_several_text_encoders_should_learn_is_not_guessed():
    prior = make_prior("sdxl")
    with pytest.raises(
        InstantiationException, match=f"prior.model={folder('sdxl')} has 2; take a Stable Diffusion 1.x or 2.x"
    ):
        build(chosen("objective", "text_distillation", "prior=stable_diffusion"), prior=prior)


def test_captions_are_worded_as_the_prior_words_them(tmp_path):
    """Half of them, as `condition` has them; the others as they are."""
    prior, objective = made("latent_denoising", tmp_path)
    batch = batch_of(objective)
    white = torch.ones(4, 3)
    for worded, expected in ((1.0, prior.condition), (0.0, prior.plain_text)):
        objective.worded = worded
        told, wanted = objective.told(batch, white).tokens, expected(batch.captions, batch.cameras).tokens
        torch.testing.assert_close(told.expand_as(wanted), wanted)
    objective.worded = 0.5
    state = torch.get_rng_state()
    mixed = objective.told(batch, white).tokens
    torch.set_rng_state(state)
    some = torch.rand(4) < 0.5
    plain, said = (f(batch.captions, batch.cameras).tokens for f in (prior.plain_text, prior.condition))
    torch.testing.assert_close(mixed[some], said[some].expand_as(mixed[some]))
    torch.testing.assert_close(mixed[~some], plain[~some].expand_as(mixed[~some]))


def test_random_phrases_never_say_a_held_out_word(tmp_path):
    _, objective = made("text_distillation", tmp_path)
    torch.manual_seed(0)
    said = objective.sentences(["CAPTION"] * 300)
    assert len(said) == 900 and sum("CAPTION" in text for text in said) == 300
    assert 100 < sum(text.startswith("CAPTION, ") for text in said) < 200
    words = {word for text in said if "CAPTION" not in text for word in text.split()}
    assert len(words) > 500 and not words & (set(objective.held_out) - {"the", "with"})


def test_an_export_holds_the_text_encoder_that_learned_and_no_other(tmp_path):
    path = tmp_path / "half"
    pipeline("sd").to(torch.float16).save_pretrained(path, variant="fp16")
    prior = StableDiffusion(str(path))
    build(chosen("objective", "text_distillation", "prior=stable_diffusion"), prior=prior).export(tmp_path / "new", {})
    assert [file.name for file in (tmp_path / "new" / "text_encoder").glob("*.safetensors")] == ["model.safetensors"]


def test_crops_lie_inside_the_images_and_reach_all_of_them():
    from diffusion3d.objectives.autoencoder import _crop

    places = torch.rand(64, 2, 2)
    rows, columns = torch.meshgrid(torch.arange(9.0), torch.arange(13.0), indexing="ij")
    images = torch.stack([rows, columns, rows + columns]).expand(64, 2, 3, 9, 13)
    found = _crop(images, places, 4)
    assert found.shape == (64, 2, 3, 4, 4)
    torch.testing.assert_close(found - found[..., :1, :1], (images - images[..., :1, :1])[..., :4, :4])
    for channel, size in enumerate((9, 13)):
        assert set(found[:, :, channel, 0, 0].flatten().tolist()) == set(range(size - 4 + 1))


@pytest.mark.parametrize(
    ("crop", "why"), [(7, "positive multiple of 2"), (0, "positive multiple of 2"), (64, "null takes them")]
)
def test_crops_that_do_not_fit_are_refused(crop, why):
    prior = make_prior("stable_diffusion")
    with pytest.raises((UserError, InstantiationException), match=rf"objective.crop={crop} .*{why}"):
        build(chosen("objective", "autoencoder", "prior=stable_diffusion"), prior=prior, crop=crop).loss(
            data_of().batch(SCENES, VIEWS, np.random.default_rng(0))
        )
