"""The text encoders of pipelines: what is remembered, and words that are learned."""

import pytest
import torch

from diffusion3d.priors.pipelines import Pipeline
from diffusion3d.priors.text_embeddings import TextEmbeddings
from tiny_pipelines import copy, edit, folder

CPU = torch.device("cpu")


def make(cache=None, path=None, kind="sd", **options):
    return TextEmbeddings(Pipeline(path or folder(kind)), cache, precision="fp32", **options)


def tokens(embeddings, *prompts, **options):
    return embeddings.encode(prompts, CPU, **options).tokens


@pytest.mark.parametrize("kind", ["sd", "sdxl", "deepfloyd"])
def test_embeddings_come_back_from_disk_without_an_encoder(kind, tmp_path, monkeypatch):
    first = make(tmp_path, kind=kind).encode(["a castle", "a dog"], CPU)
    assert len(list(tmp_path.iterdir())) == 2
    again = make(tmp_path, kind=kind)
    monkeypatch.setattr(again, "_model", lambda *_: pytest.fail("loaded"))
    found = again.encode(["a dog", "a castle"], CPU)
    assert torch.equal(found.tokens, first.tokens.flip(0)) and found.token_mask.all()
    assert (found.pooled is None) == (kind != "sdxl")
    assert kind != "sdxl" or torch.equal(found.pooled, first.pooled.flip(0))


def test_another_model_or_precision_has_embeddings_of_its_own(tmp_path):
    make(tmp_path / "cache").encode(["a castle"], CPU)
    other = copy("sd", tmp_path / "other")
    edit(other / "text_encoder/config.json", layer_norm_eps=1e-3)
    found = tokens(make(tmp_path / "cache", other), "a castle")
    assert not torch.equal(found, tokens(make(), "a castle"))
    half = TextEmbeddings(Pipeline(folder("sd")), tmp_path / "cache", precision="bf16")
    assert half.encode(["a castle"], CPU).tokens.dtype == torch.float32
    assert len(list((tmp_path / "cache").iterdir())) == 3


def test_a_damaged_file_of_the_cache_is_made_anew_and_an_unwritable_cache_stops_nothing(tmp_path, caplog):
    expected = tokens(make(tmp_path), "a castle")
    (file,) = tmp_path.iterdir()
    file.write_bytes(b"no safetensors")
    assert torch.equal(tokens(make(tmp_path), "a castle"), expected)
    assert file.stat().st_size > 100
    (tmp_path / "file").write_text("")
    assert torch.equal(tokens(make(tmp_path / "file"), "a castle"), expected)
    assert "text embeddings are not kept" in caplog.text


def test_a_prompts_embedding_depends_on_nothing_beside_it():
    alone = tokens(make(), "a castle")
    assert torch.equal(tokens(make(), "a dog on a hill", "a castle")[1:], alone)


def test_learned_words_are_differentiable_and_never_kept(tmp_path):
    embeddings = make(tmp_path)
    word = torch.randn(32, requires_grad=True)
    said = tokens(embeddings, "a <e> castle", learned={"<e>": word})
    assert not torch.allclose(said, tokens(embeddings, "a castle"))
    said.square().sum().backward()
    assert torch.isfinite(word.grad).all() and (word.grad != 0).any()
    changed = tokens(embeddings, "a <e> castle", learned={"<e>": word.detach() + 1})
    assert not torch.allclose(changed, said)
    assert len(list(tmp_path.iterdir())) == 1, "the plain prompt alone"
    embeddings.learned = {"<e>": word}
    assert torch.equal(tokens(embeddings, "a <e> castle"), said)
    assert torch.equal(tokens(embeddings, "a castle"), tokens(make(), "a castle"))


def test_a_learned_word_that_equals_a_known_one_is_that_one():
    embeddings = make()
    table = embeddings.pipeline.load("text_encoder").get_input_embeddings().weight
    letter = embeddings.tokenizer(embeddings.pipeline.kind.text[0]).convert_tokens_to_ids("x</w>")
    said = tokens(embeddings, "a <e> b", learned={"<e>": table[letter]})
    torch.testing.assert_close(said, tokens(embeddings, "a x b"))


def test_memory_is_bounded(monkeypatch):
    embeddings = make()
    monkeypatch.setattr("diffusion3d.priors.text_embeddings.REMEMBERED", 3 * 16 * 32 * 4)
    for n in range(6):
        tokens(embeddings, f"a castle {n}")
    assert len(embeddings._memory) == 3
    assert torch.equal(tokens(embeddings, "a castle 0"), tokens(make(), "a castle 0"))
