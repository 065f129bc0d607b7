"""Gaussian-splat rendering with the call signature of gsplat 1.5.3 (Kerbl et al. 2023; Ye et al. 2025), on any device."""

from __future__ import annotations

from types import ModuleType
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from diffusion3d.rendering import kernel, reference

RENDER_MODES = ("RGB", "D", "ED", "RGB+D", "RGB+ED")
SH_DEGREES = 3
# arguments of gsplat that work on CUDA alone, with the value that means "not used"
CUDA_ONLY: dict[str, Any] = {
    "sparse_grad": False,
    "distributed": False,
    "camera_model": "pinhole",
    "covars": None,
    "with_ut": False,
    "with_eval3d": False,
    "radial_coeffs": None,
    "tangential_coeffs": None,
    "thin_prism_coeffs": None,
    "ftheta_coeffs": None,
    "rolling_shutter": None,
    "viewmats_rs": None,
}


def kernel_name(device: torch.device | str = "cpu") -> str:
    """What renders on that device: "c++ avx512", "c++ avx2", "c++ generic", "torch" or "gsplat (cuda)"."""
    if torch.device(device).type == "cuda":
        return "gsplat (cuda)"
    library = kernel.library() if torch.device(device).type == "cpu" else None
    return "torch" if library is None else f"c++ {library.isa}"


def rasterization(
    means: Float[Tensor, "*B N 3"],
    quats: Float[Tensor, "*B N 4"],
    scales: Float[Tensor, "*B N 3"],
    opacities: Float[Tensor, "*B N"],
    colors: Float[Tensor, "..."],
    viewmats: Float[Tensor, "*B C 4 4"],
    Ks: Float[Tensor, "*B C 3 3"],
    width: int,
    height: int,
    near_plane: float = 0.01,
    far_plane: float = 1e10,
    radius_clip: float = 0.0,
    eps2d: float = 0.3,
    sh_degree: int | None = None,
    packed: bool = True,
    tile_size: int = 16,
    backgrounds: Float[Tensor, "*B C D"] | None = None,
    render_mode: Literal["RGB", "D", "ED", "RGB+D", "RGB+ED"] = "RGB",
    sparse_grad: bool = False,
    absgrad: bool = False,
    rasterize_mode: Literal["classic", "antialiased"] = "classic",
    channel_chunk: int = 32,
    distributed: bool = False,
    camera_model: str = "pinhole",
    segmented: bool = False,
    covars: Float[Tensor, "*B N 3 3"] | None = None,
    with_ut: bool = False,
    with_eval3d: bool = False,
    radial_coeffs: Tensor | None = None,
    tangential_coeffs: Tensor | None = None,
    thin_prism_coeffs: Tensor | None = None,
    ftheta_coeffs: Any = None,
    rolling_shutter: Any = None,
    viewmats_rs: Tensor | None = None,
    *,
    backend: Literal["auto", "torch"] = "auto",
) -> tuple[Float[Tensor, "*B C H W X"], Float[Tensor, "*B C H W 1"], dict[str, Any]]:
    """Render N Gaussians of each scene with its C cameras.

    CUDA tensors go to the gsplat package. On the CPU float32 goes to the C++ kernel, anything else to plain torch, which
    `backend="torch"` asks for. Gradients reach means, quats, scales, opacities, colors, viewmats and backgrounds.

    Args:
        means: centres, world units. quats: (w, x, y, z), any length. scales: standard deviations, world units.
        opacities: in [0, 1]. What is not finite is not drawn.
        colors: [*B, N, D] or, per camera, [*B, C, N, D]; with `sh_degree` coefficients [*B, N, K, 3] or [*B, C, N, K, 3],
            whose colour is max(SH + 0.5, 0).
        viewmats: world to camera, OpenCV axes. Ks: intrinsics, pixels; skew is ignored.
        width, height: pixels.
        near_plane, far_plane: range of camera-z that is drawn.
        radius_clip: Gaussians whose radius is not larger are left out, pixels.
        eps2d: blur added to the projected variances, pixels².
        sh_degree: 0 to 3, or None for plain colours.
        packed: `meta` lists the drawn Gaussians only.
        backgrounds: colours behind everything; depth has background 0.
        render_mode: RGB; D: accumulated depth, sum(w z); ED: expected depth, sum(w z) / sum(w); depth is the last channel.
        absgrad: backward sets `meta["means2d"].absgrad`, summed absolute gradients (Ye et al. 2024, AbsGS).
        rasterize_mode: "antialiased" scales opacities by what `eps2d` adds to the area (Yu et al. 2024, Mip-Splatting).
        tile_size, channel_chunk, segmented: of use on CUDA alone; they change no result.

    Returns:
        Colours premultiplied by alpha and over the background; alpha; and `meta` with means2d (pixels), radii (pixels),
        depths, conics, opacities, each [*B, C, N, ...] or, packed, [P, ...] with batch_ids, camera_ids and gaussian_ids;
        width, height, n_batches, n_cameras.

    Raises:
        ValueError: a shape, mode or dtype that does not fit. NotImplementedError: an argument that needs CUDA.
    """
    arguments = dict(locals())
    if means.is_cuda:
        return _gsplat(arguments)
    for name, unused in CUDA_ONLY.items():
        if arguments[name] is not unused and arguments[name] != unused:
            given = "a tensor" if isinstance(arguments[name], Tensor) else repr(arguments[name])
            raise NotImplementedError(f"{name}={given} works on CUDA only; on the CPU leave it at {unused!r}")
    _check(
        means,
        quats,
        scales,
        opacities,
        colors,
        viewmats,
        Ks,
        width,
        height,
        sh_degree,
        backgrounds,
        render_mode,
        rasterize_mode,
        backend,
    )
    scenes, cameras, count = means.shape[:-2], viewmats.shape[-3], means.shape[-2]
    use = _backend(means) if backend == "auto" else reference
    inputs = [
        a.reshape(scenes.numel(), *a.shape[len(scenes) :]) for a in (means, quats, scales, opacities, viewmats, Ks)
    ]
    antialiased = rasterize_mode == "antialiased"
    projection = use.project(*inputs, width, height, eps2d, near_plane, far_plane, radius_clip, antialiased)
    alphas = _per_camera(inputs[3], cameras)
    if antialiased:
        alphas = alphas * projection.compensations
    drawn = (projection.radii[..., 0] > 0).nonzero(as_tuple=True) if packed else None

    def listed(full: Tensor) -> Tensor:
        """[I, N, ...] as it stands in `meta`."""
        return full.view(*scenes, cameras, count, *full.shape[2:]) if drawn is None else full[drawn]

    means2d = listed(projection.means2d)
    screen = (
        means2d.view_as(projection.means2d)
        if drawn is None
        else torch.zeros_like(projection.means2d).index_put(drawn, means2d)
    )
    absolute = torch.zeros_like(screen) if absgrad and screen.requires_grad else None
    if absolute is not None:

        def finish(_: Tensor) -> None:
            means2d.absgrad = listed(absolute.clone())  # type: ignore[attr-defined]  # where gsplat looks
            absolute.zero_()

        screen.register_hook(finish)

    features = _features(projection, colors, inputs, sh_degree, len(scenes), cameras, render_mode)
    image, transmittance = use.composite(projection._replace(means2d=screen), alphas, features, width, height, absolute)
    alpha = 1 - transmittance[..., None]
    if backgrounds is not None and render_mode not in ("D", "ED"):
        behind = F.pad(backgrounds.flatten(0, -2), (0, image.shape[-1] - backgrounds.shape[-1]))
        image = torch.addcmul(image, transmittance[..., None], behind[:, None, None])
    if "ED" in render_mode:
        image = torch.cat([image[..., :-1], image[..., -1:] / alpha.clamp(min=1e-10)], -1)
    a, s, q = projection.ellipses.detach().unbind(-1)
    meta = {
        "means2d": means2d,
        "radii": listed(projection.radii),
        "depths": listed(projection.depths),
        "conics": listed(torch.stack([a, -a * s, q + a * s * s], -1)),
        "opacities": listed(alphas),
        "batch_ids": None if drawn is None else drawn[0] // cameras,
        "camera_ids": None if drawn is None else drawn[0] % cameras,
        "gaussian_ids": None if drawn is None else drawn[1],
        "width": width,
        "height": height,
        "tile_size": tile_size,
        "n_batches": scenes.numel(),
        "n_cameras": cameras,
    }
    shape = (*scenes, cameras, height, width)
    return image.view(*shape, image.shape[-1]), alpha.view(*shape, 1), meta


def _backend(means: Tensor) -> ModuleType:
    compiled = means.dtype == torch.float32 and means.device.type == "cpu" and kernel.library() is not None
    return kernel if compiled else reference


def _per_camera(values: Tensor, cameras: int) -> Tensor:
    """[B, ...] repeated for all cameras, [B C, ...]."""
    return values if cameras == 1 else values[:, None].expand(-1, cameras, *values.shape[1:]).flatten(0, 1)


def _features(
    projection: reference.Projection,
    colors: Tensor,
    inputs: list[Tensor],
    sh_degree: int | None,
    scene_dims: int,
    cameras: int,
    render_mode: str,
) -> Tensor:
    """What is blended, [I, N, D]: colours, then depth."""
    if render_mode in ("D", "ED"):
        return projection.depths[..., None]
    means, viewmats = inputs[0], inputs[4]
    once = colors.ndim == scene_dims + (2 if sh_degree is None else 3)
    kept = colors.shape[scene_dims if once else scene_dims + 1 :]
    features = _per_camera(
        colors.reshape(colors.shape[: colors.ndim - len(kept)].numel(), *kept), cameras if once else 1
    )
    if sh_degree is not None:
        eyes = torch.linalg.inv_ex(viewmats).inverse[..., :3, 3].flatten(0, 1)
        viewdirs = _per_camera(means, cameras) - eyes[:, None]
        features = (reference.spherical_harmonics(sh_degree, viewdirs, features) + 0.5).clamp(min=0)
    return features if render_mode == "RGB" else torch.cat([features, projection.depths[..., None]], -1)


def _check(
    means: Tensor,
    quats: Tensor,
    scales: Tensor,
    opacities: Tensor,
    colors: Tensor,
    viewmats: Tensor,
    Ks: Tensor,
    width: int,
    height: int,
    sh_degree: int | None,
    backgrounds: Tensor | None,
    render_mode: str,
    rasterize_mode: str,
    backend: str,
) -> None:
    """Refuse in one line what gsplat would refuse, or what does not fit."""
    scenes, count, cameras = tuple(means.shape[:-2]), means.shape[-2], viewmats.shape[-3]
    shapes = {
        "means": (means, (*scenes, count, 3)),
        "quats": (quats, (*scenes, count, 4)),
        "scales": (scales, (*scenes, count, 3)),
        "opacities": (opacities, (*scenes, count)),
        "viewmats": (viewmats, (*scenes, cameras, 4, 4)),
        "Ks": (Ks, (*scenes, cameras, 3, 3)),
    }
    tail: tuple[int, ...] = tuple(colors.shape[-1:]) if sh_degree is None else (*colors.shape[-2:-1], 3)
    per_camera = colors.ndim == len(scenes) + len(tail) + 2
    shapes["colors"] = (colors, (*scenes, cameras, count, *tail) if per_camera else (*scenes, count, *tail))
    if backgrounds is not None:
        shapes["backgrounds"] = (backgrounds, (*scenes, cameras, tail[-1]))
    for name, (value, expected) in shapes.items():
        if tuple(value.shape) != expected:
            raise ValueError(f"{name} has shape {tuple(value.shape)}; expected {expected}")
        if value.dtype != means.dtype or value.dtype not in (torch.float32, torch.float64):
            raise ValueError(f"{name} is {value.dtype} and means {means.dtype}; all must be float32 or all float64")
        if value.device != means.device:
            raise ValueError(f"{name} is on {value.device} and means on {means.device}; move them to one device")
    if width < 1 or height < 1:
        raise ValueError(f"width={width}, height={height}: an image needs at least one pixel")
    if sh_degree is not None and not (0 <= sh_degree <= SH_DEGREES and (sh_degree + 1) ** 2 <= tail[0]):
        raise ValueError(
            f"sh_degree={sh_degree} with {tail[0]} coefficients; degrees 0 to 3 with (sh_degree + 1)² of them work"
        )
    for name, choice, choices in (
        ("render_mode", render_mode, RENDER_MODES),
        ("rasterize_mode", rasterize_mode, ("classic", "antialiased")),
        ("backend", backend, ("auto", "torch")),
    ):
        if choice not in choices:
            raise ValueError(f"{name}={choice!r} is unknown; choose {', '.join(choices)}")


def _gsplat(arguments: dict[str, Any]) -> tuple[Tensor, Tensor, dict[str, Any]]:
    try:
        import gsplat
    except ImportError as error:
        raise ImportError("splats on CUDA need the gsplat package: pip install 'diffusion3d[cuda]'") from error
    if arguments.pop("backend") != "auto":
        raise ValueError("backend='torch' is for CPU tensors; on CUDA leave it at 'auto'")
    if arguments["rolling_shutter"] is None:
        del arguments["rolling_shutter"]
    return gsplat.rasterization(**arguments)
