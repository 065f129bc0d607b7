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


def test_where_one_has_a_row_of_text_for_every_view_so_have_all():
    views = Condition(torch.rand(2, 3, 4, 5), torch.ones(2, 3, 4, dtype=torch.bool), torch.rand(2, 3, 6))
    scene = Condition(torch.rand(2, 1, 4, 5), torch.ones(2, 1, 4, dtype=torch.bool), torch.rand(2, 1, 6))
    together = concatenate([views, scene, Condition()])
    assert together.tokens.shape == (6, 3, 4, 5) and together.pooled.shape == (6, 3, 6)
    assert torch.equal(together.tokens[2:4], scene.tokens.expand(-1, 3, -1, -1))
    assert together.token_mask[:4].all() and not together.token_mask[4:].any()


@pytest.mark.parametrize("rows", [1, 3])
def test_some_of_the_views_keep_what_concerns_them(rows):
    cameras = orbit(torch.tensor([[0.0, 90.0, 180.0]]), torch.zeros(1, 3), 3.0, 40.0, 4, 4)
    tokens, pooled = torch.rand(1, rows, 4, 5), torch.rand(1, rows, 6)
    extra = {"background": torch.rand(1, 3)}
    some = Condition(tokens, pooled=pooled, cameras=cameras, extra=extra).select(torch.tensor([2, 0]))
    assert torch.equal(some.cameras.c2w, cameras.c2w[:, [2, 0]])
    kept = [0] if rows == 1 else [2, 0]
    assert torch.equal(some.tokens, tokens[:, kept]) and torch.equal(some.pooled, pooled[:, kept])
    assert some.extra is extra and some.token_mask is None
