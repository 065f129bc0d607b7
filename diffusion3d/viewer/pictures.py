"""What is shown of a scene: Gaussians for the browser to draw, or pictures rendered here."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from diffusion3d.cameras import Cameras
from diffusion3d.export.pictures import depth_frames, normal_frames, render_views
from diffusion3d.rendering.reference import rotations
from diffusion3d.rendering.render import composite
from diffusion3d.representations.base import Scene
from diffusion3d.representations.gsplat import SplatScene

SHOWN = ("colour", "depth", "normals")


def thresholded(scene: Scene, opacity: float) -> Scene:
    """Splats without those fainter than `opacity`; other scenes as they are."""
    if not isinstance(scene, SplatScene):
        return scene
    return dataclasses.replace(scene, opacities=scene.opacities * (scene.opacities >= opacity))


@torch.no_grad()
def gaussians(
    scene: SplatScene,
) -> tuple[Float[np.ndarray, "N 3"], Float[np.ndarray, "N 3 3"], UInt8[np.ndarray, "N 3"], UInt8[np.ndarray, "N 1"]]:
    """Scene 0 as viser's `add_gaussian_splats` takes it: centers, covariances, rgbs (of degree 0) and opacities."""
    axes = rotations(scene.quats[0]) * scene.scales[0, :, None]
    values = torch.cat([scene.colors[0], scene.opacities[0, :, None]], -1)
    rgba = (values.clamp(0, 1) * 255 + 0.5).to(torch.uint8).cpu().numpy()
    return scene.means[0].cpu().numpy(), (axes @ axes.mT).cpu().numpy(), rgba[:, :3], rgba[:, 3:]


@torch.no_grad()
def frames(scene: Scene, cameras: Cameras, shown: str, background: tuple[int, ...]) -> Float[Tensor, "F 3 H W"]:
    """Pictures of scene 0 in [0, 1].

    Args:
        shown: one of `SHOWN`.
        background: sRGB, 0 ... 255, of all but depth, which is on black.
    """
    render = render_views(scene, cameras)
    behind = torch.tensor([background], device=render.rgb.device) / 255
    if shown == "depth":
        return depth_frames(render).expand(-1, 3, -1, -1)
    return normal_frames(render, cameras, behind) if shown == "normals" else composite(render, behind)[0]
