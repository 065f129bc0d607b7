"""Where a pipeline in diffusers' format is: in a local folder, or fetched from the Hugging Face hub into its cache."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from diffusion3d.errors import UserError
from diffusion3d.priors.pipelines import Pipeline, WrongKind, kind_of
from diffusion3d.priors.weight_files import no_safetensors, weight_files

PARTS = ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
"""The folders of a pipeline that a prior may be made of."""
TIMEOUT = 10.0
"""Seconds until the hub counts as unreachable."""


def find(model: str | None, variant: str | None = None, family: str | None = None) -> Path:
    """The folder of a pipeline.

    Args:
        model: a local folder or the id of a pipeline on the hub, owner/name.
        variant: of the weights on the hub, such as "fp16"; None takes the plain ones.
        family: as `kind_of` has it.

    Raises:
        UserError: neither exists, the hub is out of reach, or the pipeline is of an unknown kind or another family, or has no
            safetensors.
    """
    if not model:
        raise UserError("prior.model says neither a folder nor an id on the hub (owner/name)")
    path = Path(model).expanduser()
    if path.is_dir():
        if (path / "model_index.json").is_file():
            kind_of(path, model, family)
        return path
    if path.is_file():
        raise UserError(
            f"prior.model={model} is a single file; give a folder in diffusers' format, as StableDiffusionPipeline"
            ".from_single_file(FILE).save_pretrained(FOLDER) writes it"
        )
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", model):
        raise UserError(f"prior.model={model} is no folder here and no id on the hub (owner/name)")
    return _cached(model, variant, family) or _download(model, variant, family)


def wanted(names: Iterable[str], variant: str | None = None) -> list[str]:
    """Those of a repository's files that a prior is made of."""
    parts: dict[str, list[str]] = {}
    for name in names:
        part = name.rpartition("/")[0]
        if part in PARTS:
            parts.setdefault(part, []).append(name)
        elif name == "model_index.json":
            parts.setdefault("", []).append(name)
    settings = [n for files in parts.values() for n in files if n.endswith((".json", ".txt", ".model"))]
    return settings + [n for files in parts.values() for n in weight_files(files, variant)]


def _cached(model: str, variant: str | None, family: str | None) -> Path | None:
    """The folder of the hub's cache, if everything is there."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        path = Path(snapshot_download(model, local_files_only=True))
    except LocalEntryNotFoundError as error:
        # there may be all that a prior is made of, and not the rest of the repository
        found = getattr(error, "snapshot_path", None)
        if found is None:
            return None
        path = Path(found)
    try:
        kind_of(path, model, family)
        Pipeline(path, variant)
    except WrongKind:
        raise
    except UserError:
        return None
    return path


def _download(model: str, variant: str | None, family: str | None) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError

    try:
        # asked first and once: a download tries for half a minute where there is no network
        info = HfApi().model_info(model, timeout=TIMEOUT)
        names = [file.rfilename for file in info.siblings or []]
        if "model_index.json" not in names:
            raise UserError(f"prior.model={model} is no pipeline in diffusers' format: it has no model_index.json")
        kind_of(Path(snapshot_download(model, allow_patterns=["model_index.json"])), model, family)
        if not any(name.startswith("unet/") for name in wanted(names, variant) if name.endswith(".safetensors")):
            raise no_safetensors(f"prior.model={model}", [name for name in names if name.startswith("unet/")])
        return Path(snapshot_download(model, allow_patterns=wanted(names, variant)))
    except UserError:
        raise
    except GatedRepoError:
        raise UserError(
            f"prior.model={model} has to be agreed to on its page, https://huggingface.co/{model}, and then needs `hf auth "
            "login` here"
        ) from None
    except RepositoryNotFoundError:
        raise UserError(
            f"prior.model={model} is not on the hub (or not for you); give another id, or a folder: prior.model=DIR"
        ) from None
    except Exception as error:  # the hub's client raises what its HTTP library does, which changes with its versions
        raise UserError(
            f"prior.model={model} is not in the cache and the hub cannot be reached ({error}); point to a folder in diffusers' "
            "format: prior.model=DIR"
        ) from None
