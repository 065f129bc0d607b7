"""Density control for fitting images: gsplat's default strategy, and 3DGS as Markov chain Monte Carlo."""

from __future__ import annotations

import math
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from diffusion3d.errors import UserError
from diffusion3d.rendering.reference import rotations
from diffusion3d.rendering.render import Render
from diffusion3d.representations.base import SceneParameters
from diffusion3d.representations.density import DensityControl, replace_rows


class DefaultStrategy(DensityControl):
    """gsplat's `DefaultStrategy`: clones and splits by a gradient threshold, and prunes (Kerbl et al. 2023).

    Its reset of opacities never happens in gsplat 1.5.3, whose condition for it is never true.

    Args:
        cap: nothing grows from that many Gaussians on; the last growth may pass it.
        scene_scale: what its sizes are relative to, world units.
        settings: arguments of gsplat's class, such as grow_grad2d, refine_start_iter, refine_stop_iter, refine_every.

    Raises:
        UserError: gsplat is not installed, or has no such setting.
    """

    def __init__(self, cap: int = 50_000, scene_scale: float = 1.0, **settings: Any) -> None:
        try:
            from gsplat.strategy import DefaultStrategy as Strategy
        except ImportError as error:
            raise UserError(f"gsplat's strategies need its package ({error}): pip install 'gsplat>=1.5.3,<2'") from None
        try:
            self.strategy = Strategy(**settings)
        except TypeError as error:
            raise UserError(f"representation.density: {error}") from None
        self.cap, self.growth = cap, self.strategy.grow_grad2d
        self.memory = self.strategy.initialize_state(scene_scale)

    def after_step(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        groups = {group["name"]: group for group in optimizer.param_groups}
        params = {name: nn.Parameter(value.detach()[0]) for name, value in owner.raw.items()}
        optimizers = {}
        for name, group in groups.items():
            moments = {
                key: value if key == "step" else value[0] for key, value in optimizer.state[group["params"][0]].items()
            }
            optimizers[name] = SimpleNamespace(param_groups=[{"params": [params[name]]}], state={params[name]: moments})
        before = dict(params)
        device = params["means"].device
        self.memory = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in self.memory.items()}
        self.strategy.grow_grad2d = self.growth if len(params["means"]) < self.cap else math.inf
        meta = render.extras["meta"]
        means2d = SimpleNamespace(grad=meta["means2d"].grad[0])
        info = {**meta, "means2d": means2d, "radii": meta["radii"][0], "n_cameras": meta["radii"].shape[1]}
        self.strategy.step_post_backward(params, optimizers, self.memory, step, info)
        for name, new in params.items():
            if new is before[name]:
                continue
            old = groups[name]["params"][0]
            parameter = nn.Parameter(new.detach()[None])
            moments = optimizers[name].state[new]
            optimizer.state.pop(old)
            optimizer.state[parameter] = {k: v if k == "step" else v[None] for k, v in moments.items()}
            groups[name]["params"] = [parameter]
            owner.raw[name] = parameter

    def state(self) -> dict[str, Tensor]:
        return {name: value for name, value in self.memory.items() if isinstance(value, Tensor)}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        self.memory.update(state)


class MCMC(DensityControl):
    """Gaussians as samples of a Markov chain (Kheradmand et al. 2024).

    The dead move onto the living, the number grows to the cap, and positions are perturbed along the Gaussians' own shapes, the
    less the more opaque they are.

    gsplat's class of that name needs CUDA; this does in torch what it does. The paper's regularisers of opacities and scales
    are not part of it.

    Args:
        cap: largest number of Gaussians.
        start, stop, every: steps between which, and how often, Gaussians move and are added.
        growth: share added each time.
        min_opacity: at most as opaque ones are dead.
        noise: of the perturbation, as a factor of the positions' learning rate.
    """

    def __init__(
        self,
        cap: int = 20_000,
        start: int = 200,
        stop: int = 2_500,
        every: int = 100,
        growth: float = 0.1,
        min_opacity: float = 0.005,
        noise: float = 1e4,
    ) -> None:
        if not (0 < min_opacity < 1 and growth >= 0 and every >= 1 and noise >= 0):
            raise UserError(
                f"representation.density: min_opacity={min_opacity} must lie in (0, 1), growth={growth} and noise={noise} must "
                f"not be negative, every={every} must be at least 1"
            )
        self.cap, self.start, self.stop, self.every = cap, start, stop, every
        self.growth, self.min_opacity, self.noise = growth, min_opacity, noise

    def after_step(
        self, owner: SceneParameters, optimizer: torch.optim.Optimizer, render: Render, step: int, total: int
    ) -> None:
        if self.start <= step < self.stop and (step - self.start) % self.every == 0:
            self.move(owner, optimizer)
            self.grow(owner, optimizer)
        rate = next(group["lr"] for group in optimizer.param_groups if group["name"] == "means")
        self.perturb(owner, rate * self.noise)

    def move(self, owner: SceneParameters, optimizer: torch.optim.Optimizer) -> None:
        """Put the dead where the living are, drawn by opacity."""
        raw = {name: value.detach().clone() for name, value in owner.raw.items()}
        opacities = raw["opacities"][0].sigmoid()
        dead, alive = (mask.nonzero()[:, 0] for mask in (opacities <= self.min_opacity, opacities > self.min_opacity))
        if len(dead) == 0 or len(alive) == 0:
            return
        chosen = alive[torch.multinomial(opacities[alive].cpu(), len(dead), replacement=True).to(alive)]
        self._share(raw, chosen)
        for value in raw.values():
            value[:, dead] = value[:, chosen]
        for group in optimizer.param_groups:
            owner.raw[group["name"]].data.copy_(raw[group["name"]])
            for key in ("exp_avg", "exp_avg_sq"):
                optimizer.state[group["params"][0]][key][:, chosen] = 0

    def grow(self, owner: SceneParameters, optimizer: torch.optim.Optimizer) -> None:
        """Add copies of the living, drawn by opacity."""
        raw = {name: value.detach().clone() for name, value in owner.raw.items()}
        opacities = raw["opacities"][0].sigmoid()
        count = len(opacities)
        added = max(0, min(self.cap, int((1 + self.growth) * count)) - count)
        if added == 0:
            return
        chosen = torch.multinomial(opacities.cpu(), added, replacement=True).to(opacities.device)
        self._share(raw, chosen)
        everyone = torch.arange(count, device=opacities.device)
        replace_rows(owner, optimizer, lambda name: torch.cat([raw[name], raw[name][:, chosen]], 1), everyone, added)

    def _share(self, raw: dict[str, Tensor], chosen: Int[Tensor, " M"]) -> None:
        """Make the chosen ones so faint and small that together with their copies they look as before."""
        copies = torch.bincount(chosen, minlength=raw["means"].shape[1])[chosen] + 1
        opacity, scales = relocated(raw["opacities"][0, chosen].sigmoid(), raw["scales"][0, chosen].exp(), copies)
        raw["opacities"][0, chosen] = opacity.clamp(self.min_opacity, 1 - 1e-6).logit()
        raw["scales"][0, chosen] = scales.log()

    @torch.no_grad()
    def perturb(self, owner: SceneParameters, size: float) -> None:
        raw = owner.raw
        faint = torch.sigmoid(100 * (0.005 - raw["opacities"].sigmoid()))
        root = rotations(nn.functional.normalize(raw["quats"], dim=-1)) * raw["scales"].exp()[..., None, :]
        noise = size * faint[..., None] * torch.randn(raw["means"].shape).to(raw["means"])
        raw["means"].add_(torch.einsum("bnij,bnkj,bnk->bni", root, root, noise))


def relocated(
    opacities: Float[Tensor, " M"], scales: Float[Tensor, "M 3"], copies: Int[Tensor, " M"]
) -> tuple[Float[Tensor, " M"], Float[Tensor, "M 3"]]:
    """Opacity and scales of `copies` coincident Gaussians that look like one (Kheradmand et al. 2024, equation 9)."""
    copies = copies.clamp(max=51)
    new = 1 - (1 - opacities) ** (1 / copies)
    total = torch.zeros_like(opacities, dtype=torch.float64)
    for i in range(1, int(copies.max()) + 1):
        part = sum(math.comb(i - 1, k) * (-1) ** k * new.double() ** (k + 1) / math.sqrt(k + 1) for k in range(i))
        total = total + torch.where(copies >= i, part, 0.0)
    return new, scales * (opacities.double() / total).to(scales)[:, None]
