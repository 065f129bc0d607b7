import pytest
import torch

from diffusion3d.backgrounds import Backgrounds
from diffusion3d.errors import UserError


def test_kinds_come_as_often_as_they_should():
    torch.manual_seed(0)
    colours = Backgrounds(white=1, grey=2, colour=1).sample(8000)
    assert colours.shape == (8000, 3) and colours.min() >= 0 and colours.max() <= 1
    white = (colours == 1).all(1)
    grey = (colours == colours[:, :1]).all(1) & ~white
    assert white.float().mean().item() == pytest.approx(0.25, abs=0.02)
    assert grey.float().mean().item() == pytest.approx(0.5, abs=0.02)
    other = colours[~white & ~grey]
    for uniform in (colours[grey, 0], other[:, 0], other[:, 1], other[:, 2]):
        assert uniform.mean().item() == pytest.approx(0.5, abs=0.03)
        assert uniform.std().item() == pytest.approx(12**-0.5, abs=0.02)


def test_one_kind_alone():
    assert (Backgrounds(1, 0, 0).sample(50) == 1).all()
    grey = Backgrounds(0, 1, 0).sample(50)
    assert (grey == grey[:, :1]).all() and grey.std() > 0


def test_they_come_from_the_global_generator():
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(Backgrounds().sample(9))
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


@pytest.mark.parametrize("shares", [(-1, 1, 1), (0, 0, 0)])
def test_impossible_shares_are_refused(shares):
    with pytest.raises(UserError, match="one of them > 0"):
        Backgrounds(*shares)
