"""Drawing samples from a prior."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from diffusion3d.diffusion.combine import classifier_free, rescale
from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.sampler import Clamp, Sampler
from diffusion3d.priors.base import Prior


def guided(prior: Prior, x_t: Tensor, t: Tensor, condition: Condition, scale: float, share: float) -> Tensor:
    """x0 under classifier-free guidance, rescaled; one pass through the prior where scale = 1."""
    if scale == 1:
        return prior.denoise(x_t, t, condition).x0
    predictions = prior.predict(x_t, t, {"null": condition.without_text(), "cond": condition})
    return rescale(classifier_free(predictions, scale), predictions["cond"].x0, share)


@torch.no_grad()
def draw(
    prior: Prior,
    sampler: Sampler,
    condition: Condition,
    scale: float = 3.0,
    share: float = 0.5,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "B V 3 H W"]:
    """Images in [0, 1] for every scene and camera of a condition; the noise comes from a CPU generator."""
    assert condition.cameras is not None
    scenes, views = condition.cameras.shape
    x = torch.randn(prior.noise_shape(scenes, views), generator=generator).to(condition.cameras.c2w.device)
    ended = sampler.sample(
        lambda x_t, t: Prediction(guided(prior, x_t, t, condition, scale, share)),
        prior.schedule,
        x,
        sampler.timesteps(prior.schedule),
        hooks=[Clamp()] if prior.space == "pixel" else [],
        generator=generator,
    )
    return prior.decode(ended.x0).clamp(0, 1)
