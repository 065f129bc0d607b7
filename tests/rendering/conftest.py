"""Scenes for the rasteriser's tests."""

import math

import pytest
import torch

NAMES = ("means", "quats", "scales", "opacities", "colors", "viewmats", "Ks")


def make_scene(
    count=200, width=48, height=40, cameras=1, channels=3, scale=0.05, dtype=torch.float32, seed=0, scenes=()
):
    """Gaussians in a ball around the origin and cameras three units away, as keyword arguments of `rasterization`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*scenes, *shape, generator=generator, dtype=torch.float64)

    def uniform(*shape):
        return torch.rand(*scenes, *shape, generator=generator, dtype=torch.float64)

    viewmats = torch.eye(4, dtype=torch.float64).repeat(cameras, 1, 1)
    for k, view in enumerate(viewmats):
        cos, sin = math.cos(0.6 * k + 0.2), math.sin(0.6 * k + 0.2)
        view[:3, :3] = torch.tensor([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])
        view[:3, 3] = torch.tensor([0.1, -0.05, 3.0])
    focal = 1.2 * height
    Ks = torch.tensor([[focal, 0, 0.48 * width], [0, 1.1 * focal, 0.5 * height], [0, 0, 1]], dtype=torch.float64)
    values = (
        0.45 * normal(count, 3),
        normal(count, 4),
        scale * torch.exp(0.4 * normal(count, 3)),
        0.05 + 0.9 * uniform(count),
        uniform(count, channels),
        viewmats.expand(*scenes, cameras, 4, 4),
        Ks.expand(*scenes, cameras, 3, 3),
    )
    scene = {name: value.to(dtype).contiguous() for name, value in zip(NAMES, values, strict=True)}
    return {**scene, "width": width, "height": height}


def render_with_gradients(rasterization, scene, wrt=NAMES[:6], **options):
    """Image, alpha, meta and the gradients of a fixed random weighting of all pixels."""
    scene = {k: v.detach().clone().requires_grad_(k in wrt) if torch.is_tensor(v) else v for k, v in scene.items()}
    image, alpha, meta = rasterization(**scene, **options)
    meta["means2d"].retain_grad()
    generator = torch.Generator().manual_seed(9)
    weights = [torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x) for x in (image, alpha)]
    ((image * weights[0]).sum() + (alpha * weights[1]).sum()).backward()
    gradients = {name: scene[name].grad for name in wrt}
    return image.detach(), alpha.detach(), meta, {**gradients, "means2d": meta["means2d"].grad}


@pytest.fixture(name="make_scene")
def make_scene_fixture():
    return make_scene


@pytest.fixture(name="render_with_gradients")
def render_with_gradients_fixture():
    return render_with_gradients


@pytest.fixture
def kernel():
    """The C++ kernel, or a skip where none is built."""
    from diffusion3d.rendering import kernel

    if kernel.library() is None:
        pytest.skip("no kernel: built without a compiler, or DIFFUSION3D_KERNEL=torch")
    return kernel
