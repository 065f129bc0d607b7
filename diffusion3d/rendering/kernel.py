"""Gaussian splatting by the C++ kernel (float32, CPU), with the functions of `diffusion3d.rendering.reference`."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from diffusion3d.rendering.libraries import call, library
from diffusion3d.rendering.reference import Projection


class _Project(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, ...]:
        means, quats, scales, opacities, viewmats, Ks = (a.detach().contiguous() for a in arguments[:6])
        width, height, eps2d, near_plane, far_plane, radius_clip, antialiased = arguments[6:]
        scenes, count, cameras = means.shape[0], means.shape[1], viewmats.shape[1]
        ctx.sizes = (scenes, cameras, count, width, height, eps2d)
        radii = torch.empty(scenes * cameras, count, 2, dtype=torch.int32)
        means2d, depths = means.new_empty(*radii.shape), means.new_empty(*radii.shape[:2])
        ellipses, compensations = means.new_empty(*radii.shape[:2], 3), torch.empty_like(depths)
        options = (near_plane, far_plane, radius_clip, antialiased)
        out = (radii, means2d, depths, ellipses, compensations)
        call("d3d_project", *ctx.sizes, *options, means, quats, scales, opacities, viewmats, Ks, *out)
        ctx.save_for_backward(means, quats, scales, viewmats, Ks, radii)
        ctx.mark_non_differentiable(radii)
        ctx.set_materialize_grads(False)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        means, quats, scales, viewmats, Ks, radii = ctx.saved_tensors
        shapes = [(*radii.shape[:2], 2), (*radii.shape[:2],), (*radii.shape[:2], 3)]
        given = [None if g is None else g.contiguous() for g in gradients[1:]]
        for k in (0, 2):
            given[k] = means.new_zeros(shapes[k]) if given[k] is None else given[k]
        wanted = [ctx.needs_input_grad[k] for k in (0, 1, 2, 4)]
        out = [
            torch.empty_like(a) if w else None for a, w in zip((means, quats, scales, viewmats), wanted, strict=True)
        ]
        call("d3d_project_backward", *ctx.sizes, means, quats, scales, viewmats, Ks, radii, *given, *out)
        return (*out[:3], None, out[3], *([None] * 8))


class _Frame:
    """What the kernel keeps between forward and backward."""

    def __init__(self, address: int) -> None:
        self.address = address
        chosen = library()
        assert chosen is not None
        self.free = chosen.functions.d3d_free

    def __del__(self) -> None:
        self.free(self.address)


class _Composite(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *arguments: Any) -> tuple[Tensor, Tensor]:
        means2d, ellipses, opacities, colors, radii, depths = (a.detach().contiguous() for a in arguments[:6])
        width, height, ctx.absgrad = arguments[6:]
        images, count, channels = colors.shape
        image = colors.new_empty(images, height, width, channels)
        transmittance = colors.new_empty(images, height, width)
        arrays = (radii, means2d, depths, ellipses, opacities, colors, image, transmittance)
        ctx.frame = _Frame(call("d3d_composite", images, count, width, height, channels, *arrays))
        ctx.save_for_backward(transmittance)
        ctx.shape = colors.shape
        ctx.set_materialize_grads(False)
        return image, transmittance

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, v_image: Tensor | None, v_transmittance: Tensor | None) -> tuple[Tensor | None, ...]:
        (transmittance,) = ctx.saved_tensors
        images, count, channels = ctx.shape
        if v_image is None:
            v_image = transmittance.new_zeros(*transmittance.shape, channels)
        if v_transmittance is None:
            v_transmittance = torch.zeros_like(transmittance)
        out = [transmittance.new_empty(images, count, *tail) for tail in ((2,), (3,), (), (channels,))]
        arguments = (transmittance, v_image.contiguous(), v_transmittance.contiguous(), *out, ctx.absgrad)
        call("d3d_composite_backward", ctx.frame.address, *arguments)
        return (*out, None, None, None, None, None)


def project(
    means: Float[Tensor, "B N 3"],
    quats: Float[Tensor, "B N 4"],
    scales: Float[Tensor, "B N 3"],
    opacities: Float[Tensor, "B N"],
    viewmats: Float[Tensor, "B C 4 4"],
    Ks: Float[Tensor, "B C 3 3"],
    width: int,
    height: int,
    eps2d: float,
    near_plane: float,
    far_plane: float,
    radius_clip: float,
    antialiased: bool,
) -> Projection:
    """As `reference.project`."""
    inputs = (means, quats, scales, opacities, viewmats, Ks)
    options = (width, height, eps2d, near_plane, far_plane, radius_clip, antialiased)
    return Projection(*_Project.apply(*inputs, *options))


def composite(
    projection: Projection,
    opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N D"],
    width: int,
    height: int,
    absgrad: Float[Tensor, "I N 2"] | None = None,
) -> tuple[Float[Tensor, "I H W D"], Float[Tensor, "I H W"]]:
    """As `reference.composite`."""
    radii, means2d, depths, ellipses, _ = projection
    return _Composite.apply(means2d, ellipses, opacities, colors, radii, depths, width, height, absgrad)
