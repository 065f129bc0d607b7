"""Noise schedules: x_t = sqrt(alphas_cumprod[t]) x_0 + sqrt(1 - alphas_cumprod[t]) eps (DDPM, Ho et al. 2020, eq. 4)."""

from __future__ import annotations

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor


class Schedule:
    """A variance-preserving noise schedule over T discrete levels, in float32.

    A level t is an integer tensor in 0…T-1 that grows with noise, as in diffusers. t = -1 means clean: its signal level is
    exactly 1, so the item is returned unchanged, and it is never divided by. t has the leading dimensions of x and is
    broadcast over the rest. The last level may hold no signal at all (zero terminal SNR, Lin et al. 2024, algorithm 1).
    """

    def __init__(self, alphas_cumprod: Float[Tensor, " T"]) -> None:
        if alphas_cumprod.ndim != 1 or not bool((alphas_cumprod.diff() < 0).all()) or alphas_cumprod[-1] < 0:
            raise ValueError(
                "Schedule: alphas_cumprod must be one strictly decreasing row of signal levels, none below 0"
            )
        self.alphas_cumprod = alphas_cumprod.float()

    @classmethod
    def cosine(cls, num_timesteps: int = 1000, image_size: int = 64) -> Schedule:
        """The cosine schedule (Nichol & Dhariwal 2021, eq. 17) shifted for resolution (Hoogeboom et al. 2023, eq. 5).

        More pixels average out more noise; shifting log-SNR by 2 log(64 / image_size) gives every resolution the noise that
        64 pixels have.
        """
        t = torch.arange(num_timesteps + 1, dtype=torch.float64) / num_timesteps
        ideal = torch.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2
        beta = (1 - ideal[1:] / ideal[:-1]).clamp(max=0.999)
        level = torch.cumprod(1 - beta, 0)
        log_snr = torch.log(level / (1 - level)) + 2 * math.log(64 / image_size)
        return cls(torch.sigmoid(log_snr).float())

    @property
    def num_timesteps(self) -> int:
        return len(self.alphas_cumprod)

    def signal(self, t: Int[Tensor, "*S"], like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha_t and sigma_t (alpha² + sigma² = 1), shaped to broadcast over `like`; 1 and 0 where t = -1."""
        level = self.alphas_cumprod.to(t.device)[t.clamp(min=0)]
        level = torch.where(t < 0, torch.ones_like(level), level)
        level = level.reshape(level.shape + (1,) * (like.ndim - level.ndim))
        return level.sqrt(), (1 - level).sqrt()

    def add_noise(self, x0: Tensor, noise: Tensor, t: Int[Tensor, "*S"]) -> Tensor:
        """x_t. Clean items come back unchanged, bit for bit."""
        alpha, sigma = self.signal(t, x0)
        return alpha * x0 + sigma * noise

    def x0_from_eps(self, x_t: Tensor, eps: Tensor, t: Int[Tensor, "*S"]) -> Tensor:
        """The clean item if x_t holds the noise eps; 0 where x_t holds no signal."""
        alpha, sigma = self.signal(t, x_t)
        empty = alpha == 0
        return torch.where(empty, torch.zeros_like(x_t), (x_t - sigma * eps) / torch.where(empty, 1.0, alpha))

    def eps_from_x0(self, x_t: Tensor, x0: Tensor, t: Int[Tensor, "*S"]) -> Tensor:
        """The noise that x_t holds if the clean item is x0; 0 for clean items."""
        alpha, sigma = self.signal(t, x_t)
        clean = sigma == 0
        return torch.where(clean, torch.zeros_like(x_t), (x_t - alpha * x0) / torch.where(clean, 1.0, sigma))

    def x0_from_v(self, x_t: Tensor, v: Tensor, t: Int[Tensor, "*S"]) -> Tensor:
        """v = alpha eps - sigma x0 (Salimans & Ho 2022, appendix D)."""
        alpha, sigma = self.signal(t, x_t)
        return alpha * x_t - sigma * v

    def v_from_x0(self, x_t: Tensor, x0: Tensor, t: Int[Tensor, "*S"]) -> Tensor:
        alpha, sigma = self.signal(t, x_t)
        return alpha * self.eps_from_x0(x_t, x0, t) - sigma * x0

    def snr(self, t: Int[Tensor, "*S"]) -> Tensor:
        """Signal-to-noise ratio alpha² / sigma²; infinite for clean items."""
        level = self.alphas_cumprod.to(t.device)[t.clamp(min=0)]
        return torch.where(t < 0, torch.full_like(level, torch.inf), level / (1 - level))
