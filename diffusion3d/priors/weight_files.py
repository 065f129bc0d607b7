"""Which files of a pipeline hold weights, by their names in diffusers' format."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import PurePosixPath

from diffusion3d.errors import UserError

PICKLES = (".bin", ".ckpt", ".pt", ".pth")
WEIGHTS = re.compile(
    r"(?:diffusion_pytorch_model|model)(?:\.(?P<before>\w+))?(?:-\d+-of-\d+)?(?:\.(?P<after>\w+))?\.safetensors"
)


def weight_files(names: Iterable[str], variant: str | None = None) -> list[str]:
    """Those of one folder's files that hold a component's weights; where there are none without a variant, those of one."""
    found: dict[str | None, list[str]] = {}
    for name in names:
        match = WEIGHTS.fullmatch(PurePosixPath(name).name)
        if match is not None:
            found.setdefault(match["before"] or match["after"], []).append(name)
    if variant is None and None not in found:
        variant = "fp16" if "fp16" in found else next(iter(sorted(map(str, found))), None)
    return sorted(found.get(variant, found.get(None, [])))


def variant_of(files: Iterable[str]) -> str | None:
    """The variant of weight files, None for plain ones."""
    matches = (WEIGHTS.fullmatch(PurePosixPath(name).name) for name in files)
    return next((match["before"] or match["after"] for match in matches if match is not None), None)


def no_safetensors(where: str, names: Iterable[str]) -> UserError:
    """The error for weights that are not there, or there as pickles alone."""
    pickle = next((name for name in sorted(names) if name.endswith(PICKLES)), None)
    if pickle is None:
        return UserError(f"{where} holds no weights (.safetensors)")
    return UserError(
        f"{where} has its weights as a pickle, {PurePosixPath(pickle).name}, which may run code and is never read; save the "
        "pipeline anew as safetensors: pipeline.save_pretrained(FOLDER)"
    )
