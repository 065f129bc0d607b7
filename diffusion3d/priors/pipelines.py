"""Pipelines in diffusers' folder format: what each kind is made of, looked through before anything is loaded.

Only components of the libraries diffusers and transformers are made, by the classes named here; no code of a folder is run.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from diffusion3d.diffusion.schedule import Schedule
from diffusion3d.errors import UserError, one_line
from diffusion3d.priors.weight_files import no_safetensors, variant_of, weight_files


@dataclass(frozen=True)
class TextPart:
    """A text encoder of a pipeline.

    Attributes:
        encoder, tokenizer: their folders.
        model: its class in transformers.
        layer: the hidden layer that makes tokens; None is its output.
        pooled: whether its projected output is the pooled text.
        length: tokens that prompts are padded or cut to; None is what its encoder and tokenizer can.
        masked: whether it is told which tokens are padding.
        lower: whether prompts are put in lower case.
    """

    encoder: str
    tokenizer: str
    model: str
    layer: int | None = None
    pooled: bool = False
    length: int | None = None
    masked: bool = False
    lower: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of pipeline.

    Attributes:
        space: what its UNet denoises, "latent" or "pixel".
        text: what reads prompts; tokens of several stand side by side in their width.
        unets: names of UNets, as their config.json gives them.
        sized: whether the UNet is told pooled text and the image's size (SDXL, Podell et al. 2024, section 2.2).
        views: whether it is told cameras and judges the views of a scene jointly.
    """

    space: str
    text: tuple[TextPart, ...]
    unets: tuple[str, ...] = ("UNet2DConditionModel",)
    sized: bool = False
    views: bool = False

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """{component: its classes, () for any}."""
        text = {part.encoder: (part.model,) for part in self.text} | {part.tokenizer: () for part in self.text}
        vae = {"vae": ("AutoencoderKL",)} if self.space == "latent" else {}
        return {"unet": self.unets, **vae, **text, "scheduler": ()}

    @property
    def family(self) -> str:
        """Those that one choice of conf/prior, which says what they can, is for: its name."""
        return "mvdream" if self.views else "stable_diffusion" if self.space == "latent" else "deepfloyd"


CLIP = TextPart("text_encoder", "tokenizer", "CLIPTextModel")
KINDS = {
    "StableDiffusionPipeline": Kind("latent", (CLIP,)),
    "LatentConsistencyModelPipeline": Kind("latent", (CLIP,)),
    "StableDiffusionXLPipeline": Kind(
        "latent",
        (
            TextPart("text_encoder", "tokenizer", "CLIPTextModel", layer=-2),
            TextPart("text_encoder_2", "tokenizer_2", "CLIPTextModelWithProjection", layer=-2, pooled=True),
        ),
        sized=True,
    ),
    "IFPipeline": Kind(
        "pixel", (TextPart("text_encoder", "tokenizer", "T5EncoderModel", length=77, masked=True, lower=True),)
    ),
    "MVDreamPipeline": Kind("latent", (CLIP,), ("UNet2DConditionModel", "MultiViewUNetModel"), views=True),
}
"""By the class that model_index.json names. LCM and Turbo are Stable Diffusion with weights of another training."""


SHARD = re.compile(r"-of-(\d+)\.")
"""In the name of weights that are split: how many files there are."""


VOCABULARIES = (("tokenizer.json",), ("vocab.json", "merges.txt"), ("spiece.model",))
"""Files of a tokenizer, of which one group has to be there."""


def kind_of(path: Path, model: str, family: str | None = None) -> str:
    """The name in `KINDS` of the pipeline in a folder that has a model_index.json.

    Args:
        path: the folder.
        model: what it is called to whom chose it.
        family: that it has to be of; None takes any.

    Raises:
        WrongKind: an unknown kind, or of another family.
    """
    name = str(read_json(path / "model_index.json").get("_class_name"))
    if name not in KINDS:
        raise WrongKind(f"prior.model={model} is a {name}; these kinds are known: {', '.join(KINDS)}")
    if family not in (None, KINDS[name].family):
        raise WrongKind(f"prior.model={model} is a {name}: choose prior={KINDS[name].family} for it")
    return name


class WrongKind(UserError):
    """A pipeline that the prior is not for, however whole it is."""


class Pipeline:
    """A folder that holds what its kind needs.

    Args:
        path: the folder.
        variant: of the weights, such as "fp16", where there are several.

    Raises:
        UserError: it is no pipeline, or of an unknown kind, a component is missing or of another class, or its weights are
            pickles.
    """

    def __init__(self, path: Path, variant: str | None = None) -> None:
        self.path, self.variant = path, variant
        if not (path / "model_index.json").is_file():
            alone = read_json(path / "config.json").get("_class_name") if (path / "config.json").is_file() else None
            what = f"holds one {alone}, not a whole pipeline" if alone else "has no model_index.json"
            raise UserError(f"prior.model={path} {what}; give the folder that pipeline.save_pretrained wrote")
        self.index = read_json(path / "model_index.json")
        self.name = kind_of(path, str(path))
        self.kind = KINDS[self.name]
        for part, classes in self.kind.parts.items():
            self._check(part, classes)

    def _check(self, part: str, classes: tuple[str, ...]) -> None:
        folder = self.path / part
        if not folder.is_dir():
            raise UserError(f"prior.model={self.path} lacks the component {part}: there is no folder {folder}")
        if part.startswith("tokenizer"):
            there = {file.name for file in folder.iterdir()}
            if not any(there.issuperset(files) for files in VOCABULARIES):
                known = ", ".join(" and ".join(files) for files in VOCABULARIES)
                raise UserError(f"{folder} has no vocabulary ({known}): fetch it again")
        if not classes:
            return
        config = self.config(part)
        found = config.get("_class_name") or next(iter(config.get("architectures") or []), None)
        if found not in classes:
            raise UserError(f"{folder} holds a {found}; a {self.name} needs a {' or '.join(classes)}")
        weights = self.weights(part)
        if not weights:
            raise no_safetensors(str(folder), [path.name for path in folder.iterdir()])
        counted = SHARD.search(weights[0].name)
        if counted is not None and len(weights) != int(counted[1]):
            raise UserError(
                f"{folder} has {len(weights)} of the {int(counted[1])} files of its weights: fetch it again"
            )

    def config(self, part: str) -> dict[str, Any]:
        """The settings of a component."""
        path = self.path / part / ("scheduler_config.json" if part == "scheduler" else "config.json")
        if not path.is_file():
            raise UserError(f"{path} is missing; fetch the component {part} again")
        return read_json(path)

    def weights(self, part: str) -> list[Path]:
        folder = self.path / part
        return [folder / name for name in weight_files((path.name for path in folder.iterdir()), self.variant)]

    def load(self, part: str, dtype: torch.dtype = torch.float32) -> Any:
        """A model of the folder, without gradients, in evaluation mode; what its library keeps in float32 stays so."""
        import diffusers
        import transformers
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()
        text = part.startswith("text")
        name = self.kind.parts[part][0]
        low_memory = {"low_cpu_mem_usage": importlib.util.find_spec("accelerate") is not None}
        options = {"dtype": dtype} if text else {"torch_dtype": dtype, **low_memory}
        variant = variant_of(path.name for path in self.weights(part))
        try:
            model, info = getattr(transformers if text else diffusers, name).from_pretrained(
                self.path / part,
                variant=variant,
                use_safetensors=True,
                local_files_only=True,
                output_loading_info=True,
                **options,
            )
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{self.path / part} cannot be read: {one_line(error)[:200]}") from None
        missing = sorted(info["missing_keys"])
        if missing:
            raise UserError(f"{self.path / part} lacks {len(missing)} weights ({missing[0]}, …): fetch it again")
        assert isinstance(model, nn.Module)
        return model.eval().requires_grad_(False)

    def tokenizer(self, part: str) -> Any:
        import transformers

        library, name = self.index.get(part) or (None, None)
        cls = getattr(transformers, str(name), None) if library == "transformers" else None
        if not isinstance(cls, type) or not issubclass(cls, transformers.PreTrainedTokenizerBase):
            raise UserError(
                f"{self.path}/model_index.json names {name} of {library} as {part}: no tokenizer of transformers"
            )
        folder = self.path / part
        pieces = (folder / "spiece.model").is_file() and not (folder / "tokenizer.json").is_file()
        if pieces and importlib.util.find_spec("sentencepiece") is None:
            raise UserError(f"{folder} cannot be read: pip install sentencepiece")
        try:
            return cls.from_pretrained(folder, local_files_only=True)
        except (OSError, ValueError, ImportError) as error:
            raise UserError(f"{folder} cannot be read: {one_line(error)[:200]}") from None

    def schedule(self) -> tuple[Schedule, str]:
        """Its noise levels, as its own scheduler has them, and what its UNet predicts: epsilon, v_prediction or sample."""
        import diffusers

        config = self.config("scheduler")
        cls: Any = getattr(diffusers, str(config.get("_class_name")), None)
        scheduler: Any = cls.from_config(config) if hasattr(cls, "from_config") else None
        prediction = getattr(scheduler, "config", {}).get("prediction_type", "epsilon")
        if not hasattr(scheduler, "alphas_cumprod") or prediction not in ("epsilon", "v_prediction", "sample"):
            raise UserError(
                f"{self.path / 'scheduler'} is a {config.get('_class_name')} that predicts {prediction}; a variance-preserving "
                "one that predicts epsilon, v_prediction or sample is needed, such as DDIMScheduler"
            )
        return Schedule(scheduler.alphas_cumprod), prediction

    def digest(self, parts: Iterable[str]) -> str:
        """sha256 of the weights and settings of components."""
        total = hashlib.sha256()
        for part in parts:
            weights = self.weights(part)
            settings = [p for p in sorted((self.path / part).iterdir()) if p.suffix in (".json", ".txt", ".model")]
            for path in [*settings, *weights]:
                total.update(f"{part}/{path.name} {file_digest(path)}\n".encode())
        return total.hexdigest()


def read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        content = None
    if not isinstance(content, dict):
        raise UserError(f"{path} is damaged: it should be a JSON object; fetch it again")
    return content


def file_digest(path: Path) -> str:
    """sha256 of a file. The hub's cache names large files by it."""
    real = path.resolve()
    if len(real.name) == 64 and real.parent.name == "blobs":
        return real.name
    stat = real.stat()
    return _digest(real, stat.st_size, stat.st_mtime_ns)


@functools.cache
def _digest(path: Path, size: int, modified: int) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 22):
            total.update(chunk)
    return total.hexdigest()
