"""From config nodes to objects."""

from __future__ import annotations

from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

CAPABILITIES = ("provides", "needs")


def build(node: DictConfig, **arguments: Any) -> Any:
    """The object that a choice's node describes; `arguments` add to its own, capabilities are left out."""
    content = OmegaConf.to_container(node, resolve=True)
    assert isinstance(content, dict)
    return instantiate({key: value for key, value in content.items() if key not in CAPABILITIES}, **arguments)
