"""The plain-torch twin against closed forms, float64 finite differences and gsplat's own torch functions."""

import math

import pytest
import torch

from diffusion3d.rendering import reference

torch_impl = pytest.importorskip("gsplat.cuda._torch_impl")


def options(scene, antialiased=False):
    return (scene["width"], scene["height"], 0.3, 0.01, 1e10, 0.0, antialiased)


def inputs(scene):
    return [scene[k][None] for k in ("means", "quats", "scales", "opacities", "viewmats", "Ks")]


def test_projection_agrees_with_gsplat(make_scene):
    scene = make_scene(cameras=3, dtype=torch.float64)
    mine = reference.project(*inputs(scene), *options(scene))
    covars, _ = torch_impl._quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)
    radii, means2d, depths, conics, compensations = torch_impl._fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], scene["width"], scene["height"], calc_compensations=True
    )
    drawn = (mine.radii > 0).all(-1)
    assert drawn.sum() > 300
    assert (radii[drawn] > 0).all()  # gsplat's torch version takes no opacity: its radii are never smaller
    assert (mine.radii[drawn] <= radii[drawn]).all()
    a, s, q = mine.ellipses.unbind(-1)
    torch.testing.assert_close(mine.means2d[drawn], means2d[drawn])
    torch.testing.assert_close(mine.depths[drawn], depths[drawn])
    torch.testing.assert_close(torch.stack([a, -a * s, q + a * s * s], -1)[drawn], conics[drawn])
    torch.testing.assert_close(mine.compensations[drawn], compensations[drawn])


def test_gradients_of_the_projection_agree_with_gsplat(make_scene):
    scene = make_scene(cameras=2, dtype=torch.float64)
    names = ("means", "quats", "scales", "viewmats")
    for name in names:
        scene[name].requires_grad_(True)
    mine = reference.project(*inputs(scene), *options(scene))
    drawn = (mine.radii > 0).all(-1)
    a, s, q = mine.ellipses.unbind(-1)
    conics = torch.stack([a, -a * s, q + a * s * s], -1)
    covars, _ = torch_impl._quat_scale_to_covar_preci(scene["quats"], scene["scales"], compute_preci=False)
    _, means2d, depths, conics2, compensations = torch_impl._fully_fused_projection(
        scene["means"], covars, scene["viewmats"], scene["Ks"], scene["width"], scene["height"], calc_compensations=True
    )
    weights = torch.randn(7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def loss(means2d, depths, conics, compensations):
        return (
            (torch.cat([means2d, depths[..., None], conics, compensations[..., None]], -1)[drawn] @ weights).sin().sum()
        )

    mine_loss = loss(mine.means2d, mine.depths, conics, mine.compensations)
    gradients = torch.autograd.grad(mine_loss, [scene[name] for name in names])
    expected = torch.autograd.grad(loss(means2d, depths, conics2, compensations), [scene[name] for name in names])
    for gradient, other in zip(gradients, expected, strict=True):
        torch.testing.assert_close(gradient, other)


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_spherical_harmonics_agree_with_gsplat(degree):
    generator = torch.Generator().manual_seed(degree)
    viewdirs = torch.randn(5, 7, 3, generator=generator, dtype=torch.float64)
    coefficients = torch.randn(5, 7, 16, 3, generator=generator, dtype=torch.float64)
    expected = torch_impl._spherical_harmonics(degree, viewdirs, coefficients)
    torch.testing.assert_close(reference.spherical_harmonics(degree, viewdirs, coefficients), expected)


def test_compositing_agrees_with_a_loop_over_pixels(make_scene):
    scene = make_scene(count=120, width=12, height=9, scale=0.3, dtype=torch.float64)
    projection = reference.project(*inputs(scene), *options(scene))
    image, transmittance = reference.composite(projection, scene["opacities"][None], scene["colors"][None], 12, 9)
    order = [i for i in projection.depths[0].argsort().tolist() if projection.radii[0, i, 0] > 0]
    for row in range(9):
        for column in range(12):
            color, T = torch.zeros(3, dtype=torch.float64), 1.0
            for i in order:
                dx, dy = torch.tensor([column + 0.5, row + 0.5]) - projection.means2d[0, i]
                a, s, q = projection.ellipses[0, i]
                alpha = min(
                    0.999, (scene["opacities"][i] * math.exp(-0.5 * (a * (dx - s * dy) ** 2 + q * dy * dy))).item()
                )
                if alpha < 1 / 255:
                    continue
                if T * (1 - alpha) <= 1e-4:
                    break
                color += T * alpha * scene["colors"][i]
                T *= 1 - alpha
            torch.testing.assert_close(image[0, row, column], color)
            assert transmittance[0, row, column].item() == pytest.approx(T)


def test_gradients_are_those_of_finite_differences(make_scene):
    from diffusion3d.rendering import rasterization

    scene = make_scene(count=6, width=7, height=6, cameras=2, scale=0.3, dtype=torch.float64)
    scene["backgrounds"] = torch.rand(2, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    scene["opacities"] *= 0.8
    names = ("means", "quats", "scales", "opacities", "colors", "viewmats", "backgrounds")

    def render(*values):
        image, alpha, _ = rasterization(**{**scene, **dict(zip(names, values, strict=True))}, render_mode="RGB+D")
        return image, alpha

    values = [scene[name].requires_grad_(True) for name in names]
    # pixels at the rim of a Gaussian, where alpha jumps from 0 to 1/255, are rare enough for this scene to have none
    assert torch.autograd.gradcheck(render, values, eps=1e-7, atol=2e-5, rtol=1e-3)


def test_bands_of_rows_give_the_same(make_scene, render_with_gradients, monkeypatch):
    from diffusion3d.rendering import rasterization

    scene = make_scene(count=300, cameras=2, dtype=torch.float64)
    whole = render_with_gradients(rasterization, scene, absgrad=True)
    monkeypatch.setattr(reference, "PAIRS", 500)
    parts = render_with_gradients(rasterization, scene, absgrad=True)
    torch.testing.assert_close(whole[0], parts[0])
    for name, gradient in whole[3].items():
        torch.testing.assert_close(gradient, parts[3][name])
    torch.testing.assert_close(whole[2]["means2d"].absgrad, parts[2]["means2d"].absgrad)
