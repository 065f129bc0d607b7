"""The kernel against its twin, the twin against interpolation by hand."""

import pytest
import torch

from diffusion3d.rendering.hash_grid import HashLevels, hash_grid, hash_grid_torch
from diffusion3d.rendering.libraries import ISAS, VARIABLE, library

LEVELS = HashLevels.geometric(6, 4, 64, 10)


def inputs(features=2, count=1003, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    points = torch.rand(count, 3, generator=generator, dtype=dtype)
    points[:3] = torch.tensor([[0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.5]], dtype=dtype)
    table = torch.randn(sum(LEVELS.entries), features, generator=generator, dtype=dtype)
    return points.requires_grad_(), table.requires_grad_()


def test_levels_grow_by_a_constant_factor_and_are_dense_while_they_fit():
    assert LEVELS.resolutions == (4, 6, 12, 21, 36, 64)  # 4 * 16 ** (level / 5), rounded down
    assert LEVELS.entries == (125, 343, 1024, 1024, 1024, 1024)
    with pytest.raises(ValueError, match="power of two of entries, not 1000"):
        HashLevels((20,), (1000,))


@pytest.mark.parametrize("isa", [*ISAS, "torch"])
@pytest.mark.parametrize("features", [1, 2, 4, 8])
def test_values_and_gradients_are_those_of_the_twin_in_float64(isa, features, monkeypatch):
    monkeypatch.setenv(VARIABLE, isa)
    try:
        library()
    except ValueError as error:
        pytest.skip(str(error))
    results = []
    for function, dtype in ((hash_grid, torch.float32), (hash_grid_torch, torch.float64)):
        points, table = inputs(features)
        points, table = points.detach().to(dtype).requires_grad_(), table.detach().to(dtype).requires_grad_()
        out = function(points, table, LEVELS)
        weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(1)).to(dtype)
        results.append((out, *torch.autograd.grad((out * weights).sum(), (points, table))))
    for mine, truth in zip(*results, strict=True):
        inner = slice(3, None) if mine.shape == (1003, 3) else slice(None)  # on the border a slope has two sides
        assert (mine.double()[inner] - truth[inner]).norm() <= 2e-6 * truth[inner].norm()


def test_a_number_of_features_that_the_kernel_lacks_is_served_by_torch():
    points, table = inputs(3)
    torch.testing.assert_close(hash_grid(points, table, LEVELS), hash_grid_torch(points, table, LEVELS))


def test_threads_change_no_bit():
    before, results = torch.get_num_threads(), []
    for threads in (1, 2):
        torch.set_num_threads(threads)
        points, table = inputs(count=30_000)
        out = hash_grid(points, table, LEVELS)
        results.append((out, *torch.autograd.grad(out.square().sum(), (points, table))))
    torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_a_dense_level_interpolates_a_linear_function_exactly():
    side = torch.arange(5).double() / 4
    z, y, x = torch.meshgrid(side, side, side, indexing="ij")
    table = (2 * x - 3 * y + 0.5 * z + 1).reshape(-1, 1).float()
    points = torch.rand(200, 3, generator=torch.Generator().manual_seed(3))
    expected = points @ torch.tensor([2.0, -3.0, 0.5]) + 1
    for function in (hash_grid, hash_grid_torch):
        torch.testing.assert_close(function(points, table, HashLevels((4,), (125,)))[:, 0], expected)


def test_hashed_corners_are_those_of_the_paper():
    """One point at a grid vertex reads the entry (x ^ 2654435761 y ^ 805459861 z) mod T (Müller et al. 2022, equation 4)."""
    levels = HashLevels((100,), (512,))
    table = torch.arange(512.0)[:, None]
    x, y, z = 17, 58, 93
    expected = (x ^ (y * 2654435761 & 0xFFFFFFFF) ^ (z * 805459861 & 0xFFFFFFFF)) % 512
    at = torch.tensor([[x, y, z]]) / 100 + 1e-7
    for function in (hash_grid, hash_grid_torch):
        assert function(at, table, levels).item() == pytest.approx(expected, abs=0.02)


def test_points_outside_are_clamped():
    _, table = inputs()
    outside = torch.tensor([[-3.0, 0.5, 2.0]])
    torch.testing.assert_close(hash_grid(outside, table, LEVELS), hash_grid(outside.clamp(0, 1), table, LEVELS))


def test_no_points_give_no_features():
    _, table = inputs()
    out = hash_grid(torch.zeros(0, 3), table, LEVELS)
    out.sum().backward()
    assert out.shape == (0, 12) and (table.grad == 0).all()
