import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.diffusion.condition import Condition, concatenate
from diffusion3d.views import PosedViews


def test_prompts_of_different_length_are_padded_and_masked():
    short = Condition(tokens=torch.ones(1, 1, 2, 3), token_mask=torch.ones(1, 1, 2, dtype=torch.bool))
    long = Condition(tokens=torch.ones(1, 1, 5, 3), token_mask=torch.ones(1, 1, 5, dtype=torch.bool))
    both = concatenate([short, long])
    assert both.tokens.shape == (2, 1, 5, 3)
    assert both.token_mask.sum(-1).tolist() == [[2], [5]]
    assert both.tokens[0, 0, 2:].abs().sum() == 0


def test_clean_views_are_kept():
    cameras = orbit(torch.zeros(1, 2), torch.zeros(1, 2), 3.0, 40.0, 4, 4)
    views = [PosedViews(cameras, torch.full((1, 2, 3, 4, 4), v), captions=(str(v),)) for v in (0.25, 0.75)]
    both = concatenate([Condition(cameras=cameras, views=v) for v in views])
    assert both.views.images[:, 0, 0, 0, 0].tolist() == [0.25, 0.75]
    assert both.views.captions == ("0.25", "0.75")
    assert both.views.cameras.shape == (2, 2)


def test_conditions_that_disagree_are_refused():
    with pytest.raises(ValueError, match="extra"):
        concatenate([Condition(), Condition(extra={"background": torch.ones(1, 3)})])
