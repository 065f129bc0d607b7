import numpy as np
import pytest
from PIL import Image

import diffusion3d
from choices import CAMERA, PRIOR, SIZE, choices, make_prior
from diffusion3d.priors.weights import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Weights that depend on everything."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    write_weights(path, make_prior().network, {"vocabulary": ["castle"]})
    return path


def sample(directory, weights, *overrides):
    typed = [
        "task=sample",
        "prompt=a castle",
        "logger=none",
        "precision=fp32",
        *PRIOR,
        *CAMERA,
        f"prior.weights={weights}",
    ]
    metrics = diffusion3d.run([*typed, "sampler.steps=3", "task.views=3", f"hydra.run.dir={directory}", *overrides])
    return metrics, {path.name: np.asarray(Image.open(path)) for path in sorted((directory / "samples").glob("*.png"))}


@pytest.mark.parametrize("sampler", choices("sampler"))
def test_samples_and_a_labelled_grid(sampler, weights, tmp_path):
    metrics, pictures = sample(tmp_path, weights, f"sampler={sampler}", "task.count=2")
    assert metrics["samples"] == 2
    assert list(pictures) == ["000.png", "001.png"]
    assert all(picture.shape == (SIZE, 3 * SIZE, 3) and picture.std() > 1 for picture in pictures.values())
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (2 * (SIZE + 16), 3 * SIZE, 3)
    for number, picture in enumerate(pictures.values()):
        top = number * (SIZE + 16)
        assert np.array_equal(grid[top + 16 : top + 16 + SIZE], picture)
        assert (grid[top : top + 16] < 128).any(), "its label"


def test_an_object_is_the_same_whatever_the_count_and_another_for_each_seed(weights, tmp_path):
    _, two = sample(tmp_path / "two", weights, "task.count=2", "seed=5")
    _, one = sample(tmp_path / "one", weights, "task.count=1", "seed=6")
    assert np.array_equal(one["000.png"], two["001.png"])
    assert not np.array_equal(two["000.png"], two["001.png"])


@pytest.mark.parametrize("change", ["sampler=ancestral", "task.scale=1.0", "prompt=a dog"])
def test_what_is_asked_for_counts(change, weights, tmp_path):
    _, plain = sample(tmp_path / "plain", weights, "task.count=1")
    _, other = sample(tmp_path / "other", weights, "task.count=1", change)
    assert not np.array_equal(plain["000.png"], other["000.png"])
