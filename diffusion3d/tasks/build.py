"""From config nodes to objects."""

from __future__ import annotations

import re
from typing import Any

from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion3d.camera_sampling import Orbit
from diffusion3d.errors import UserError, one_line, user_error

CAPABILITIES = ("provides", "needs")
RESERVED = (*CAPABILITIES, "fit")
"""Keys of a choice that are not its class's: what it provides and needs, and the settings it recommends to task=fit."""


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a choice's node describes; `arguments` add to its own, `RESERVED` keys are left out.

    Raises:
        InstantiationException: its constructor refused a value; `user_error` finds why.
        UserError: its constructor failed for a reason that it did not foresee.
    """
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    try:
        return instantiate({key: value for key, value in content.items() if key not in RESERVED}, **arguments)
    except InstantiationException as error:
        if user_error(error) is not error:
            raise
        inside = re.search(r"full_key: ([\w.]+)$", str(error))
        key = ".".join(filter(None, [str(node._get_full_key(None)), inside and inside[1]]))
        raise UserError(
            f"{key} cannot be made with its settings, {one_line(repr(error.__cause__ or error))}; its defaults work"
        ) from error


def build_camera(node: DictConfig, size: int) -> Orbit:
    """The cameras of a config; their views have `size` pixels a side where it says none, as with prior.image_size=null."""
    camera: Orbit = build(node) if node.get("size") else build(node, size=size)
    return camera
