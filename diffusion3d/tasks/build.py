"""From config nodes to objects."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from diffusion3d.camera_sampling import Orbit

CAPABILITIES = ("provides", "needs")
RESERVED = (*CAPABILITIES, "fit")
"""Keys of a choice that are not its class's: what it provides and needs, and the settings it recommends to task=fit."""


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a choice's node describes; `arguments` add to its own, `RESERVED` keys are left out."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return instantiate({key: value for key, value in content.items() if key not in RESERVED}, **arguments)


def build_camera(node: DictConfig, size: int) -> Orbit:
    """The cameras of a config; their views have `size` pixels a side where it says none, as with prior.image_size=null."""
    camera: Orbit = build(node) if node.get("size") else build(node, size=size)
    return camera
