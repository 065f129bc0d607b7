"""Image-based planes: what a source camera sees and what it may not tell."""

import torch

from choices import cameras, chosen
from diffusion3d.representations.ib_planes import OCTAVES, IBPlanes
from diffusion3d.tasks.build import build
from diffusion3d.views import PosedViews


def representation() -> IBPlanes:
    return build(chosen("representation", "ib_planes"))


def test_a_point_reads_the_pixel_that_it_projects_to():
    planes = representation()
    raw = planes.init(1, torch.Generator().manual_seed(0))
    views = cameras(1, 3, size=planes.size)
    raw |= {"c2w": views.c2w, "K": views.K / planes.size}
    row, column, view = 5, 9, 1
    rays_o, rays_d = views.rays()
    point = (rays_o + 2.9 * rays_d)[0, view, row, column]
    found = planes._look(raw, point[None, None])[0, view, 0]
    torch.testing.assert_close(found[: planes.features], raw["maps"][0, view, :, row, column], atol=1e-4, rtol=0)
    distance = (point - views.origins[0, view]).norm()
    waves = distance.log() * 2.0 ** torch.arange(OCTAVES)
    torch.testing.assert_close(found[-1 - 2 * OCTAVES : -1], torch.cat([waves.sin(), waves.cos()]), atol=1e-4, rtol=0)
    assert found[-1] == 1
    behind = planes._look(raw, (rays_o - rays_d)[0, view, row, column][None, None])[0, view, 0]
    assert (behind[: planes.features] == 0).all() and behind[-1] == 0


def test_the_polar_map_closes_behind_the_camera():
    planes = representation()
    raw = planes.init(1, torch.Generator().manual_seed(0))
    centre, axes = raw["c2w"][0, 0, :3, 3], raw["c2w"][0, 0, :3, :3]
    around = slice(planes.features, 2 * planes.features)
    left, right = ((centre + axes @ torch.tensor([x, 0.1, -1.0]))[None, None] for x in (-1e-4, 1e-4))
    found = [planes._look(raw, point)[0, 0, 0, around] for point in (left, right)]
    torch.testing.assert_close(found[0], found[1], atol=1e-3, rtol=0)
    width, height = raw["polar"].shape[-1], raw["polar"].shape[-2]
    row, column = height // 2, width // 4
    azimuth = ((column + 0.5) / width * 2 - 1) * torch.pi
    elevation = torch.tensor(((row + 0.5) / height * 2 - 1) * torch.pi / 2)
    direction = torch.stack(
        [
            elevation.cos() * torch.sin(torch.tensor(azimuth)),
            elevation.sin(),
            elevation.cos() * torch.cos(torch.tensor(azimuth)),
        ]
    )
    cell = planes._look(raw, (centre + 2 * axes @ direction)[None, None])[0, 0, 0, around]
    torch.testing.assert_close(cell, raw["polar"][0, 0, :, row, column], atol=1e-3, rtol=0)


def test_a_view_rendered_without_its_own_maps_does_not_depend_on_them():
    planes = representation()
    raw = planes.init(1, torch.Generator().manual_seed(0))
    views = cameras(1, 3)
    others = ~torch.eye(3, dtype=torch.bool)[None]
    before, told = (planes.scene(raw).render(views, sources=s).rgb for s in (others, torch.ones_like(others)))
    changed = raw | {name: raw[name].clone() for name in ("maps", "polar")}
    for name in ("maps", "polar"):
        changed[name][:, 0] += 1.0
    after, told_after = (planes.scene(changed).render(views, sources=s).rgb for s in (others, torch.ones_like(others)))
    assert torch.equal(before[:, 0], after[:, 0])
    assert not torch.equal(before[:, 1], after[:, 1]) and not torch.equal(told[:, 0], told_after[:, 0])


def test_the_others_are_all_but_the_camera_itself():
    planes, views = representation(), cameras(1, 9)
    raw = planes.init(1, torch.Generator().manual_seed(0), PosedViews(views))
    expected = torch.ones(9, 3, dtype=torch.bool)
    expected[[0, 3, 6], [0, 1, 2]] = False
    assert torch.equal(planes.others(raw, views)[0], expected)


def test_sources_are_views_of_what_is_fitted():
    planes, views = representation(), cameras(2, 9)
    raw = planes.init(2, torch.Generator().manual_seed(0), PosedViews(views))
    assert torch.equal(raw["c2w"], views.c2w[:, [0, 3, 6]])
    torch.testing.assert_close(raw["K"] * torch.tensor([[views.width], [views.height], [1.0]]), views.K[:, [0, 3, 6]])
    assert planes.init(1, None, PosedViews(cameras(1, 2)))["maps"].shape[1] == 2
