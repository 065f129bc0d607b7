"""Data that are encoded once."""

import numpy as np
import pytest
import torch

from diffusion3d.data.base import PosedData
from diffusion3d.data.encoded import Encoded
from discs import SIZE, data_of

SCENES, VIEWS = np.array([2, 0]), np.array([[1], [0]])


@pytest.fixture
def encoder():
    """Averages over 4 x 4 pixels, and counts."""

    def encode(images):
        encode.calls += 1
        return torch.nn.functional.avg_pool2d(images.flatten(0, 1), 4).unflatten(0, images.shape[:2])

    encode.calls = 0
    return encode


def test_batches_carry_latents_of_views_before_white(encoder):
    data = data_of()
    encoded = Encoded(data, encoder, SIZE, "k")
    assert isinstance(encoded, PosedData) and encoder.calls == len(encoded) == 4
    assert (encoded.views, encoded.vocabulary) == (data.views, data.vocabulary)
    batch = encoded.batch(SCENES, VIEWS, np.random.default_rng(0))
    plain = data.batch(SCENES, VIEWS, np.random.default_rng(0))
    expected = encoder(plain.over(torch.ones(2, 3)))
    torch.testing.assert_close(batch.latents, expected, atol=1e-3, rtol=1e-3)
    assert batch.images is None and batch.captions == plain.captions
    assert torch.equal(batch.cameras.c2w, plain.cameras.c2w)
    assert torch.equal(batch.resize(8).latents, batch.latents) and torch.equal(batch.to("cpu").latents, batch.latents)


def test_pictures_are_scaled_to_what_the_encoder_takes(encoder):
    batch = Encoded(data_of(), encoder, SIZE // 2, "k").batch(SCENES, VIEWS, np.random.default_rng(0))
    assert batch.latents.shape == (2, 1, 3, SIZE // 8, SIZE // 8) and batch.cameras.height == SIZE // 2


def test_latents_are_found_again(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr("diffusion3d.data.encoded.CHUNK", 2)
    first = Encoded(data_of(), encoder, SIZE, "k", tmp_path)
    assert encoder.calls == 2, "two scenes look like the two before"
    assert torch.equal(Encoded(data_of(), encoder, SIZE, "k", tmp_path).latents, first.latents) and encoder.calls == 2
    Encoded(data_of(), encoder, SIZE, "other", tmp_path)
    assert encoder.calls == 4, "another encoder"
    Encoded(data_of(views=3), encoder, SIZE, "k", tmp_path)
    assert encoder.calls == 6, "other pictures"


def test_a_damaged_file_is_made_again(encoder, tmp_path):
    first = Encoded(data_of(), encoder, SIZE, "k", tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:50])
    assert torch.equal(Encoded(data_of(), encoder, SIZE, "k", tmp_path).latents, first.latents) and encoder.calls == 8
    assert torch.equal(Encoded(data_of(), encoder, SIZE, "k", tmp_path).latents, first.latents) and encoder.calls == 8
