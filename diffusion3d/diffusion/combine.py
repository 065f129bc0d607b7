"""Combining predictions of one prior under several conditions: pure functions on {name: Prediction}.

They act on x0. Guidance formulas are linear in the noise estimate, and x0 = (x_t - sigma eps) / alpha is affine in it with the
same x_t for all, so combinations whose weights sum to one are the same in either.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from diffusion3d.diffusion.condition import Prediction


def classifier_free(predictions: Mapping[str, Prediction], scale: float) -> Tensor:
    """null + scale (cond - null) (Ho & Salimans 2022, with diffusers' meaning of the scale: 1 is no guidance)."""
    null, cond = predictions["null"].x0, predictions["cond"].x0
    return null + scale * (cond - null)


def rescale(guided: Tensor, conditional: Tensor, share: float) -> Tensor:
    """Pull the spread of a guided x0 back towards that of the conditional one (Lin et al. 2024, eq. 15–16).

    The spread is taken per scene, over all its views; `share` 0 changes nothing, 1 matches it fully.
    """
    dims = tuple(range(1, guided.ndim))
    factor = conditional.std(dims, keepdim=True) / guided.std(dims, keepdim=True).clamp(min=1e-6)
    return guided * (share * factor + 1 - share)


def composed(
    predictions: Mapping[str, Prediction], weights: Mapping[str, float | Tensor], perpendicular: bool = False
) -> Tensor:
    """cond + sum(w_i (cond_i - null)): several prompts at once (Liu et al. 2022, algorithm 1).

    Args:
        predictions: "cond", "null" and those that `weights` names.
        weights: {name: w_i}, a number or one for every view [B,V]; a negative one pushes away.
        perpendicular: of each cond_i - null only what is perpendicular to cond - null, scene by scene (view by view if so are
            the weights), so that a negative prompt takes nothing away from the prompt itself (Perp-Neg, Armandpour et al.
            2023).
    """
    cond, null = predictions["cond"].x0, predictions["null"].x0
    total = cond
    for name, weight in weights.items():
        delta, leading = predictions[name].x0 - null, 1
        if isinstance(weight, Tensor):
            leading = weight.ndim
            weight = weight.reshape(weight.shape + (1,) * (delta.ndim - leading))
        total = total + weight * (across(delta, cond - null, leading) if perpendicular else delta)
    return total


def across(delta: Tensor, main: Tensor, leading: int = 1) -> Tensor:
    """The part of `delta` that is perpendicular to `main`, all of it where `main` is 0; what comes after the `leading`
    dimensions is a vector.
    """
    dims = tuple(range(leading, delta.ndim))
    along = (delta * main).sum(dims, keepdim=True) / main.square().sum(dims, keepdim=True).clamp(min=1e-12)
    return delta - along * main
