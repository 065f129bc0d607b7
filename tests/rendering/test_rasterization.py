"""`rasterization` itself: closed forms, modes, bad input, what density control reads. Kernel and twin alike."""

import builtins
import functools
import math

import pytest
import torch

from diffusion3d.rendering import kernel_name, rasterization


@pytest.fixture(params=["auto", "torch"])
def render(request):
    return functools.partial(rasterization, backend=request.param)


def single(opacity=0.8, scale=0.1, depth=2.0, focal=50.0, size=(21, 15)):
    width, height = size
    return {
        "means": torch.tensor([[0.0, 0.0, depth]]),
        "quats": torch.tensor([[1.0, 0.0, 0.0, 0.0]]),
        "scales": torch.full((1, 3), scale),
        "opacities": torch.tensor([opacity]),
        "colors": torch.tensor([[0.2, 0.5, 0.9]]),
        "viewmats": torch.eye(4)[None],
        "Ks": torch.tensor([[[focal, 0, width / 2], [0, focal, height / 2], [0, 0, 1]]]),
        "width": width,
        "height": height,
    }


def test_one_gaussian_has_its_closed_form(render):
    scene = single()
    image, alpha, meta = render(**scene)
    assert image.shape == (1, 15, 21, 3)
    assert alpha.shape == (1, 15, 21, 1)
    variance = (50 * 0.1 / 2) ** 2 + 0.3
    for row, column in ((7, 10), (7, 12), (4, 11)):
        distance = (column - 10) ** 2 + (row - 7) ** 2
        expected = 0.8 * math.exp(-0.5 * distance / variance)
        assert alpha[0, row, column].item() == pytest.approx(expected, rel=1e-5)
        torch.testing.assert_close(image[0, row, column], expected * scene["colors"][0], rtol=1e-5, atol=1e-6)
    assert meta["means2d"].tolist() == [[10.5, 7.5]]
    extent = math.sqrt(2 * math.log(255 * 0.8))
    assert meta["radii"].tolist() == [[math.ceil(extent * math.sqrt(variance))] * 2]


def test_the_nearer_gaussian_covers_the_farther_one(render):
    scene = single()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        scene[name] = scene[name].repeat(2, *[1] * (scene[name].ndim - 1))
    scene["means"][0, 2] = 3.0
    scene["colors"] = torch.tensor([[1.0, 0, 0], [0, 1.0, 0]])
    image, alpha, _ = render(**scene)
    torch.testing.assert_close(image[0, 7, 10], torch.tensor([0.2 * 0.8, 0.8, 0.0]), rtol=1e-5, atol=1e-6)
    assert alpha[0, 7, 10].item() == pytest.approx(1 - 0.2 * 0.2)


def test_depth_modes(render):
    scene = single()
    scene["backgrounds"] = torch.tensor([[0.1, 0.2, 0.3]])
    image, alpha, _ = render(**scene, render_mode="RGB+D")
    assert image.shape[-1] == 4
    torch.testing.assert_close(image[..., 3:], 2.0 * alpha)
    expected, _, _ = render(**scene, render_mode="RGB+ED")
    torch.testing.assert_close(expected[..., :3], image[..., :3])
    assert expected[0, 7, 10, 3].item() == pytest.approx(2.0)
    torch.testing.assert_close(render(**scene, render_mode="ED")[0], expected[..., 3:])
    torch.testing.assert_close(render(**scene, render_mode="D")[0], image[..., 3:])


def test_backgrounds_fill_what_is_open(render, make_scene):
    scene = make_scene(cameras=2)
    image, alpha, _ = render(**scene)
    backgrounds = torch.tensor([[0.1, 0.2, 0.3], [0.9, 0.8, 0.7]])
    over, _, _ = render(**scene, backgrounds=backgrounds)
    torch.testing.assert_close(over, image + (1 - alpha) * backgrounds[:, None, None])


@pytest.mark.parametrize("where", ["nothing", "behind", "outside", "faint", "not finite"])
@pytest.mark.parametrize("packed", [True, False])
def test_nothing_to_draw(render, make_scene, where, packed):
    scene = make_scene(count=0 if where == "nothing" else 5)
    if where == "behind":
        scene["means"][:, 2] = -9
    elif where == "outside":
        scene["means"][:, 0] = 50
    elif where == "faint":
        scene["opacities"][:] = 0.003
    elif where == "not finite":
        scene["means"][0], scene["quats"][1], scene["scales"][2] = torch.nan, torch.inf, torch.inf
        scene["opacities"][3:] = torch.nan
    for name in ("means", "quats", "scales", "opacities", "colors"):
        scene[name].requires_grad_(True)
    image, alpha, meta = render(**scene, backgrounds=torch.full((1, 3), 0.5), packed=packed)
    assert (image == 0.5).all()
    assert (alpha == 0).all()
    assert (meta["radii"] == 0).all()
    image.sum().backward()
    for name in ("means", "quats", "scales", "opacities", "colors"):
        assert (scene[name].grad == 0).all()


def test_what_is_not_finite_leaves_the_rest_alone(render, make_scene):
    scene = make_scene()
    kept = {k: v[3:] if k in ("means", "quats", "scales", "opacities", "colors") else v for k, v in scene.items()}
    scene["means"][0], scene["scales"][1], scene["opacities"][2] = torch.nan, torch.inf, torch.nan
    scene["means"].requires_grad_(True)
    image, _, _ = render(**scene)
    torch.testing.assert_close(image, render(**kept)[0])
    image.sum().backward()
    assert scene["means"].grad.isfinite().all()
    scene["viewmats"] = torch.full_like(scene["viewmats"], torch.nan)
    assert (render(**scene)[0] == 0).all()


def test_batches_are_scenes_and_cameras_one_by_one(render, make_scene):
    scene = make_scene(scenes=(2,), cameras=3, count=60)
    per_camera = scene["colors"][:, None] * torch.tensor([1.0, 0.5, 0.2])[:, None, None]
    image, alpha, _ = render(**{**scene, "colors": per_camera})
    assert image.shape == (2, 3, 40, 48, 3)
    for b in range(2):
        for c in range(3):
            one = {k: v[b] if torch.is_tensor(v) else v for k, v in scene.items()}
            one |= {"viewmats": one["viewmats"][c : c + 1], "Ks": one["Ks"][c : c + 1], "colors": per_camera[b, c]}
            expected, expected_alpha, _ = render(**one)
            torch.testing.assert_close(image[b, c], expected[0])
            torch.testing.assert_close(alpha[b, c], expected_alpha[0])


def test_packed_meta_lists_the_drawn_ones(render, make_scene, render_with_gradients):
    scene = make_scene(cameras=2, scenes=(2,))
    scene["means"][:, :50, 2] = -9
    image, _, packed, gradients = render_with_gradients(render, scene, absgrad=True)
    image2, _, full, gradients2 = render_with_gradients(render, scene, packed=False, absgrad=True)
    assert torch.equal(image, image2)
    where = (packed["batch_ids"], packed["camera_ids"], packed["gaussian_ids"])
    assert len(where[0]) == (full["radii"] > 0).all(-1).sum()
    for key in ("means2d", "radii", "depths", "conics", "opacities"):
        assert torch.equal(packed[key], full[key][where])
    assert torch.equal(gradients["means2d"], gradients2["means2d"][where])
    assert torch.equal(packed["means2d"].absgrad, full["means2d"].absgrad[where])
    assert torch.equal(gradients["means"], gradients2["means"])


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("absgrad", [True, False])
def test_the_default_strategy_steps_on_the_meta(render, make_scene, packed, absgrad):
    strategies = pytest.importorskip("gsplat.strategy")
    scene = make_scene(cameras=2)
    params = {k: torch.nn.Parameter(scene[k]) for k in ("means", "quats", "scales", "opacities", "colors")}
    params["scales"].data.log_()
    params["opacities"].data.logit_()
    optimizers = {name: torch.optim.Adam([p], 1e-3) for name, p in params.items()}
    strategy = strategies.DefaultStrategy(refine_start_iter=0, refine_every=1, grow_grad2d=1e-9, absgrad=absgrad)
    strategy.check_sanity(params, optimizers)
    state = strategy.initialize_state()
    rest = {k: scene[k] for k in ("viewmats", "Ks", "width", "height")}
    for step in range(3):
        values = {**params, "scales": params["scales"].exp(), "opacities": params["opacities"].sigmoid()}
        image, _, meta = render(**values, **rest, packed=packed, absgrad=absgrad)
        strategy.step_pre_backward(params, optimizers, state, step, meta)
        image.square().sum().backward()
        strategy.step_post_backward(params, optimizers, state, step, meta, packed=packed)
    assert len(params["means"]) > 200


def test_the_mcmc_strategy_steps_on_the_meta(render, make_scene, monkeypatch):
    strategies = pytest.importorskip("gsplat.strategy")
    from gsplat.cuda import _torch_impl
    from gsplat.strategy import ops

    monkeypatch.setattr(ops, "quat_scale_to_covar_preci", _torch_impl._quat_scale_to_covar_preci)
    scene = make_scene()
    params = {k: torch.nn.Parameter(scene[k]) for k in ("means", "quats", "scales", "opacities", "colors")}
    params["scales"].data.log_()
    params["opacities"].data[:100] = -8  # the strategy moves faint ones
    optimizers = {name: torch.optim.Adam([p], 1e-3) for name, p in params.items()}
    strategy = strategies.MCMCStrategy()
    strategy.check_sanity(params, optimizers)
    rest = {k: scene[k] for k in ("viewmats", "Ks", "width", "height")}
    values = {**params, "scales": params["scales"].exp(), "opacities": params["opacities"].sigmoid()}
    image, _, meta = render(**values, **rest)
    image.sum().backward()
    before = params["means"].detach().clone()
    strategy.step_post_backward(params, optimizers, strategy.initialize_state(), 0, meta, lr=1e-3)
    assert not torch.equal(params["means"], before)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            {"camera_model": "fisheye"},
            NotImplementedError,
            "camera_model='fisheye' works on CUDA only; on the CPU leave it at",
        ),
        ({"with_ut": True}, NotImplementedError, "with_ut=True works on CUDA only"),
        ({"covars": torch.zeros(5, 3, 3)}, NotImplementedError, "covars=.* works on CUDA only"),
        ({"render_mode": "rgb"}, ValueError, "render_mode='rgb' is unknown; choose RGB, D, ED"),
        ({"rasterize_mode": "fast"}, ValueError, "rasterize_mode='fast' is unknown"),
        ({"sh_degree": 4}, ValueError, "sh_degree=4 with 3 coefficients; degrees 0 to 3"),
        ({"width": 0}, ValueError, "width=0, height=40: an image needs at least one pixel"),
        ({"colors": torch.zeros(4, 3)}, ValueError, r"colors has shape \(4, 3\); expected \(5, 3\)"),
        ({"backgrounds": torch.zeros(1, 2)}, ValueError, r"backgrounds has shape \(1, 2\); expected \(1, 3\)"),
        ({"colors": torch.zeros(5, 3).double()}, ValueError, "colors is torch.float64 and means torch.float32"),
    ],
)
def test_bad_arguments_are_named_in_one_line(make_scene, change, error, message):
    scene = make_scene(count=5)
    if "sh_degree" in change:
        scene["colors"] = torch.zeros(5, 3, 3)
    with pytest.raises(error, match=message) as caught:
        undecorated(**{**scene, **change})
    assert "\n" not in str(caught.value)


undecorated = getattr(rasterization, "__wrapped__", rasterization)  # the tests' shape checks would speak first


def test_cuda_without_gsplat_says_what_to_install(monkeypatch):
    from diffusion3d.rendering import splats

    real = builtins.__import__

    def without_gsplat(name, *rest, **kwargs):
        if name == "gsplat":
            raise ImportError("No module named 'gsplat'")
        return real(name, *rest, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_gsplat)
    with pytest.raises(ImportError, match=r"splats on CUDA need the gsplat package: pip install 'diffusion3d\[cuda\]'"):
        splats._gsplat({})
    assert kernel_name("cuda") == "gsplat (cuda)"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("mode", ["RGB", "RGB+D", "RGB+ED"])
def test_cuda_agrees_with_the_cpu(make_scene, render_with_gradients, mode):
    scene = make_scene(count=500, cameras=2)
    image, alpha, _, gradients = render_with_gradients(rasterization, scene, render_mode=mode, packed=False)
    there = {k: v.cuda() if torch.is_tensor(v) else v for k, v in scene.items()}
    image2, alpha2, _, gradients2 = render_with_gradients(rasterization, there, render_mode=mode, packed=False)
    torch.testing.assert_close(image2.cpu(), image, rtol=1e-3, atol=1e-3)
    torch.testing.assert_close(alpha2.cpu(), alpha, rtol=1e-3, atol=1e-3)
    for name, gradient in gradients.items():
        assert (gradients2[name].cpu() - gradient).norm() <= 1e-2 * gradient.norm()
