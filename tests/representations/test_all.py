"""What every representation of the config group keeps."""

import io

import pytest
import torch
from plyfile import PlyData

from choices import SIZE, cameras, choices, chosen
from diffusion3d.rendering.render import EMPTY_ALPHA, composite
from diffusion3d.representations.base import Representation, Scene, SceneParameters
from diffusion3d.tasks.build import build

VIEWS = 2


@pytest.fixture(params=choices("representation"))
def representation(request):
    return build(chosen("representation", request.param))


def raw_of(representation, scenes=1, seed=0):
    """Raw tensors away from their starting point, where the first ones are all alike."""
    generator = torch.Generator().manual_seed(seed)
    raw = representation.init(scenes, generator)
    for name in representation.learning_rates:
        raw[name] = raw[name] + 0.1 * torch.randn(raw[name].shape, generator=generator)
    return raw


def test_init_is_a_function_of_its_generator(representation):
    assert isinstance(representation, Representation)
    raws = [representation.init(2, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6)]
    assert set(raws[0]) >= set(representation.learning_rates)
    for value in raws[0].values():
        assert value.shape[0] == 2 and value.dtype == torch.float32 and torch.isfinite(value).all()
    assert all(torch.equal(raws[0][name], raws[1][name]) for name in raws[0])
    assert any(not torch.equal(raws[0][name], raws[2][name]) for name in raws[0])


def test_init_draws_from_the_global_generator_otherwise(representation):
    raws = []
    for _ in range(2):
        torch.manual_seed(7)
        raws.append(representation.init(1))
    assert all(torch.equal(raws[0][name], raws[1][name]) for name in raws[0])


@pytest.mark.parametrize("scenes", [1, 2])
def test_a_render_keeps_the_contract(representation, scenes):
    scene = representation.scene(raw_of(representation, scenes))
    assert isinstance(scene, Scene)
    views = cameras(scenes, VIEWS)
    render = scene.render(views)
    shape = (SIZE, SIZE)
    assert render.rgb.shape == (scenes, VIEWS, 3, *shape)
    assert render.alpha.shape == render.depth.shape == (scenes, VIEWS, 1, *shape)
    for picture in (render.rgb, render.alpha, render.depth):
        assert picture.dtype == torch.float32 and torch.isfinite(picture).all()
    assert render.alpha.min() >= 0 and render.alpha.max() <= 1 + 1e-5 and render.alpha.max() > 0.3
    assert render.rgb.min() >= 0 and (render.rgb <= render.alpha + 1e-4).all(), "premultiplied"
    assert (render.depth[render.alpha < EMPTY_ALPHA] == 0).all()
    seen = render.depth[render.alpha > 0.1]
    assert seen.min() > 3 - 3**0.5 and seen.max() < 3 + 3**0.5
    over = composite(render, torch.ones(scenes, 3))
    assert over.max() <= 1 + 1e-4


def test_scenes_of_a_batch_are_those_rendered_alone(representation):
    raw, views = raw_of(representation, 2), cameras(2, VIEWS)
    both = representation.scene(raw).render(views)
    for k in range(2):
        one = representation.scene({n: v[k : k + 1] for n, v in raw.items()}).render(
            views.select(scenes=slice(k, k + 1))
        )
        torch.testing.assert_close(both.rgb[k : k + 1], one.rgb, atol=1e-5, rtol=0)
        torch.testing.assert_close(both.depth[k : k + 1], one.depth, atol=1e-4, rtol=0)


def test_a_subset_of_pixels_is_the_whole_picture_there(representation):
    scene, views = representation.scene(raw_of(representation)), cameras(1, VIEWS)
    pixels = torch.randint(SIZE * SIZE, (1, VIEWS, 50), generator=torch.Generator().manual_seed(1))
    some, whole = scene.render(views, pixels=pixels), scene.render(views)
    for name in ("rgb", "alpha", "depth"):
        full = getattr(whole, name).flatten(3)
        expected = torch.stack([full[0, v][:, pixels[0, v]] for v in range(VIEWS)])[None]
        torch.testing.assert_close(getattr(some, name), expected)


def test_an_unknown_shading_is_refused(representation):
    scene = representation.scene(raw_of(representation))
    with pytest.raises(ValueError, match="shading"):
        scene.render(cameras(1, VIEWS), shading="no such shading")


@pytest.mark.parametrize("name", choices("representation"))
def test_what_a_choice_provides_its_scenes_do(name):
    node = chosen("representation", name)
    representation = build(node)
    scene, views = representation.scene(raw_of(representation)), cameras(1, VIEWS)
    sources = torch.ones(1, VIEWS, getattr(representation, "sources", 1), dtype=torch.bool)
    for capability, asked in (("sources", {"sources": sources}), ("normals", {"shading": "lambertian"})):
        if capability in node.provides:
            render = scene.render(views, **asked)
            assert torch.isfinite(render.rgb).all()
            if capability == "normals":
                length = render.normals.norm(dim=2, keepdim=True)[render.alpha > EMPTY_ALPHA]
                torch.testing.assert_close(length, torch.ones_like(length), atol=1e-3, rtol=0)
        else:
            with pytest.raises(ValueError, match=next(iter(asked))):
                scene.render(views, **asked)
    assert ("ray_weights" in node.provides) == ("entropy" in scene.render(views).extras)


def test_every_raw_tensor_gets_a_gradient(representation):
    owner = SceneParameters(representation, raw_of(representation))
    render = owner.scene().render(cameras(1, VIEWS))
    target = torch.rand(render.rgb.shape, generator=torch.Generator().manual_seed(2))
    ((render.rgb - target).square().sum() + render.alpha.square().sum() + 0.1 * render.depth.square().sum()).backward()
    for name in representation.learning_rates:
        gradient = owner.raw[name].grad
        assert torch.isfinite(gradient).all() and (gradient != 0).any(), name
    groups = owner.param_groups()
    assert {group["name"] for group in groups} == set(representation.learning_rates)
    assert all(owner.raw[name].requires_grad == (name in representation.learning_rates) for name in owner.raw)
    assert all(group["lr"] == representation.learning_rates[group["name"]] > 0 for group in groups)


def test_gradient_descent_finds_a_picture(representation):
    owner, views = SceneParameters(representation, raw_of(representation)), cameras(1, VIEWS)
    with torch.no_grad():
        target = representation.scene(raw_of(representation, seed=9)).render(views).rgb
    optimizer = torch.optim.Adam(owner.param_groups())
    losses = []
    for _ in range(30):
        loss = (owner.scene().render(views).rgb - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_density_control_comes_back_from_its_state(representation):
    """Two owners, one of which went through a checkpoint, go on alike."""
    views = cameras(1, VIEWS)

    def go(owner, rep, steps):
        optimizer = torch.optim.SGD(owner.param_groups())
        for step in steps:
            render = owner.scene().render(views)
            render.rgb.square().sum().backward()
            rep.density_control(owner, optimizer, render, step, total)
            optimizer.zero_grad()

    start, total = 112, 448  # a step at which splats are split and fields look where they are
    owner = SceneParameters(representation, raw_of(representation))
    go(owner, representation, range(start - 2, start))
    state = {name: value.clone() for name, value in representation.state().items()}
    other = SceneParameters(representation, {name: value.detach().clone() for name, value in owner.raw.items()})
    finals = []
    for each in (owner, other):
        representation.load_state(state)
        assert all(torch.equal(representation.state()[name], value) for name, value in state.items())
        torch.manual_seed(0)
        go(each, representation, [start])
        finals.append({name: value.detach() for name, value in each.raw.items()})
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[0])


@pytest.mark.parametrize(
    "name", [n for n in choices("representation") if "elements" in chosen("representation", n).provides]
)
def test_owners_take_tensors_of_other_sizes(name):
    representation = build(chosen("representation", name))
    owner = SceneParameters(representation, raw_of(representation))
    smaller = {name: value[:, : value.shape[1] // 2] for name, value in raw_of(representation, seed=4).items()}
    owner.load_raw(smaller)
    assert all(torch.equal(owner.raw[name], value) for name, value in smaller.items())
    assert torch.isfinite(owner.scene().render(cameras()).rgb).all()


def test_an_exported_ply_says_what_is_rendered(representation):
    """Read by plyfile, activated by the formulas of Kerbl et al.'s release, it is the scene."""
    raw = raw_of(representation, 2)
    files = representation.export(raw)
    if "scene.ply" not in files:
        pytest.skip("this representation exports no splats")
    vertices = PlyData.read(io.BytesIO(files["scene.ply"]))["vertex"]

    def columns(*names):
        return torch.stack([torch.tensor(vertices[name].copy()) for name in names], -1)

    scene = representation.scene(raw)
    assert len(vertices) == scene.means.shape[1]
    assert all(vertices[name].dtype == "float32" for name in ("x", "opacity", "rot_3"))
    torch.testing.assert_close(columns("x", "y", "z"), scene.means[0])
    torch.testing.assert_close(columns("scale_0", "scale_1", "scale_2").exp(), scene.scales[0])
    torch.testing.assert_close(1 / (1 + (-columns("opacity")[:, 0]).exp()), scene.opacities[0])
    colour = 0.5 + columns("f_dc_0", "f_dc_1", "f_dc_2") / (2 * torch.pi**0.5)
    torch.testing.assert_close(colour, scene.colors[0], atol=1e-5, rtol=1e-5)
    rotation = columns("rot_0", "rot_1", "rot_2", "rot_3")
    torch.testing.assert_close(rotation / rotation.norm(dim=-1, keepdim=True), scene.quats[0])
    order = [p.name for p in vertices.properties]
    assert order[:6] == ["x", "y", "z", "nx", "ny", "nz"] and order[-4:] == ["rot_0", "rot_1", "rot_2", "rot_3"]
