import numpy as np
import torch

from diffusion3d.cameras import orbit
from diffusion3d.data.base import InMemory, PosedData


def data(channels):
    cameras = orbit(torch.arange(6.0).view(2, 3) * 60, torch.zeros(2, 3), 3.0, 40.0, 4, 6)
    pixels = torch.arange(6).view(2, 3, 1, 1, 1).expand(2, 3, channels, 4, 6).to(torch.uint8) * 51
    depth = torch.arange(6.0).view(2, 3, 1, 1, 1).expand(2, 3, 1, 4, 6)
    return InMemory(cameras, pixels, [["a", "b"], ["c"]], {"depth": depth})


def test_views_of_scenes_are_picked_with_all_that_belongs_to_them():
    made = data(4)
    assert isinstance(made, PosedData) and (len(made), made.views) == (2, 3) and made.vocabulary == ("a", "b", "c")
    batch = made.batch(np.array([1, 0, 1]), np.array([[2, 0], [1, 1], [0, 2]]), np.random.default_rng(0))
    numbers = torch.tensor([[5.0, 3.0], [1.0, 1.0], [3.0, 5.0]])
    torch.testing.assert_close(batch.images[:, :, 0, 3, 5], numbers / 5)
    torch.testing.assert_close(batch.alpha[:, :, 0, 0, 0], numbers / 5)
    torch.testing.assert_close(batch.depth[:, :, 0, 0, 0], numbers)
    torch.testing.assert_close(batch.cameras.azimuth % 360, numbers * 60, atol=1e-3, rtol=0)
    assert (batch.cameras.height, batch.cameras.width) == (4, 6) and batch.captions[::2] == ("c", "c")


def test_without_a_fourth_channel_there_is_no_alpha():
    assert data(3).batch(np.array([0]), np.array([[0]]), np.random.default_rng(0)).alpha is None
