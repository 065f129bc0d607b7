"""Words for the side from which a camera sees the object."""

import pytest
import torch

from diffusion3d.cameras import orbit
from diffusion3d.diffusion.condition import Condition
from diffusion3d.errors import UserError
from diffusion3d.priors.view_prompts import ViewPrompts

SIDES = ["front", "side", "back", "overhead"]


def seen(*views):
    """Cameras at (azimuth, elevation)."""
    azimuth, elevation = torch.tensor([views]).unbind(-1)
    return orbit(azimuth, elevation, 3.0, 40.0, 8, 8)


@pytest.mark.parametrize(
    ("view", "side"),
    [
        ((0.0, 0.0), "front"),
        ((44.0, 10.0), "front"),
        ((-44.0, 10.0), "front"),
        ((46.0, 10.0), "side"),
        ((-90.0, -10.0), "side"),
        ((134.0, 0.0), "side"),
        ((136.0, 0.0), "back"),
        ((180.0, 0.0), "back"),
        ((224.5, 0.0), "back"),
        ((10.0, 61.0), "overhead"),
        ((180.0, 80.0), "overhead"),
    ],
)
def test_a_view_has_one_side(view, side):
    shares = ViewPrompts().shares(seen(view))[0, 0]
    assert shares.tolist() == [float(side == name) for name in SIDES]


@pytest.mark.parametrize(
    ("view", "shares"),
    [
        ((0.0, 0.0), (1.0, 0.0, 0.0, 0.0)),
        ((45.0, 0.0), (0.5, 0.5, 0.0, 0.0)),
        ((-60.0, 0.0), (1 / 3, 2 / 3, 0.0, 0.0)),
        ((90.0, 0.0), (0.0, 1.0, 0.0, 0.0)),
        ((120.0, 20.0), (0.0, 2 / 3, 1 / 3, 0.0)),
        ((180.0, 0.0), (0.0, 0.0, 1.0, 0.0)),
        ((30.0, 70.0), (0.0, 0.0, 0.0, 1.0)),
    ],
)
def test_blended_a_view_turns_from_side_to_side(view, shares):
    found = ViewPrompts(blend=True).shares(seen(view))[0, 0]
    torch.testing.assert_close(found, torch.tensor(shares), atol=1e-5, rtol=0)


def encode(prompts):
    """The number of letters as a token."""
    tokens = torch.tensor([float(len(prompt)) for prompt in prompts]).view(-1, 1, 1, 1)
    return Condition(
        tokens=tokens, token_mask=torch.ones(len(prompts), 1, 1, dtype=torch.bool), pooled=tokens[..., 0] * 2
    )


def test_every_view_has_its_own_row_of_text():
    words = ViewPrompts("{}.", "{}..", "{}...", "{}....")
    cameras = seen((0.0, 0.0), (90.0, 0.0), (180.0, 0.0), (0.0, 70.0)).expand(2)
    text = words.text(["ab", "abcd"], cameras, encode)
    assert text.tokens[..., 0, 0].tolist() == [[3, 4, 5, 6], [5, 6, 7, 8]]
    assert text.pooled[..., 0].tolist() == [[6, 8, 10, 12], [10, 12, 14, 16]]
    assert text.token_mask.shape == (2, 4, 1) and text.token_mask.all()
    blend = ViewPrompts("{}.", "{}..", "{}...", "{}....", blend=True).text(["ab"], seen((45.0, 0.0)), encode)
    assert blend.tokens.item() == pytest.approx(3.5) and blend.pooled.item() == pytest.approx(7.0)


def test_sides_that_nobody_sees_are_not_encoded():
    asked = []
    ViewPrompts().text(["a"], seen((0.0, 0.0)), lambda prompts: asked.extend(prompts) or encode(prompts))
    assert asked == ["a, front view"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"side": "from the side"}, r"'from the side' must hold \{\}"),
        ({"half_angle": 0.0}, r"half_angle=0 must lie inside"),
        ({"half_angle": 95.0}, r"half_angle=95"),
        ({"elevation": 120.0}, r"elevation=120"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(UserError, match=message):
        ViewPrompts(**options)
