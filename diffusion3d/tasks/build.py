"""From config nodes to objects."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

CAPABILITIES = ("provides", "needs")
RESERVED = (*CAPABILITIES, "fit")
"""Keys of a choice that are not its class's: what it provides and needs, and the settings it recommends to task=fit."""


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a choice's node describes; `arguments` add to its own, `RESERVED` keys are left out."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return instantiate({key: value for key, value in content.items() if key not in RESERVED}, **arguments)
