"""Toybox objects to fit, drawn on the spot."""

from __future__ import annotations

from typing import Any

from diffusion3d.data.base import Splits
from diffusion3d.data.rendered import Rig, rendered
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.data.toybox.generate import draw
from diffusion3d.errors import UserError


def toybox_scenes(
    scenes: int = 1,
    split: str = "test",
    subject: str | None = None,
    first: int = 0,
    object_seed: int = 0,
    **rig: Any,
) -> Splits:
    """Objects number `first` and the following of a split.

    Args:
        scenes: how many.
        split: train, validation, test or heldout; see `draw`.
        subject: what they are, such as "castle"; None takes any, by weight.
        first: number of the first one.
        object_seed: of the objects.
        rig: of `Rig`.

    Raises:
        UserError: a number or name makes no sense.
    """
    if scenes < 1 or first < 0 or object_seed < 0:
        raise UserError(
            f"data: scenes={scenes} must be at least 1, first={first} and object_seed={object_seed} at least 0"
        )
    try:
        objects = [draw(object_seed, first + i, split, subject) for i in range(scenes)]
    except ValueError as error:
        raise UserError(f"data: {error}") from None
    captions = [[with_article(obj.phrases["full"][0])] for obj in objects]
    return rendered((obj.mesh for obj in objects), captions, Rig(**rig))
