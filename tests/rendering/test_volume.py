"""Volume rendering against closed forms and a plain-torch loop."""

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

    def soft(points, sources=None):
        return 200 * torch.sigmoid(60 * (RADIUS - points.norm(dim=-1))), torch.full_like(points, COLOUR)

    render = VolumeRenderer(samples=300)(soft, cameras, shading="normal")
    o, d = cameras.rays()
    surface = F.normalize(o + render.depth[:, :, 0, ..., None] * d, dim=-1).movedim(-1, 2)
    inner = chords(cameras)[0] > 0.5
    cosine = (surface * render.normals).sum(2)[inner]
    assert cosine.min() > 0.97
    torch.testing.assert_close(render.rgb, 0.5 * (render.normals * 1 + 1) * render.alpha, atol=0.1, rtol=0)
    assert render.extras["facing_away"].max() < 0.05


def test_shading_follows_the_light_at_the_camera():
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
