"""A copy of a prior that learns, as low-rank additions to its layers (LoRA, Hu et al. 2022, equation 3)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Int
from torch import Tensor, nn

from diffusion3d.diffusion.condition import Condition, Prediction
from diffusion3d.errors import UserError
from diffusion3d.priors.base import Prior

MOMENTS = ("exp_avg", "exp_avg_sq")


class LoRA(nn.Module):
    """The learner of variational score distillation: the frozen prior, with adapters at its linear layers and its ungrouped 2D
    convolutions.

    Its loss is that of denoising at uniform levels, min(SNR, snr_cap) |x - x0|² (Hang et al. 2023, equation 8): the paper's, on
    noise, weighs by SNR. Adapters are on while it denoises and never else, so the prior answers as ever.

    Args:
        prior: frozen; its `network` gets the adapters, once.
        rank: of the additions.
        lr: Adam's.
        steps: of Adam in each `learn`.
        snr_cap: of the loss.

    Raises:
        UserError: rank or steps below 1, or a network without such layers.
    """

    def __init__(self, prior: Prior, rank: int = 4, lr: float = 1e-3, steps: int = 1, snr_cap: float = 5.0) -> None:
        from peft import LoraConfig, inject_adapter_in_model
        from peft.tuners.lora import LoraLayer

        super().__init__()
        if rank < 1 or steps < 1:
            raise UserError(f"guidance.learner: rank={rank} and steps={steps} must be at least 1")
        self.lr, self.steps, self.snr_cap = lr, steps, snr_cap
        self._frozen = (prior,)  # in a tuple, so that it is no part of this module
        names = [
            re.escape(name)
            for name, layer in prior.network.named_modules()
            if isinstance(layer, nn.Linear) or (isinstance(layer, nn.Conv2d) and layer.groups == 1)
        ]
        if not names:
            raise UserError("guidance.learner: the prior's network has no linear or convolution layer to adapt")
        config = LoraConfig(r=rank, lora_alpha=rank, target_modules="|".join(names))
        inject_adapter_in_model(config, prior.network)
        self._layers = tuple(layer for layer in prior.network.modules() if isinstance(layer, LoraLayer))
        self.adapters = nn.ModuleList(
            nn.Sequential(*layer.lora_A.values(), *layer.lora_B.values()) for layer in self._layers
        )
        self.adapters.float()
        self._attached = True
        self._attach(False)
        self._adam: torch.optim.Adam | None = None
        for i, parameter in enumerate(self.adapters.parameters()):
            self.register_buffer(f"step_{i}", torch.zeros(()))
            for moment in MOMENTS:
                self.register_buffer(f"{moment}_{i}", torch.zeros_like(parameter))

    @property
    def adam(self) -> torch.optim.Adam:
        """The optimiser; its state is in this module's buffers, and so in its state_dict."""
        if self._adam is None:
            self._adam = torch.optim.Adam(self.adapters.parameters(), lr=self.lr, foreach=False)
            for i, parameter in enumerate(self.adapters.parameters()):
                self._adam.state[parameter] = {key: self.get_buffer(f"{key}_{i}") for key in ("step", *MOMENTS)}
        return self._adam

    def _attach(self, on: bool) -> None:
        if on != self._attached:
            for layer in self._layers:
                layer.enable_adapters(on)
        self._attached = on

    @contextmanager
    def attached(self) -> Iterator[None]:
        """Inside, the prior's layers answer with what their adapters add, which learns."""
        outer = self._attached
        self._attach(True)
        try:
            yield
        finally:
            self._attach(outer)

    def denoise(self, x_t: Tensor, t: Int[Tensor, " B"], condition: Condition) -> Prediction:
        with self.attached():
            return self._frozen[0].denoise(x_t, t, condition)

    def loss(self, x: Tensor, condition: Condition) -> Tensor:
        """Of denoising x at random levels, a scalar."""
        schedule = self._frozen[0].schedule
        t = torch.randint(0, schedule.num_timesteps, x.shape[:1]).to(x.device)
        x_t = schedule.add_noise(x, torch.randn(x.shape).to(x.device), t)
        errors = (self.denoise(x_t, t, condition).x0 - x).square().flatten(1).mean(1)
        return (schedule.snr(t).clamp(max=self.snr_cap) * errors).mean()

    def learn(self, x: Tensor, condition: Condition) -> None:
        for _ in range(self.steps):
            with torch.enable_grad(), self.attached():
                self.loss(x, condition).backward()
            self.adam.step()
            self.adam.zero_grad(set_to_none=True)
