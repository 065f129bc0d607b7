"""Density control that fits images: gsplat's class run through the adapter, and MCMC against its equations."""

import math
import sys

import pytest
import torch
from gsplat.strategy import DefaultStrategy as Gsplat

from choices import cameras
from diffusion3d.errors import UserError
from diffusion3d.rendering import rasterization
from diffusion3d.representations.base import SceneParameters
from diffusion3d.representations.gsplat import GaussianSplats
from diffusion3d.representations.strategies import MCMC, DefaultStrategy, relocated

RATES = dict.fromkeys(("means", "quats", "scales", "opacities", "colors"), 0.02)
SETTINGS = {"refine_start_iter": 1, "refine_every": 3, "grow_grad2d": 1e-4, "prune_opa": 0.05}


def fit(density, steps, count=80):
    """Gaussians drawn to a target picture."""
    splats = GaussianSplats(RATES, count=count, scale=0.15, opacity=0.2, density=density)
    raw = splats.init(1, torch.Generator().manual_seed(0))
    raw["opacities"][:, ::9] = -4.0
    owner = SceneParameters(splats, raw)
    optimizer = torch.optim.Adam(owner.param_groups(), eps=1e-15)
    views = cameras(1, 2)
    target = torch.rand(1, 2, 3, views.height, views.width, generator=torch.Generator().manual_seed(1))
    for step in range(steps):
        render = owner.scene().render(views)
        (render.rgb - target).square().mean().backward()
        optimizer.step()
        splats.density_control(owner, optimizer, render, step, 50)
        optimizer.zero_grad(set_to_none=True)
    return owner, optimizer, splats


def test_the_adapter_does_to_batched_tensors_what_gsplat_does_to_its_own():
    owner, _, _ = fit(DefaultStrategy(cap=10_000, **SETTINGS), 9)

    splats = GaussianSplats(RATES, count=80, scale=0.15, opacity=0.2)
    raw = splats.init(1, torch.Generator().manual_seed(0))
    raw["opacities"][:, ::9] = -4.0
    params = {name: torch.nn.Parameter(value[0]) for name, value in raw.items()}
    optimizers = {name: torch.optim.Adam([p], lr=0.02, eps=1e-15) for name, p in params.items()}
    strategy = Gsplat(**SETTINGS)
    memory = strategy.initialize_state()
    views = cameras(1, 2)  # seeds torch, as it does in `fit`
    target = torch.rand(1, 2, 3, views.height, views.width, generator=torch.Generator().manual_seed(1))
    for step in range(9):
        scene = splats.scene({name: p[None] for name, p in params.items()})
        image, _, meta = rasterization(
            scene.means[0], scene.quats[0], scene.scales[0], scene.opacities[0], scene.colors[0], views.viewmats[0],
            views.K[0], views.width, views.height, near_plane=views.near, far_plane=views.far, packed=False,
        )  # fmt: skip
        strategy.step_pre_backward(params, optimizers, memory, step, meta)
        (image.movedim(-1, 1) - target[0]).square().mean().backward()
        for optimizer in optimizers.values():
            optimizer.step()
        strategy.step_post_backward(params, optimizers, memory, step, meta)
        for optimizer in optimizers.values():
            optimizer.zero_grad(set_to_none=True)
    assert len(params["means"]) != 80
    for name, value in params.items():
        torch.testing.assert_close(owner.raw[name][0], value, atol=1e-4, rtol=1e-3)


def test_nothing_grows_beyond_the_cap():
    grown, _, _ = fit(DefaultStrategy(cap=10_000, **SETTINGS), 8)
    capped, _, _ = fit(DefaultStrategy(cap=80, **{**SETTINGS, "prune_opa": 1e-6}), 8)
    assert grown.raw["means"].shape[1] > 100 and capped.raw["means"].shape[1] == 80


@pytest.mark.parametrize("make", [lambda: DefaultStrategy(**SETTINGS), lambda: MCMC(start=1, every=2, stop=50)])
def test_a_checkpoint_between_two_steps_changes_nothing(make):
    """The step that changes the number comes after the checkpoint; without the state it would end otherwise."""
    finals = []
    for interrupted in (False, True):
        owner, optimizer, splats = fit(make(), 3)
        if interrupted:
            state = {name: value.clone() for name, value in splats.state().items()}
            splats.density = make()
            splats.load_state(state)
        torch.manual_seed(5)
        views = cameras(1, 2)
        for step in (3, 4):
            render = owner.scene().render(views)
            render.rgb.square().mean().backward()
            optimizer.step()
            splats.density_control(owner, optimizer, render, step, 50)
            optimizer.zero_grad(set_to_none=True)
        finals.append({name: value.detach() for name, value in owner.raw.items()})
    assert finals[0]["means"].shape[1] != 80
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


def test_gsplat_missing_or_a_wrong_setting_is_one_line(monkeypatch):
    with pytest.raises(UserError, match="unexpected keyword argument 'grow'"):
        DefaultStrategy(grow=1)
    monkeypatch.setitem(sys.modules, "gsplat.strategy", None)
    with pytest.raises(UserError, match="pip install 'gsplat"):
        DefaultStrategy()


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_coincident_copies_look_like_the_one_they_replace(copies):
    """Along the central ray: 1 - prod(1 - new) = old; and the accumulated profile has the same integral."""
    old, scale = torch.tensor([0.7]), torch.tensor([[0.3, 0.3, 0.3]])
    new, scales = relocated(old, scale, torch.tensor([copies]))
    assert 1 - (1 - new.item()) ** copies == pytest.approx(0.7, abs=1e-5)
    x = torch.linspace(-6, 6, 20001).double()

    def opacity(o, s, n):
        return 1 - (1 - o * torch.exp(-0.5 * (x / s) ** 2)) ** n

    before, after = opacity(0.7, 0.3, 1), opacity(new.item(), scales[0, 0].item(), copies)
    assert torch.trapezoid(after, x).item() == pytest.approx(torch.trapezoid(before, x).item(), rel=1e-3)


def test_the_dead_move_onto_the_living_and_the_number_grows_to_the_cap():
    density = MCMC(cap=85, start=2, every=2, stop=100, growth=0.5, noise=0.0)
    owner, optimizer, _ = fit(density, 3)
    assert owner.raw["means"].shape[1] == 85
    assert (owner.raw["opacities"].sigmoid() > density.min_opacity).all()
    for group in optimizer.param_groups:
        assert group["params"][0] is owner.raw[group["name"]]
        assert optimizer.state[group["params"][0]]["exp_avg"].shape == group["params"][0].shape


def test_noise_follows_the_shape_of_faint_gaussians_alone():
    splats = GaussianSplats(RATES, count=2000)
    raw = splats.init(1)
    raw["quats"] = torch.tensor([1.0, 0, 0, 0]).expand(1, 2000, 4).clone()
    raw["scales"] = torch.tensor([0.3, 0.1, 0.01]).log().expand(1, 2000, 3).clone()
    raw["opacities"] = torch.where(torch.arange(2000) < 1000, -20.0, 3.0)[None]
    owner = SceneParameters(splats, raw)
    before = owner.raw["means"].detach().clone()
    torch.manual_seed(0)
    MCMC().perturb(owner, 2.0)
    moved = (owner.raw["means"].detach() - before)[0]
    weight = 1 / (1 + math.exp(-100 * 0.005))
    spread = 2.0 * weight * torch.tensor([0.3, 0.1, 0.01]).square()
    torch.testing.assert_close(moved[:1000].std(0), spread, rtol=0.1, atol=0)
    assert moved[1000:].abs().max() < 1e-6
