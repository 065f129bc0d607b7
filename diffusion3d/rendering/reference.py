"""Gaussian splatting in plain torch: the reference that the C++ kernel is held to, and the fallback without a compiler.

Same functions, arguments and results as `diffusion3d.rendering.kernel`; any floating dtype. Compositing follows `accumulate`
of gsplat (Ye et al. 2025): a list of all (Gaussian, pixel) pairs, ordered by pixel and depth. It is built for bands of rows
and recomputed in the backward pass when there are several, so memory stays bounded.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

MAX_ALPHA = 0.999
MIN_ALPHA = 1 / 255
STOP = 1e-4
"""A pixel takes no Gaussian that would leave it with less transmittance."""
EXTENT = 3.33
"""Standard deviations after which even an opaque Gaussian falls below MIN_ALPHA."""
PAIRS = 1 << 22
"""Pairs of a band of rows."""


class Projection(NamedTuple):
    """I images of N Gaussians; rows of Gaussians that are not drawn are 0.

    Attributes:
        radii: half width and height of what a Gaussian may cover, whole pixels; 0 if it is not drawn.
        means2d: pixels. depths: camera-z.
        ellipses: (a, s, q); at dx, dy from the mean the exponent is -(a (dx - s dy)^2 + q dy^2) / 2, the usual conic
            (a, -a s, q + a s^2) in a form that does not cancel for long thin Gaussians.
        compensations: sqrt(det / blurred det) (Yu et al. 2024, Mip-Splatting).
    """

    radii: Int[Tensor, "I N 2"]
    means2d: Float[Tensor, "I N 2"]
    depths: Float[Tensor, "I N"]
    ellipses: Float[Tensor, "I N 3"]
    compensations: Float[Tensor, "I N"]


def rotations(quats: Float[Tensor, "*S 4"]) -> Float[Tensor, "*S 3 3"]:
    """Rotation matrices of quaternions (w, x, y, z) of any length."""
    w, x, y, z = F.normalize(quats, dim=-1).unbind(-1)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
    return torch.stack([torch.stack(row, -1) for row in rows], -2)


def _ewa(
    means: Tensor, quats: Tensor, scales: Tensor, viewmats: Tensor, Ks: Tensor, width: int, height: int, eps2d: float
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """means2d, depths, ellipses, compensations and the covariances' diagonals, by EWA splatting (Zwicker et al. 2001)."""
    x, y, z = ((viewmats[..., :3, :3] @ means[..., None])[..., 0] + viewmats[..., :3, 3]).unbind(-1)
    fx, fy, cx, cy = Ks[..., 0, 0], Ks[..., 1, 1], Ks[..., 0, 2], Ks[..., 1, 2]
    margin_x, margin_y = 0.15 * width / fx, 0.15 * height / fy
    slope_x = (x / z).clamp(-(cx / fx + margin_x), (width - cx) / fx + margin_x)
    slope_y = (y / z).clamp(-(cy / fy + margin_y), (height - cy) / fy + margin_y)
    u = (fx / z)[..., None] * (viewmats[..., 0, :3] - slope_x[..., None] * viewmats[..., 2, :3])
    v = (fy / z)[..., None] * (viewmats[..., 1, :3] - slope_y[..., None] * viewmats[..., 2, :3])
    axes = rotations(quats) * scales[..., None, :]
    u, v = (torch.stack([u, v], -2) @ axes).unbind(-2)
    uu, uv, vv = (u * u).sum(-1), (u * v).sum(-1), (v * v).sum(-1)
    det = torch.linalg.cross(u, v).square().sum(-1)
    blurred = det + eps2d * (uu + vv) + eps2d**2
    uu, vv = uu + eps2d, vv + eps2d
    means2d = torch.stack([fx * x / z + cx, fy * y / z + cy], -1)
    ellipses = torch.stack([vv / blurred, uv / vv, 1 / vv], -1)
    return means2d, z, ellipses, (det / blurred).sqrt(), torch.stack([uu, vv], -1)


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
    """Project N Gaussians of B scenes into C cameras each: I = B C images.

    Gaussians out of sight, fainter than 1/255, not finite or no larger than `radius_clip` pixels get radius 0.
    """
    scenes, cameras, count = means.shape[0], viewmats.shape[1], means.shape[1]
    with torch.no_grad():
        arguments = (means[:, None], quats[:, None], scales[:, None], viewmats[:, :, None], Ks[:, :, None])
        means2d, depths, ellipses, compensations, variances = _ewa(*arguments, width, height, eps2d)
        alpha = opacities[:, None] * compensations if antialiased else opacities[:, None].expand_as(compensations)
        extent = (2 * (alpha / MIN_ALPHA).log()).sqrt().clamp(max=EXTENT)
        radii = (extent[..., None] * variances.sqrt()).ceil()
        size = radii.new_tensor([width, height])
        drawn = (depths >= near_plane) & (depths <= far_plane) & (alpha >= MIN_ALPHA) & (radii > radius_clip).any(-1)
        drawn &= ((means2d + radii > 0) & (means2d - radii < size)).all(-1) & (radii > 0).all(-1)
        finite = torch.cat([means2d, ellipses, radii, alpha[..., None]], -1).isfinite().all(-1)
        scene, camera, index = (drawn & finite).nonzero(as_tuple=True)
        slot = (scene * cameras + camera) * count + index

    def full(values: Tensor) -> Tensor:
        empty = values.new_zeros(scenes * cameras * count, *values.shape[1:])
        return empty.index_copy(0, slot, values).unflatten(0, (scenes * cameras, count))

    def of(values: Tensor) -> Tensor:
        return values.flatten(0, 1).index_select(0, scene * count + index)

    def seen_by(views: Tensor) -> Tensor:
        return views.flatten(0, 1).index_select(0, scene * cameras + camera)

    chosen = (of(means), of(quats), of(scales), seen_by(viewmats), seen_by(Ks))
    means2d, depths, ellipses, compensations, _ = _ewa(*chosen, width, height, eps2d)
    return Projection(
        full(radii[scene, camera, index].clamp(max=2.0**30).int()),
        full(means2d),
        full(depths),
        full(ellipses),
        full(compensations),
    )


def accumulate(
    means2d: Float[Tensor, "M 2"],
    ellipses: Float[Tensor, "M 3"],
    opacities: Float[Tensor, " M"],
    colors: Float[Tensor, "M D"],
    gaussian_ids: Int[Tensor, " P"],
    pixel_ids: Int[Tensor, " P"],
    width: int,
    height: int,
    begin: int,
    end: int,
    absgrad: Float[Tensor, "M 2"] | None = None,
) -> tuple[Float[Tensor, "Q D"], Float[Tensor, " Q"]]:
    """Composite a given list of pairs, sorted by pixel and, within a pixel, front to back.

    Pixel ids count through the pixels of all images; those of the pairs lie among the Q = end - begin that are returned, as
    premultiplied colours and transmittance. The backward pass adds |d loss / d means2d| of all pairs to `absgrad`.
    """
    alphas = _alphas(means2d, ellipses, opacities, gaussian_ids, pixel_ids, width, height, absgrad)
    log_t, before = _transmittance(alphas, pixel_ids)
    weights = alphas * before.exp().to(alphas.dtype)
    pixels = pixel_ids - begin
    image = colors.new_zeros(end - begin, colors.shape[1])
    image = image.index_add(0, pixels, weights[:, None] * colors.index_select(0, gaussian_ids))
    total = log_t.new_zeros(end - begin).index_add(0, pixels, log_t)
    return image, total.exp().to(alphas.dtype)


def _alphas(
    means2d: Tensor,
    ellipses: Tensor,
    opacities: Tensor,
    gaussian_ids: Tensor,
    pixel_ids: Tensor,
    width: int,
    height: int,
    absgrad: Tensor | None = None,
) -> Tensor:
    table = torch.cat([means2d, ellipses, opacities[:, None]], 1).index_select(0, gaussian_ids)
    if absgrad is not None and table.requires_grad:

        def add(gradient: Tensor) -> None:
            absgrad.index_add_(0, gaussian_ids, gradient[:, :2].abs())

        table.register_hook(add)
    x, y, a, s, q, o = table.unbind(1)
    dy = (pixel_ids // width % height).to(x.dtype) + 0.5 - y
    d = (pixel_ids % width).to(x.dtype) + 0.5 - x - s * dy
    return (o * torch.exp(-0.5 * (a * d * d + q * dy * dy))).clamp(max=MAX_ALPHA)


def _transmittance(alphas: Tensor, pixel_ids: Tensor) -> tuple[Tensor, Tensor]:
    """log(1 - alpha) and, per pair, its sum over the pairs in front; float64, since one sum runs through all pixels."""
    log_t = torch.log1p(-alphas.double())
    total = log_t.cumsum(0)
    before = total - log_t
    counts = torch.unique_consecutive(pixel_ids, return_counts=True)[1]
    first = torch.repeat_interleave(counts.cumsum(0) - counts, counts)
    return log_t, before - before.index_select(0, first)


def composite(
    projection: Projection,
    opacities: Float[Tensor, "I N"],
    colors: Float[Tensor, "I N D"],
    width: int,
    height: int,
    absgrad: Float[Tensor, "I N 2"] | None = None,
) -> tuple[Float[Tensor, "I H W D"], Float[Tensor, "I H W"]]:
    """Premultiplied colours and transmittance of all pixels, Gaussians blended front to back.

    The backward pass adds the sum over pixels of |d loss / d means2d| to `absgrad`.
    A Gaussian's alpha is at most 0.999; below 1/255 it is skipped; one that would leave less than 1e-4 ends the pixel.
    """
    images = colors.shape[0]
    with torch.no_grad():
        gaussian, row, x0, count = _row_spans(projection, opacities, width, height)
        pairs = torch.zeros(images * height, dtype=torch.long, device=count.device).index_add_(0, row, count)
        bands, start = [0], 0
        for end, total in enumerate(pairs.cumsum(0).tolist(), 1):
            if total - start > PAIRS and end - 1 > bands[-1]:
                bands.append(end - 1)
                start = total - int(pairs[end - 1])
        bands.append(images * height)
        edges = torch.searchsorted(row, torch.tensor(bands, device=row.device)).tolist()
    flat = [a.flatten(0, 1) for a in (projection.means2d, projection.ellipses, opacities, colors)]
    band = functools.partial(_band, absgrad=None if absgrad is None else absgrad.flatten(0, 1))
    done = []
    for k in range(len(bands) - 1):
        part = slice(edges[k], edges[k + 1])
        arguments: tuple[Any, ...] = (
            *flat,
            gaussian[part],
            row[part],
            x0[part],
            count[part],
            bands[k],
            bands[k + 1],
            width,
            height,
        )
        alone = len(bands) == 2 or not torch.is_grad_enabled()
        done.append(band(*arguments) if alone else checkpoint(band, *arguments, use_reentrant=False))
    colors, transmittance = (torch.cat(parts) for parts in zip(*done, strict=True))
    return colors.view(images, height, width, -1), transmittance.view(images, height, width)


def _row_spans(
    projection: Projection, opacities: Tensor, width: int, height: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The rows of all drawn Gaussians, by row and depth: Gaussian, row over all images, first pixel, pixels."""
    image, index = (projection.radii[..., 0] > 0).nonzero(as_tuple=True)
    order = projection.depths[image, index].sort(stable=True).indices
    image, index = image[order], index[order]
    x, y = projection.means2d[image, index].unbind(-1)
    a, s, q = projection.ellipses[image, index].unbind(-1)
    cut = 2 * (opacities[image, index] / MIN_ALPHA).log() * (1 + 1e-5) + 1e-5
    reach = (cut / q).sqrt()
    y0 = (y - reach - 0.5).ceil().clamp(0, height)
    y1 = (y + reach + 0.5).floor().clamp(0, height)
    rows = (y1 - y0).clamp(min=0).long()
    k = torch.repeat_interleave(rows)
    row = torch.arange(len(k), device=k.device) - (rows.cumsum(0) - rows)[k] + y0.long()[k]
    dy = row.to(y.dtype) + 0.5 - y[k]
    half = ((cut[k] - q[k] * dy * dy).clamp(min=0) / a[k]).sqrt()
    middle = x[k] + s[k] * dy
    x0 = (middle - half - 0.5).ceil().clamp(0, width).long()
    x1 = (middle + half + 0.5).floor().clamp(0, width).long()
    row, order = (image[k] * height + row).sort(stable=True)
    return (image * opacities.shape[1] + index)[k][order], row, x0[order], (x1 - x0).clamp(min=0)[order]


def _band(
    means2d: Tensor,
    ellipses: Tensor,
    opacities: Tensor,
    colors: Tensor,
    gaussian: Tensor,
    row: Tensor,
    x0: Tensor,
    count: Tensor,
    begin: int,
    end: int,
    width: int,
    height: int,
    absgrad: Tensor | None,
) -> tuple[Tensor, Tensor]:
    shape = (means2d, ellipses, opacities)
    pairs = _pairs(*shape, gaussian, row, x0, count, width, height)
    return accumulate(*shape, colors, *pairs, width, height, begin * width, end * width, absgrad)


@torch.no_grad()
def _pairs(
    means2d: Tensor,
    ellipses: Tensor,
    opacities: Tensor,
    gaussian: Tensor,
    row: Tensor,
    x0: Tensor,
    count: Tensor,
    width: int,
    height: int,
) -> tuple[Tensor, Tensor]:
    """Gaussian and pixel ids of the pairs that are kept, by pixel and front to back, from the spans in each row."""
    k = torch.repeat_interleave(count)
    pixel = (
        (row * width + x0 - (count.cumsum(0) - count)).index_select(0, k).add_(torch.arange(len(k), device=k.device))
    )
    ids = gaussian.index_select(0, k)
    alphas = _alphas(means2d, ellipses, opacities, ids, pixel, width, height)
    kept = alphas >= MIN_ALPHA
    if not kept.all():
        pixel, ids, alphas = pixel[kept], ids[kept], alphas[kept]
    pixel, order = pixel.sort(stable=True)
    ids, alphas = ids.index_select(0, order), alphas.index_select(0, order)
    log_t, before = _transmittance(alphas, pixel)
    kept = log_t + before > math.log(STOP)
    return (ids, pixel) if kept.all() else (ids[kept], pixel[kept])


def sh_bases(degree: int, viewdirs: Float[Tensor, "*S 3"]) -> Float[Tensor, "*S K"]:
    """All (degree + 1)² real spherical harmonics up to a degree of 3, along directions of any length (Sloan 2013)."""
    x, y, z = F.normalize(viewdirs, dim=-1).unbind(-1)
    bases = [torch.full_like(x, 0.2820947917738781)]
    if degree > 0:
        bases += [-0.48860251190292 * y, 0.48860251190292 * z, -0.48860251190292 * x]
    if degree > 1:
        xx_yy, xy = x * x - y * y, 2 * x * y
        bases += [0.5462742152960395 * xy, -1.092548430592079 * y * z, 0.9461746957575601 * z * z - 0.3153915652525201]
        bases += [-1.092548430592079 * x * z, 0.5462742152960395 * xx_yy]
    if degree > 2:
        c, s, f = x * xx_yy - y * xy, x * xy + y * xx_yy, 0.4570457994644658 - 2.285228997322329 * z * z
        bases += [-0.5900435899266435 * s, 1.445305721320277 * z * xy, f * y]
        bases += [z * (1.865881662950577 * z * z - 1.119528997770346), f * x]
        bases += [1.445305721320277 * z * xx_yy, -0.5900435899266435 * c]
    return torch.stack(bases, -1)


def spherical_harmonics(
    degree: int, viewdirs: Float[Tensor, "*S 3"], coefficients: Float[Tensor, "*S K 3"]
) -> Float[Tensor, "*S 3"]:
    """Colours of real spherical harmonics up to a degree, seen along directions of any length."""
    bases = sh_bases(degree, viewdirs)
    return (bases[..., None] * coefficients[..., : bases.shape[-1], :]).sum(-2)
