import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.views import PosedViews


def views_of(size=4):
    generator = torch.Generator().manual_seed(0)
    alpha = torch.rand(2, 3, 1, size, size, generator=generator)
    azimuth = torch.tensor([[0.0, 90, 180], [10, 100, 190]])
    return PosedViews(
        orbit(azimuth, torch.zeros(2, 3), 3.0, 40.0, size, size),
        images=alpha * torch.rand(2, 3, 3, size, size, generator=generator),
        alpha=alpha,
        depth=torch.rand(2, 3, 1, size, size, generator=generator),
        mask=alpha > 0.5,
        captions=("first", "second"),
    )


def test_over_a_background():
    views, red = views_of(), torch.tensor([[1.0, 0, 0], [0, 0, 1.0]])
    over = views.over(red)
    i = (1, 2, slice(None), 3, 0)
    alpha = views.alpha[1, 2, 0, 3, 0]
    assert torch.allclose(over[i], views.images[i] + (1 - alpha) * torch.tensor([0, 0, 1.0]))
    assert torch.equal(PosedViews(views.cameras, views.images).over(red), views.images)
    with pytest.raises(ValueError, match="no images"):
        PosedViews(views.cameras).over(red)


def test_select_takes_scenes_and_views_of_every_field():
    views = views_of()
    some = views.select(torch.tensor([1]), torch.tensor([2, 0]))
    assert some.cameras.shape == (1, 2) and some.captions == ("second",)
    assert torch.equal(some.cameras.c2w[0], views.cameras.c2w[1, [2, 0]])
    for name in ("images", "alpha", "depth", "mask"):
        assert torch.equal(getattr(some, name), getattr(views, name)[1:, [2, 0]])
    assert some.normals is None
    assert views.select(views=slice(1)).captions == views.captions


def test_resize_averages_pixels_and_keeps_the_cameras_in_step():
    views = views_of(4)
    small = views.resize(2)
    expected = views.images.unfold(3, 2, 2).unfold(4, 2, 2).mean((5, 6))
    assert torch.allclose(small.images, expected, atol=1e-6) and small.alpha.shape == (2, 3, 1, 2, 2)
    point = torch.tensor([[[0.1, 0.2, 0.3]]]).expand(2, 1, 3)
    assert torch.allclose(small.cameras.project(point)[0] * 2, views.cameras.project(point)[0], atol=1e-5)
    assert small.depth is None and small.captions == views.captions
    assert views.resize(4) is views
    white = torch.ones(2, 3)
    assert torch.allclose(small.over(white), PosedViews(views.cameras, views.over(white)).resize(2).images, atol=1e-6)


def test_to_moves_every_field():
    moved = views_of().to("meta")
    for tensor in (moved.images, moved.alpha, moved.depth, moved.mask, moved.cameras.c2w, moved.cameras.K):
        assert tensor.device.type == "meta"
    assert moved.captions == ("first", "second")
