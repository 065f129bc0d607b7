"""The scripts of the small Stable Diffusion: its skeleton, its tokenizer, its table."""

import json
from pathlib import Path

import pytest
import torch

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "latent_prior"
TEXTS = ["a castle on a hill", "a red race car", "a small dog, toy style"] * 3 + ["fortress", "château"]


@pytest.fixture(scope="module")
def small(study):
    module = study("skeleton")
    return module.Sizes(vae=(16, 16, 16, 16), unet=(16, 32), text=32, length=16, vocabulary=560, image=64, groups=8)


@pytest.fixture(scope="module")
def folder(study, small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("skeleton")
    study("skeleton").write(folder, small, 0, TEXTS)
    return folder


def test_the_tokenizer_survives_a_round_trip(folder, small):
    from transformers import CLIPTokenizer

    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert 514 < len(words) <= small.vocabulary and words.model_max_length == small.length
    for text in ("a castle on a hill", "a red race car", "fortress 42!", "château 日本 🙂"):
        ids = words(text).input_ids
        assert (ids[0], ids[-1]) == (words.bos_token_id, words.eos_token_id) == (len(words) - 2, len(words) - 1)
        assert words.unk_token_id not in ids[1:-1], "every byte has a token"
        assert words.decode(ids, skip_special_tokens=True).replace(" ", "") == text.replace(" ", "")
    assert words("A  Castle").input_ids == words("a castle").input_ids
    assert words.convert_ids_to_tokens(words("castle").input_ids[1:-1]) == ["castle</w>"]
    padded = words("a car", padding="max_length", max_length=small.length).input_ids
    assert len(padded) == small.length and padded[-1] == words.eos_token_id


def test_vocabulary_and_merges_are_what_earlier_versions_read(folder):
    from transformers import CLIPTokenizer

    vocabulary = json.loads((folder / "tokenizer" / "vocab.json").read_text(encoding="utf-8"))
    lines = (folder / "tokenizer" / "merges.txt").read_text(encoding="utf-8").splitlines()[1:]
    assert sorted(vocabulary.values()) == list(range(len(vocabulary)))
    assert len(lines) == len(vocabulary) - 2 - 512
    again = CLIPTokenizer(vocab=vocabulary, merges=[tuple(line.split(" ")) for line in lines])
    words = CLIPTokenizer.from_pretrained(folder / "tokenizer")
    assert again("a toy fortress").input_ids == words("a toy fortress").input_ids


def test_the_skeleton_draws_and_is_a_prior(folder, small):
    from diffusers import StableDiffusionPipeline

    from diffusion3d.priors.stable_diffusion import StableDiffusion

    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    pipeline.set_progress_bar_config(disable=True)
    assert pipeline.safety_checker is None and pipeline.dtype == torch.float32
    assert pipeline("a car", num_inference_steps=2, output_type="pt").images.shape == (1, 3, small.image, small.image)
    prior = StableDiffusion(str(folder))
    assert (prior.image_size, prior.side, prior.prediction) == (small.image, small.image // 8, "v_prediction")


def test_the_seed_decides(folder, study, small, tmp_path):
    for seed in (0, 1):
        study("skeleton").write(tmp_path / str(seed), small, seed, TEXTS)
    for path in folder.rglob("*.*"):
        content = path.read_bytes()
        assert (tmp_path / "0" / path.relative_to(folder)).read_bytes() == content
        other = (tmp_path / "1" / path.relative_to(folder)).read_bytes() == content
        assert other == (path.suffix != ".safetensors"), path


def test_tables_are_made_of_results(study):
    module = study("evaluate")
    from common import TWELVE

    figures = {"subject": 0.9, "colour": 0.8, "pictures": 20}
    result = {
        "subjects": {name: {"samples": figures, "ceiling": figures} for name in TWELVE},
        "sides": {"front view": 0.5, "back view": 0.25},
        "decoded": {"psnr": 31.0, "psnr_object": 25.5, "views": 800},
        "megabytes": 14.5,
        "command": "x",
    }
    lines = module.table(result).splitlines()
    assert "| **mean** | | 90.0% | 90.0% | 80.0% | 80.0% |" in lines
    assert 'Right side, of asymmetric subjects: 50.0% of those asked for as "…, front view", 25.0%' in module.table(
        result
    )


def test_pictures_are_of_these_weights_and_repeatable(study, folder, tmp_path):
    module = study("evaluate")
    assert module.identity(folder) == module.identity(folder) != module.identity(tmp_path)
    pipeline = module.loaded(folder)
    module.STEPS, before = 2, module.STEPS
    try:
        first = module.drawn(pipeline, "a car", 3, seed=1)
        assert first.shape == (3, 3, 64, 64) and first.min() >= 0 and first.max() <= 1
        assert torch.equal(module.drawn(pipeline, "a car", 3, seed=1), first)
        assert not torch.equal(first[0], first[1])
    finally:
        module.STEPS = before


@pytest.mark.parametrize("name", ["latent_autoencoder", "latent_text", "latent_denoising"])
def test_experiments_compose(name, folder):
    from choices import composed

    assert composed(f"experiment={name}", f"prior.model={folder}").task._target_.endswith("Train")
