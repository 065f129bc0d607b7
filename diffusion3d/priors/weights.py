"""Weights as a safetensors file and, beside it, a JSON file that vouches for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load as load_safetensors
from safetensors.torch import save as save_safetensors
from torch import Tensor, nn

from diffusion3d.errors import UserError
from diffusion3d.files import write_bytes, write_text

SHIPPED = Path(__file__).parent / "weights"
"""Where the weights that come with the package are."""


def find_weights(name: str) -> Path:
    """A path as given, or a file of the package.

    Raises:
        UserError: neither exists.
    """
    for path in (Path(name).expanduser(), SHIPPED / name):
        if path.is_file():
            return path
    shipped = ", ".join(sorted(p.name for p in SHIPPED.glob("*.safetensors"))) or "none"
    raise UserError(
        f"prior.weights={name} does not exist; give a .safetensors file, one that ships with the package ({shipped}), "
        "or null to start from scratch"
    )


def write_weights(path: Path, module: nn.Module, facts: Mapping[str, Any]) -> None:
    """Write float16 weights, and beside them `facts` and the weights' sha256 as JSON.

    A kill leaves the old pair, the new one, or weights without JSON, which are read as well.
    """
    data = save_safetensors({name: value.half().contiguous().cpu() for name, value in module.state_dict().items()})
    content = json.dumps({**facts, "sha256": hashlib.sha256(data).hexdigest()}, indent=1) + "\n"
    beside = path.with_suffix(".json")
    beside.unlink(missing_ok=True)
    write_bytes(path, data)
    write_text(beside, content)


def halve(folder: Path) -> None:
    """Turn what all safetensors files in a folder and below hold to float16, where it is of another floating type."""
    for path in folder.rglob("*.safetensors"):
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
        state = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
        write_bytes(path, save_safetensors(state, metadata))


def forget_origin(folder: Path) -> None:
    """Leave out of all configs in a folder and below where on this machine their model was read from."""
    for path in folder.rglob("*.json"):
        content = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(content, dict) and content.pop("_name_or_path", None) is not None:
            write_text(path, json.dumps(content, indent=2) + "\n")


def read_weights(path: Path, module: nn.Module) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Weights for `module` in float32, and the facts beside them, their sha256 in any case.

    Parameters of `module` that the file lacks are absent from what is returned.

    Raises:
        UserError: the file or its JSON is damaged, they do not belong together, or they were made for another network.
    """
    data = path.read_bytes()
    beside = path.with_suffix(".json")
    facts = _facts(beside) if beside.is_file() else {}
    digest = hashlib.sha256(data).hexdigest()
    if facts.get("sha256", digest) != digest:
        raise UserError(
            f"{path} has sha256 {digest[:12]}…, {beside.name} beside it says {facts['sha256'][:12]}…: "
            "the file is damaged or was replaced; fetch both again"
        )
    try:
        state = load_safetensors(data)
    except SafetensorError as error:
        raise UserError(f"{path} is not a readable safetensors file ({error}); fetch it again") from None
    want = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    have = {name: tuple(value.shape) for name, value in state.items()}
    odd = next((name for name, shape in sorted(have.items()) if want.get(name) != shape), None)
    if odd is not None:
        raise UserError(
            f"{path} does not fit prior.network: {odd} is {have[odd]} in the file and "
            f"{want.get(odd, 'absent')} in the network; set prior.network as {beside.name} or the weights' card says"
        )
    return {name: value.to(torch.float32) for name, value in state.items()}, {**facts, "sha256": digest}


def _facts(path: Path) -> dict[str, Any]:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        facts = None
    if not isinstance(facts, dict):
        raise UserError(f"{path} is damaged: it should be a JSON object; fetch it and the weights again")
    return facts
