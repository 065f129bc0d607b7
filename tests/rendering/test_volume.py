"""Volume rendering against closed forms and a plain-torch loop."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from diffusion3d.cameras import orbit
from diffusion3d.rendering.volume import SHADINGS, VolumeRenderer

RADIUS, SIGMA, COLOUR = 0.6, 5.0, 0.25


def views(scenes=1, size=24):
    azimuth = torch.tensor([[20.0, 140.0]]).expand(scenes, -1)
    return orbit(azimuth, torch.tensor([[10.0, -40.0]]).expand(scenes, -1), 3.0, 40.0, size, size)


def ball(points, sources=None):
    """A homogeneous ball."""
    inside = points.norm(dim=-1) < RADIUS
    return SIGMA * inside.to(points.dtype), torch.full_like(points, COLOUR)


def soft(points, sources=None):
    """An opaque ball whose density has a gradient."""
    return 200 * torch.sigmoid(60 * (RADIUS - points.norm(dim=-1))), torch.full_like(points, COLOUR)


def smooth(points, sources=None):
    sigma = 8 * torch.exp(-4 * points.square().sum(-1)) * (1.5 + torch.sin(5 * points[..., 0]))
    return sigma, 0.5 + 0.4 * torch.sin(3 * points + 1)


def chords(cameras):
    """Length of every pixel's ray inside the ball, and the depth of the middle of it."""
    o, d = cameras.rays()
    unit = F.normalize(d, dim=-1)
    along = (o * unit).sum(-1)
    half = (along.square() - o.square().sum(-1) + RADIUS**2).clamp(min=0).sqrt()
    return 2 * half, -along / d.norm(dim=-1)


def test_a_homogeneous_ball_follows_beer_and_lambert():
    cameras = views()
    render = VolumeRenderer(samples=700)(ball, cameras)
    length, middle = chords(cameras)
    alpha = 1 - torch.exp(-SIGMA * length)
    torch.testing.assert_close(render.alpha[:, :, 0], alpha, atol=1e-2, rtol=0)
    torch.testing.assert_close(render.rgb, COLOUR * render.alpha.expand(-1, -1, 3, -1, -1), atol=1e-5, rtol=0)
    deep = length > 0.3
    assert (render.depth[:, :, 0][deep] < middle[deep]).all(), "more is seen of the front half"


def test_nerfacc_composites_as_the_equations_say():
    """Against a loop over samples in float64 (Mildenhall et al. 2020, equation 3)."""
    cameras, samples = views(size=12), 40
    render = VolumeRenderer(samples=samples)(smooth, cameras)
    o, d = (x.double() for x in cameras.rays())
    first, second = (-1 - o) / d, (1 - o) / d
    near, far = torch.minimum(first, second).amax(-1), torch.maximum(first, second).amin(-1)
    step = (far - near).clamp(min=0) / samples
    left, rgb, depth, second_moment = (
        torch.ones_like(near),
        torch.zeros_like(d),
        torch.zeros_like(near),
        torch.zeros_like(near),
    )
    for i in range(samples):
        t = near + (i + 0.5) * step
        sigma, colour = smooth(o + t[..., None] * d)
        alpha = 1 - torch.exp(-sigma * step * d.norm(dim=-1))
        rgb, depth = rgb + (left * alpha)[..., None] * colour, depth + left * alpha * t
        second_moment = second_moment + left * alpha * t**2
        left = left * (1 - alpha)
    torch.testing.assert_close(render.rgb.double(), rgb.movedim(-1, 2), atol=1e-5, rtol=0)
    torch.testing.assert_close(render.alpha.double()[:, :, 0], 1 - left, atol=1e-5, rtol=0)
    hit = left < 0.9
    torch.testing.assert_close(render.depth.double()[:, :, 0][hit], (depth / (1 - left))[hit], atol=1e-4, rtol=0)
    variance = second_moment / (1 - left) - (depth / (1 - left)) ** 2
    torch.testing.assert_close(render.depth_variance.double()[:, :, 0][hit], variance[hit], atol=1e-5, rtol=1e-4)


def test_normals_of_a_ball_point_outwards():
    cameras = views()
    render = VolumeRenderer(samples=300)(soft, cameras, shading="normal")
    o, d = cameras.rays()
    surface = F.normalize(o + render.depth[:, :, 0, ..., None] * d, dim=-1).movedim(-1, 2)
    inner = chords(cameras)[0] > 0.5
    cosine = (surface * render.normals).sum(2)[inner]
    assert cosine.min() > 0.97
    torch.testing.assert_close(render.rgb, 0.5 * (render.normals * 1 + 1) * render.alpha, atol=0.1, rtol=0)
    assert render.extras["facing_away"].max() < 0.05


def front(count, size=1):
    """The same view of the front of the cube `count` times."""
    return orbit(torch.zeros(1, count), torch.zeros(1, count), 3.0, 40.0, size, size)


def brightness(normal, cameras, shading="textureless", training=False):
    """Of a slope whose normal is `normal` (right, down, along the view): [views, pixels]."""
    uphill = -(cameras.c2w[0, 0, :3, :3] @ torch.tensor(normal))

    def slope(points, sources=None):
        return 50 + 9 * points @ uphill, torch.full_like(points, COLOUR)

    render = VolumeRenderer(samples=4)(slope, cameras, shading=shading, training=training)
    return (render.rgb[0, :, 0] / render.alpha[0, :, 0]).flatten(1)


@pytest.mark.parametrize("normal", [[0.0, 0.0, -1.0], [0.6, 0.0, -0.8], [-0.8, 0.6, 0.0], [0.0, 0.0, 1.0]])
def test_light_falls_from_the_camera(normal):
    """Brightness is 0.1 + 0.9 of the cosine between the normal and the direction to the camera."""
    cameras = front(1, size=9)
    d = F.normalize(cameras.rays()[1][0, 0], dim=-1)
    cosine = -(d @ (cameras.c2w[0, 0, :3, :3] @ torch.tensor(normal))).flatten()[None]
    expected = 0.1 + 0.9 * cosine.clamp(min=0)
    torch.testing.assert_close(brightness(normal, cameras), expected, atol=2e-3, rtol=0)
    torch.testing.assert_close(brightness(normal, cameras, "lambertian"), COLOUR * expected, atol=2e-3, rtol=0)


def test_training_draws_the_light_around_the_camera():
    torch.manual_seed(0)
    ambient = brightness([0.0, 0.0, 1.0], front(4000), training=True)  # faces away
    assert ambient.min() >= 0.1 and ambient.max() <= 1
    assert ambient.mean().item() == pytest.approx(0.55, abs=0.02)
    assert ambient.std().item() == pytest.approx(0.9 / 12**0.5, abs=0.02)
    generator = np.random.default_rng(0)
    light = np.array([0.0, 0.0, -2.0]) + generator.normal(
        size=(100_000, 3)
    )  # from the front of the cube, which is opaque
    share = generator.uniform(0.1, 1, 100_000)
    for normal in ([0.0, 0.0, -1.0], [1.0, 0.0, 0.0], [0.0, -1.0, 0.0]):
        cosine = (light @ np.array(normal) / np.linalg.norm(light, axis=1)).clip(0)
        expected, found = share + (1 - share) * cosine, brightness(normal, front(4000), training=True)
        assert found.mean().item() == pytest.approx(expected.mean(), abs=0.02)
        assert found.std().item() == pytest.approx(expected.std(), abs=0.02)


def test_a_view_has_one_light_of_the_global_generator():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(brightness([0.0, 0.0, 1.0], front(3, size=4), training=True))
    one, same, other = found
    torch.testing.assert_close(one, one[:, :1].expand_as(one))
    assert one[:, 0].std() > 0.01
    assert torch.equal(one, same) and not torch.equal(one, other)


@pytest.mark.parametrize(("shading", "training"), [("lambertian", False), ("normal", True), ("albedo", True)])
def test_light_is_drawn_only_where_it_falls_in_training(shading, training):
    torch.manual_seed(0)
    VolumeRenderer(samples=4)(smooth, views(size=4), shading=shading, training=training)
    after = torch.get_rng_state()
    torch.manual_seed(0)
    if training:
        torch.rand(1, 2 * 4 * 4, 1)  # jitters the samples
    assert torch.equal(torch.get_rng_state(), after)


@pytest.mark.parametrize("tilt", [0.0, 0.7])
def test_a_ray_of_two_samples_by_hand(tilt):
    """Samples half a unit before and behind the origin, whose normals face away at an angle, and towards the camera."""
    cameras = front(1)
    right, _, along = cameras.c2w[0, 0, :3, :3].unbind(1)
    angle, strength = torch.tensor(tilt, requires_grad=True), torch.tensor(1.0, requires_grad=True)

    def field(points, sources=None):
        x, z = points @ right, points @ along
        down = 1 - 0.5 * ((z + 0.5) * angle.cos() + x * angle.sin())
        return strength * torch.where(z < 0, down, 1.5 + z), torch.full_like(points, COLOUR)

    render = VolumeRenderer(samples=2)(field, cameras, shading="normal")
    w = [1 - math.exp(-1), math.exp(-1) * (1 - math.exp(-2))]
    entropy = sum(-p * math.log(p) - (1 - p) * math.log(1 - p) for p in w) / 2
    assert render.extras["entropy"].item() == pytest.approx(entropy, rel=1e-4)
    facing_away = render.extras["facing_away"]
    assert facing_away.item() == pytest.approx(w[0] * math.cos(tilt) ** 2, rel=1e-4)
    facing_away.backward()
    assert angle.grad.item() == pytest.approx(-w[0] * math.sin(2 * tilt), abs=1e-4), "normals are pulled at"
    assert strength.grad.item() == pytest.approx(0, abs=1e-4), "weights are not"


def test_shadings_are_of_their_kind():
    cameras = views()
    shades = {name: VolumeRenderer(samples=64)(smooth, cameras, shading=name).rgb for name in SHADINGS}
    torch.testing.assert_close(shades["albedo"], VolumeRenderer(samples=64)(smooth, cameras).rgb)
    grey = shades["textureless"]
    torch.testing.assert_close(grey, grey.mean(2, keepdim=True).expand_as(grey), atol=1e-5, rtol=0)
    assert (shades["lambertian"] <= shades["albedo"] + 1e-5).all()
    with pytest.raises(ValueError, match="shading 'toon' is unknown; choose albedo"):
        VolumeRenderer()(smooth, cameras, shading="toon")


@pytest.mark.parametrize("training", [False, True])
def test_parts_that_fit_into_memory_give_the_whole(training):
    cameras, results = views(2), []
    for chunk in (10**9, 30_000, 3000):
        torch.manual_seed(0)
        scale = torch.tensor(1.0, requires_grad=True)
        field = lambda p, s, scale=scale: (scale * smooth(p)[0], smooth(p)[1])  # noqa: E731
        render = VolumeRenderer(samples=32, chunk=chunk)(field, cameras, training=training)
        render.rgb.square().sum().backward()
        results.append((render.rgb.detach(), render.depth.detach(), scale.grad))
    for whole, kept, again in zip(*results, strict=True):
        torch.testing.assert_close(kept, whole)
        torch.testing.assert_close(again, whole)


def test_training_jitters_and_its_mean_is_the_picture():
    cameras = views(size=8)
    torch.manual_seed(0)
    many = torch.stack([VolumeRenderer(samples=48)(smooth, cameras, training=True).rgb for _ in range(100)])
    fine = VolumeRenderer(samples=2000)(smooth, cameras).rgb
    assert not torch.equal(many[0], many[1])
    assert (many.mean(0) - fine).abs().max() < 0.3 * (many - fine).abs().max()


def test_empty_space_is_skipped_and_nothing_changes():
    side = (torch.arange(20) + 0.5) / 10 - 1
    centres = torch.stack(torch.meshgrid(side, side, side, indexing="ij"), -1)
    occupied = centres.norm(dim=-1) < RADIUS + 0.1
    seen = []

    def counting(points, sources=None):
        seen.append(points.shape[1])
        return ball(points)

    cameras, renderer = views(), VolumeRenderer(samples=64)
    whole, some = renderer(counting, cameras), renderer(counting, cameras, occupied=occupied)
    for name in ("rgb", "alpha", "depth"):
        torch.testing.assert_close(getattr(some, name), getattr(whole, name), atol=1e-6, rtol=0)
    assert seen[1] < 0.5 * seen[0]
    nothing = renderer(counting, cameras, occupied=torch.zeros_like(occupied))
    assert (nothing.alpha == 0).all() and (nothing.depth == 0).all()


def test_sources_reach_the_points_of_their_view():
    cameras = views()
    sources = torch.tensor([[[True, False, True], [False, True, True]]])

    def field(points, seen):
        count = points.shape[1] // 2
        assert (seen[:, :count] == sources[:, :1]).all() and (seen[:, count:] == sources[:, 1:]).all()
        return ball(points)

    assert VolumeRenderer(samples=16)(field, cameras, sources=sources).alpha.max() > 0.5
