"""Shapes with known measures."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.metrics.geometry import bounding_box, plane_residual, silhouette_iou, unproject


def test_iou_of_shifted_squares():
    a, b = torch.zeros(8, 8, dtype=torch.bool), torch.zeros(8, 8, dtype=torch.bool)
    a[0:4, 0:4] = True
    b[2:6, 0:4] = True
    empty = torch.zeros_like(a)
    found = silhouette_iou(torch.stack([a, a, empty, a]), torch.stack([a, b, empty, empty]))
    assert found.tolist() == pytest.approx([1, 1 / 3, 1, 0])


def test_unprojected_depth_lies_on_the_plane_it_came_from():
    cameras = orbit(torch.tensor([[0.0, 90.0]]), torch.zeros(1, 2), 3.0, 40.0, 6, 6)
    depth, alpha = torch.full((1, 2, 1, 6, 6), 3.0), torch.ones(1, 2, 1, 6, 6)
    alpha[:, 1, :, :, :3] = 0.5
    front, side = unproject(depth, alpha, cameras)
    assert front.shape == (36, 3) and side.shape == (18, 3)
    assert front[:, 0].abs().max() < 1e-5 and side[:, 1].abs().max() < 1e-5
    # 3 world units away, fov 40: pixel centres reach 5/6 of tan(20°) * 3 to either side
    assert float(front[:, 2].max()) == pytest.approx(3 * 0.3639702 * 5 / 6, rel=1e-4)


def test_bounding_box_ignores_outliers():
    points = torch.stack(torch.meshgrid(*[torch.linspace(-1, 1, 11)] * 3, indexing="ij"), -1).reshape(-1, 3)
    points = points * torch.tensor([1.0, 2.0, 0.5])
    stray = torch.tensor([[50.0, 50.0, 50.0]])
    assert bounding_box(torch.cat([points, stray])).tolist() == pytest.approx([2, 4, 1])
    assert bounding_box(torch.cat([points, stray]), outliers=0)[0] == 51
    with pytest.raises(ValueError, match="no points"):
        bounding_box(torch.zeros(0, 3))


def test_plane_residual_of_a_plane_and_of_a_hemisphere():
    torch.manual_seed(0)
    flat = torch.randn(500, 2) @ torch.randn(2, 3) + torch.randn(3)
    assert plane_residual(flat) < 1e-6
    disc = torch.rand(200_000, 2) * 2 - 1
    disc = disc[disc.square().sum(1) < 1]
    dome = torch.cat([disc, (1 - disc.square().sum(1, keepdim=True)).sqrt()], 1)
    assert plane_residual(dome) == pytest.approx(72**-0.5, rel=0.01)
    with pytest.raises(ValueError, match="four points"):
        plane_residual(flat[:3])
