"""Gaussians as files hold them: between the formats and the representation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.errors import UserError
from diffusion3d.rendering.reference import sh_bases

SH_C0 = 0.28209479177387814
"""Degree-0 spherical harmonic: colour = 0.5 + SH_C0 sh[0]."""
DEGREES = {1: 0, 4: 1, 9: 2, 16: 3}
"""Number of spherical harmonics -> their degree."""
SURE = 1e-6
"""Opacities and colours of 0 and 1 stand for numbers this near, whose logits are finite."""


@dataclass(frozen=True)
class Splats:
    """N Gaussians of one scene, unconstrained, world units.

    Attributes:
        means: centres. log_scales: natural logarithm of the standard deviations. quats: (w, x, y, z), any length but 0.
        opacity_logits: before the sigmoid. sh: K = 1, 4, 9 or 16 harmonics of degree 0 ... 3 in the order and with the signs
            of Kerbl et al. 2023; sRGB colour = 0.5 + sum(sh Y(direction from the camera)).
    """

    means: Float[Tensor, "N 3"]
    log_scales: Float[Tensor, "N 3"]
    quats: Float[Tensor, "N 4"]
    opacity_logits: Float[Tensor, " N"]
    sh: Float[Tensor, "N K 3"]

    @classmethod
    def activated(
        cls,
        means: Float[Tensor, "N 3"],
        quats: Float[Tensor, "N 4"],
        scales: Float[Tensor, "N 3"],
        opacities: Float[Tensor, " N"],
        colors: Float[Tensor, "N 3"],
        sh: Float[Tensor, "N K 3"] | None = None,
    ) -> Splats:
        """From what a scene has: standard deviations, opacities, colours in [0, 1] and harmonics from degree 1 on.

        Padding (opacity 0) is left out.
        """
        base = ((colors - 0.5) / SH_C0)[:, None]
        sh = base if sh is None else torch.cat([base, sh], 1)
        kept = opacities > 0
        values = (means, scales.log(), quats, opacities.clamp(SURE, 1 - SURE).logit(), sh)
        return cls(*(value[kept].detach().float().cpu() for value in values))

    @property
    def degree(self) -> int:
        """Of the harmonics, 0 ... 3."""
        return DEGREES[self.sh.shape[1]]

    @property
    def colors(self) -> Float[Tensor, "N 3"]:
        """The sRGB colours of degree 0, in [0, 1]."""
        return (0.5 + SH_C0 * self.sh[:, 0]).clamp(0, 1)

    def raw(self) -> dict[str, Tensor]:
        """The raw tensors [1, N, ...] of `representation=gsplat` that stand for these Gaussians, `sh` from degree 1 on.

        Colours of degree 0 beyond [0, 1], which other programs' files may hold, are clamped.
        """
        return {
            "means": self.means[None],
            "quats": F.normalize(self.quats, dim=-1)[None],
            "scales": self.log_scales[None],
            "opacities": self.opacity_logits[None],
            "colors": self.colors.clamp(SURE, 1 - SURE).logit()[None],
            "sh": self.sh[None, :, 1:],
        }

    def turned(self, axes: tuple[int, int, int]) -> Splats:
        """The same Gaussians in a frame whose axes are the present ones in another, cyclic order."""
        order = list(axes)
        return replace(
            self,
            means=self.means[:, order],
            log_scales=self.log_scales[:, order],
            quats=self.quats[:, [0, *(axis + 1 for axis in order)]],
            sh=torch.einsum("kj,njc->nkc", _sh_rotation(self.degree, order), self.sh),
        )


def splats_of(raw: Mapping[str, Tensor]) -> Splats:
    """The Gaussians of scene 0 that raw tensors of `representation=gsplat` stand for."""
    sh = ((raw["colors"].sigmoid() - 0.5) / SH_C0)[0, :, None]
    if "sh" in raw:
        sh = torch.cat([sh, raw["sh"][0]], 1)
    return Splats(raw["means"][0], raw["scales"][0], raw["quats"][0], raw["opacities"][0], sh)


def _sh_rotation(degree: int, axes: list[int]) -> Float[Tensor, "K K"]:
    """What another order of the world's axes does to harmonics: exact, as every degree is closed under rotations."""
    directions = torch.randn(64, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    turned = sh_bases(degree, directions[:, axes])
    return torch.linalg.lstsq(turned, sh_bases(degree, directions)).solution.float()


def checked(path: Path, columns: Mapping[str, np.ndarray]) -> Splats:
    """The Gaussians of a file, whose values are its attributes.

    Raises:
        UserError: there are none, or some cannot be drawn.
    """
    splats = Splats(**{name: torch.from_numpy(np.array(value, np.float32)) for name, value in columns.items()})
    count = len(splats.means)
    if count == 0:
        raise UserError(f"{path} holds no Gaussians")
    values = (splats.means, splats.log_scales.exp(), splats.quats, splats.opacity_logits, splats.sh)
    finite = torch.stack([value.reshape(count, -1).isfinite().all(1) for value in values]).all(0)
    if not bool(finite.all()):
        raise UserError(f"{path} is damaged: {int((~finite).sum())} of {count} Gaussians hold NaN or infinite values")
    if bool((splats.quats.norm(dim=-1) < SURE).any()):
        raise UserError(f"{path} is damaged: it holds a rotation of length 0")
    return splats


def file_bytes(path: Path) -> bytes:
    """The content of an input file.

    Raises:
        UserError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
