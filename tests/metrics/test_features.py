"""Set distances against what they are by hand."""

import pytest
import torch

from diffusion3d.metrics.features import kid, mean_pairwise_distance


def test_kid_of_tiny_sets_by_hand():
    x, y = torch.tensor([[1.0], [2.0]]), torch.tensor([[0.0], [1.0]])
    # k(x1,x2) = 3³, k(y1,y2) = 1; across: 1, 2³, 1, 3³
    assert kid(x, y) == pytest.approx(27 + 1 - 2 * (1 + 8 + 1 + 27) / 4)


def test_kid_is_unbiased_for_one_distribution():
    torch.manual_seed(0)
    values = torch.tensor([kid(torch.randn(40, 8), torch.randn(50, 8)) for _ in range(300)])
    assert abs(values.mean()) < 4 * values.std() / 300**0.5
    assert values.min() < 0 < values.max()


def test_kid_of_shifted_gaussians_is_the_analytic_value():
    # With s = x·y/D, E[(s+1)³] = 1 + 3 E[s] + 3 E[s²] + E[s³]. For independent x ~ N(a, I), y ~ N(b, I), both Gaussian:
    # E[s] = ab/D, E[s²] = (D + |a|² + |b|² + (ab)²)/D², E[s³] = (ab³ + 3ab (D + 2 + |a|² + |b|²))/D³.
    torch.manual_seed(0)
    size, shift = 4, 1.0
    a = torch.full((size,), shift)

    def expected(u, v):
        uv, squares = float(u @ v), float(u @ u + v @ v)
        third = (uv**3 + 3 * uv * (size + 2 + squares)) / size**3
        return 1 + 3 * uv / size + 3 * (size + squares + uv**2) / size**2 + third

    zero = torch.zeros(size)
    analytic = expected(a, a) + expected(zero, zero) - 2 * expected(a, zero)
    assert kid(torch.randn(6000, size) + shift, torch.randn(6000, size)) == pytest.approx(analytic, rel=0.05)


def test_kid_needs_two_rows():
    with pytest.raises(ValueError, match="at least two rows"):
        kid(torch.zeros(1, 2), torch.zeros(5, 2))


def test_mean_pairwise_distance_of_a_right_triangle():
    assert mean_pairwise_distance(torch.tensor([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])) == pytest.approx(4)
    assert mean_pairwise_distance(torch.ones(5, 3)) == 0
    with pytest.raises(ValueError, match="at least two rows"):
        mean_pairwise_distance(torch.zeros(1, 2))
