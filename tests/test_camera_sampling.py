import pytest
import torch

from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import UserError


def test_views_are_evenly_spaced_from_a_uniform_start():
    torch.manual_seed(0)
    cameras = Orbit(16, views=5, elevation=(10, 30), distance=2.5).sample(4000)
    gaps = cameras.azimuth.diff(dim=1) % 360
    assert torch.allclose(gaps, torch.full_like(gaps, 72.0), atol=1e-2)
    starts = cameras.azimuth[:, 0] % 360
    assert torch.histc(starts, 4, 0, 360).sub(1000).abs().max() < 120
    elevation = cameras.elevation
    assert elevation.min() >= 9.99 and elevation.max() <= 30.01
    assert elevation.mean().item() == pytest.approx(20, abs=0.2)
    assert elevation.std(1).mean() > 3, "every view draws its own elevation"
    assert torch.allclose(cameras.origins.norm(dim=-1), torch.tensor(2.5))


def test_another_number_of_views_is_evenly_spaced_too():
    gaps = Orbit(16, views=4).sample(3, views=8).azimuth.diff(dim=1) % 360
    assert torch.allclose(gaps, torch.full((3, 7), 45.0), atol=1e-2)


def test_field_of_view():
    camera = Orbit(40, fov=90.0).turntable(1)
    assert camera.K[0, 0, 0, 0].item() == pytest.approx(20)
    assert camera.K[0, 0, 1, 2].item() == 20


def test_a_turntable_turns_and_climbs():
    path = Orbit(16).turntable(4, 20, (0.0, 40.0), turns=2.0)
    assert torch.allclose(path.azimuth[0] % 360, torch.tensor([0.0, 180, 0, 180]), atol=1e-3)
    assert torch.allclose(path.elevation[0], torch.tensor([0.0, 10, 20, 30]), atol=1e-3)
    plain = Orbit(16, turntable_elevation=25.0, turntable_frames=3).turntable()
    assert plain.shape == (1, 3) and plain.width == 16
    assert torch.allclose(plain.elevation, torch.tensor(25.0), atol=1e-3)


@pytest.mark.parametrize(
    "wrong", [{"elevation": (40, 0)}, {"elevation": (0, 90)}, {"distance": 0}, {"fov": 180}, {"size": 0}, {"views": 0}]
)
def test_impossible_cameras_are_refused(wrong):
    with pytest.raises(UserError, match="camera"):
        Orbit(**{"size": 8, **wrong})


@pytest.mark.parametrize("wrong", [{"frames": -1}, {"frames": 0}, {"size": 0}, {"elevation": (0.0, 90.0)}])
def test_impossible_turntables_are_refused(wrong):
    with pytest.raises(UserError, match="turntable"):
        Orbit(8).turntable(**wrong)
