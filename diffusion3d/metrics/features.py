"""Distances between sets of features, one row per picture."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def polynomial_kernel(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> Float[Tensor, "N M"]:
    """(x·y / D + 1)³ (Bińkowski et al. 2018, section 4)."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def kid(x: Float[Tensor, "N D"], y: Float[Tensor, "M D"]) -> float:
    """Kernel inception distance: the unbiased squared MMD (Bińkowski et al. 2018, eq. 4) under the polynomial kernel.

    Its expectation is 0 for samples of one distribution, so single values may be negative. Computed in float64.

    Raises:
        ValueError: fewer than two rows in a set.
    """
    n, m = len(x), len(y)
    if min(n, m) < 2:
        raise ValueError(f"kid needs at least two rows in each set, got {n} and {m}")
    x, y = x.double(), y.double()
    xx, yy = polynomial_kernel(x, x), polynomial_kernel(y, y)
    within = (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1))
    return float(within - 2 * polynomial_kernel(x, y).mean())


def mean_pairwise_distance(x: Float[Tensor, "N D"]) -> float:
    """Mean Euclidean distance over all pairs of different rows: how diverse a set is.

    Raises:
        ValueError: fewer than two rows.
    """
    if len(x) < 2:
        raise ValueError(f"mean_pairwise_distance needs at least two rows, got {len(x)}")
    return float(torch.pdist(x.double()).mean())
