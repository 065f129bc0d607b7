"""A prior whose denoiser is known exactly: data N(prompt, spread²) where there is text, N(null, spread²) elsewhere.

`others` gives other prompts a mean of their own.
"""

import torch

from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.priors.base import Prior


class GaussianPrior(Prior):
    space, image_size = "pixel", 1

    def __init__(self, prompt=1.0, null=0.4, spread=0.3, others=None):
        super().__init__()
        self.schedule = Schedule.cosine(1000, 64)
        self.prompt, self.null, self.spread = prompt, null, spread
        self.told = {name: (mean - null) / (prompt - null) for name, mean in (others or {}).items()}
        self.calls = 0

    def encode(self, images):
        return images

    def decode(self, x):
        return x

    def condition(self, prompts, cameras, background=None):
        tokens = torch.tensor([self.told.get(prompt, 1.0) for prompt in prompts]).view(-1, 1, 1, 1)
        return Condition(tokens=tokens, cameras=cameras, extra={"background": torch.zeros(len(prompts), 3)})

    def denoise(self, x_t, t, condition):
        self.calls += 1
        told = 0.0 if condition.tokens is None else condition.tokens.flatten()[:, None, None, None, None]
        mean = self.null + told * (self.prompt - self.null)
        alpha, sigma = self.schedule.signal(t, x_t)
        gain = alpha * self.spread**2 / (alpha**2 * self.spread**2 + sigma**2)
        return Prediction(mean + gain * (x_t - alpha * mean))


class Unseen:
    """A scene that nobody looks at."""

    def render(self, cameras, pixels=None, sources=None, shading=None):
        raise AssertionError("rendered")
