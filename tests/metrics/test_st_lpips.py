import pytest
import torch

from diffusion3d.metrics import st_lpips as module
from diffusion3d.metrics.st_lpips import st_lpips


@pytest.fixture(autouse=True)
def installed():
    if module.weights() is None:
        pytest.skip("stlpips-pytorch is not installed")


def picture():
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(1, 3, 9, 9, generator=generator)
    return torch.nn.functional.interpolate(small, 65, mode="bicubic", align_corners=True).clamp(0, 1)


def test_the_same_is_at_distance_nought():
    assert st_lpips(picture(), picture()).abs().max() < 1e-6


def test_what_looks_more_alike_is_nearer():
    """A shift by one pixel changes as much as noise does in PSNR, and little to the eye: what the metric is for."""
    image = picture()
    truth, shifted = image[..., :64], image[..., 1:]
    noise = torch.randn(truth.shape, generator=torch.Generator().manual_seed(1))
    noisy = (truth + noise * (shifted - truth).square().mean().sqrt()).clamp(0, 1)
    blurred = torch.nn.functional.avg_pool2d(truth, 9, 1, 4, count_include_pad=False)
    near, far = st_lpips(shifted, truth), st_lpips(noisy, truth)
    assert 0 < near < 0.7 * far and near < st_lpips(blurred, truth)
    assert torch.allclose(st_lpips(truth, shifted), near, atol=1e-6), "symmetric"


@pytest.mark.parametrize(
    ("height", "width", "distance"), [(64, 64, 0.2057922), (48, 80, 0.2088924), (101, 67, 0.2896884)]
)
def test_the_numbers_are_those_of_the_authors_package(height, width, distance):
    """`LPIPS(net="alex", variant="shift_tolerant")(one, other, normalize=True)` of stlpips-pytorch 0.0.2."""
    y, x = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    one = torch.stack([(9 * x).sin(), (7 * y).cos(), (11 * (x + y)).sin()])
    other = torch.stack([(9 * x + 1).sin(), (8 * y).cos(), (11 * (x - y)).sin()])
    found = st_lpips(0.5 + 0.5 * one[None], 0.5 + 0.5 * other[None])
    assert found.item() == pytest.approx(distance, rel=1e-4)


def test_replaced_weights_are_refused(tmp_path, monkeypatch):
    import types

    (tmp_path / module.FILE).parent.mkdir(parents=True)
    (tmp_path / module.FILE).write_bytes(b"else")
    spec = types.SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: spec)
    module.weights.cache_clear()
    with pytest.raises(ValueError, match=r"is not that of stlpips-pytorch 0\.0\.2"):
        module.weights()
    module.weights.cache_clear()
