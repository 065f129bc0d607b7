"""Checkpoints: one safetensors file each, written atomically, with a checksum over everything in it. No pickle.

A state is a tree of dicts (string or integer keys), lists, tuples, tensors, numpy arrays, numbers, strings and None.
Tensors and arrays are the file's tensors; the rest of the tree is JSON in its metadata.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from diffusion3d.errors import RunError, one_line
from diffusion3d.files import whole

log = logging.getLogger(__name__)

FORMAT = 1
KEEP = 2
HEADER = "checkpoint"
"""The one entry of a file's metadata (several would come in random order, and equal states in unequal files)."""


def save_checkpoint(folder: Path, step: int, state: Any) -> Path:
    """Write `folder/step_00000300.safetensors`; of those before it the newest stays, and none that claims a later step.

    Raises:
        TypeError: the state holds something other than what the module's docstring lists.
        RunError: it cannot be written; those that were there before stay.
    """
    tensors: dict[str, Tensor] = {}
    tree = _encode(state, "", tensors, {})
    path = folder / f"step_{step:08d}.safetensors"
    header = {"format": FORMAT, "step": step, "state": tree, "sha256": _digest(step, tree, tensors)}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for torn in folder.glob(".step_*.tmp.safetensors"):
            torn.unlink()
        with whole(path) as temporary:
            save_file(tensors, temporary, {HEADER: json.dumps(header)})
        sync_directory(folder)
    except (OSError, SafetensorError) as error:
        kept = next((f"{old.stem} is kept" for old in _newest_first(folder)), "there is no earlier one")
        raise RunError(
            f"cannot write checkpoint {path}: {one_line(error)}; {kept}: "
            f"make room there and go on with run.resume={folder.parent}"
        ) from error
    files = _newest_first(folder)
    for old in files[: files.index(path)] + files[files.index(path) + KEEP :]:
        old.unlink()
    return path


def load_checkpoint(folder: Path) -> tuple[int, Any] | None:
    """(step, state) of the newest checkpoint that is whole; None where there are no checkpoints.

    One that is torn or damaged is passed over with a warning.

    Raises:
        RunError: the newest of those that are not damaged cannot be read or has another format, or all are damaged.
    """
    files = _newest_first(folder)
    for path in files:
        try:
            return read_checkpoint(path)
        except OSError as error:
            raise RunError(
                f"cannot read checkpoint {path}: {error.strerror or one_line(error)}; nothing was changed: make it readable"
            ) from error
        except (ValueError, KeyError, SafetensorError) as error:
            log.warning("checkpoint %s is damaged and passed over: %s", path.name, error)
    if files:
        raise RunError(
            f"no checkpoint in {folder} can be read, all {len(files)} are damaged: put whole ones there, "
            "or remove that folder to begin again at step 0"
        )
    return None


def read_checkpoint(path: Path) -> tuple[int, Any]:
    """(step, state) of one checkpoint file.

    Raises:
        ValueError, KeyError, SafetensorError: the file is not a whole checkpoint.
        OSError: it cannot be read.
        RunError: it has another format.
    """
    path.open("rb").close()  # safetensors does not always say what the system said
    with safe_open(path, framework="pt") as file:
        header = json.loads((file.metadata() or {})[HEADER])
        if header["format"] != FORMAT:
            raise RunError(
                f"checkpoint {path} has format {header['format']} and this version reads {FORMAT}: use the version of the "
                "package that versions.json names"
            )
        names = file.keys()
        tensors = {name: file.get_tensor(name) for name in names}
    if header["sha256"] != _digest(header["step"], header["state"], tensors):
        raise ValueError("its checksum does not match its content")
    return header["step"], _decode(header["state"], tensors)


def nonfinite(state: Any, name: str = "state") -> str | None:
    """The dotted name of the first tensor of a state that holds NaN or Inf; None when all are finite."""
    for path, tensor in _tensors(state, name):
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            return path
    return None


def sync_directory(folder: Path) -> None:
    """Make renames inside a folder durable (a no-op where folders cannot be opened, as on Windows)."""
    if os.name != "nt":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _newest_first(folder: Path) -> list[Path]:
    names = (p for p in folder.glob("step_*.safetensors") if re.fullmatch(r"step_\d+", p.stem))
    return sorted(names, key=lambda p: int(p.stem[5:]), reverse=True)


def _tensors(state: Any, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(state, Tensor):
        yield name, state
    elif isinstance(state, dict):
        for key, value in state.items():
            yield from _tensors(value, f"{name}.{key}")
    elif isinstance(state, list | tuple):
        for i, value in enumerate(state):
            yield from _tensors(value, f"{name}.{i}")


def _digest(step: int, tree: Any, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(f"{FORMAT} {step} {json.dumps(tree)}".encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _encode(value: Any, path: str, tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    """The JSON form of a value. Containers become {kind: content}; a tensor that occurs twice is stored once."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return _encode(value.item(), path, tensors, seen)
    if isinstance(value, Tensor):
        identity = (value.data_ptr(), value.dtype, value.shape, value.stride(), value.device) if value.numel() else path
        if identity not in seen:
            seen[identity] = path
            tensors[path] = value.detach().to("cpu", copy=True).contiguous()
        return {"tensor": seen[identity]}
    if isinstance(value, np.ndarray):
        tensors[path] = torch.from_numpy(value.copy())
        return {"array": path}
    if isinstance(value, dict):
        bad = [key for key in value if not isinstance(key, str | int) or isinstance(key, bool)]
        if bad:
            raise TypeError(f"checkpoint: {path or 'state'} has the key {bad[0]!r}; keys are strings or integers")
        return {"dict": [[key, _encode(item, f"{path}/{key}", tensors, seen)] for key, item in value.items()]}
    if isinstance(value, list | tuple):
        kind = "tuple" if isinstance(value, tuple) else "list"
        return {kind: [_encode(item, f"{path}/{i}", tensors, seen) for i, item in enumerate(value)]}
    raise TypeError(f"checkpoint: {path or 'state'} is a {type(value).__name__}, which is neither data nor a tensor")


def _decode(node: Any, tensors: dict[str, Tensor]) -> Any:
    if not isinstance(node, dict):
        return node
    [(kind, content)] = node.items()
    if kind == "tensor":
        return tensors[content]
    if kind == "array":
        return tensors[content].numpy()
    if kind == "dict":
        return {key: _decode(item, tensors) for key, item in content}
    items = [_decode(item, tensors) for item in content]
    return tuple(items) if kind == "tuple" else items
