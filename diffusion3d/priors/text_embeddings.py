"""What a pipeline's text encoders make of prompts, remembered in memory and on disk."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from diffusion3d.diffusion.condition import Condition, concatenate
from diffusion3d.errors import UserError
from diffusion3d.files import write_bytes
from diffusion3d.precision import compute_dtype
from diffusion3d.priors.pipelines import Pipeline, TextPart

log = logging.getLogger(__name__)

REMEMBERED = 1 << 29
"""Bytes of embeddings that are kept in memory."""


class TextEmbeddings:
    """Prompts to tokens [B,1,L,D], all of them to be attended to, and pooled text [B,1,E] where the kind has one.

    Encoders are loaded when a prompt is asked for that is not in the cache. Prompts are encoded one by one: what one gets
    depends neither on the others nor on what came before.

    Args:
        pipeline: whose text encoders these are.
        cache: a folder of embeddings, shared between models; None keeps none on disk.
        precision: of the encoders, as `compute_dtype` reads it.
        offload: whether they stay on the CPU and only embeddings go to the prior's device.
    """

    def __init__(self, pipeline: Pipeline, cache: Path | None, precision: str = "auto", offload: bool = False) -> None:
        self.pipeline, self.cache, self.precision, self.offload = pipeline, cache, precision, offload
        self.learned: Mapping[str, Tensor] = {}
        """{word: its embedding [D] at the encoder's entrance}: words that prompts may hold beside those of the tokenizer."""
        parts = [name for part in pipeline.kind.text for name in (part.encoder, part.tokenizer)]
        self.fingerprint = pipeline.digest(parts)
        self._models: dict[tuple[str, torch.dtype], nn.Module] = {}
        self._tokenizers: dict[str, Any] = {}
        self._memory: dict[tuple[str, torch.device], Condition] = {}

    def encode(
        self, prompts: Sequence[str], device: torch.device, learned: Mapping[str, Tensor] | None = None
    ) -> Condition:
        """The text fields of a Condition for B prompts.

        Args:
            prompts: in words.
            device: where the embeddings go.
            learned: as the attribute; what holds one of these words is differentiable and not remembered.
        """
        words = self.learned if learned is None else learned
        return concatenate([self._one(prompt, device, words) for prompt in prompts])

    def too_long(self, prompt: str) -> int | None:
        """The tokens that a prompt is cut to, where it is; None where it fits."""
        for part in self.pipeline.kind.text:
            length = self.length(part)
            if len(self.tokenizer(part)(prompt, verbose=False).input_ids) > length:
                return length
        return None

    def length(self, part: TextPart) -> int:
        """The tokens that a text encoder reads."""
        if part.length is not None:
            return part.length
        read = self.pipeline.config(part.encoder).get("max_position_embeddings")
        if not isinstance(read, int):
            raise UserError(
                f"{self.pipeline.path / part.encoder / 'config.json'} does not say its max_position_embeddings"
            )
        return min(read, int(self.tokenizer(part).model_max_length))

    def tokenizer(self, part: TextPart) -> Any:
        if part.tokenizer not in self._tokenizers:
            self._tokenizers[part.tokenizer] = self.pipeline.tokenizer(part.tokenizer)
        return self._tokenizers[part.tokenizer]

    def _one(self, prompt: str, device: torch.device, learned: Mapping[str, Tensor]) -> Condition:
        if any(word in prompt for word in learned):
            return self._encode(prompt, device, learned)
        if (prompt, device) not in self._memory:
            self._memory[prompt, device] = condition = self._from_disk(prompt, device)
            assert condition.tokens is not None
            size = condition.tokens.nbytes + (0 if condition.pooled is None else condition.pooled.nbytes)
            while len(self._memory) * size > REMEMBERED:
                self._memory.pop(next(iter(self._memory)))
        return self._memory[prompt, device]

    @torch.no_grad()
    def _from_disk(self, prompt: str, device: torch.device) -> Condition:
        if self.cache is None:
            return self._encode(prompt, device, {})
        dtype = compute_dtype(self._place(device), self.precision)
        key = hashlib.sha256(f"{self.fingerprint} {dtype} {prompt}".encode()).hexdigest()
        path = self.cache / f"{key}.safetensors"
        try:
            return self._condition(load_file(path, device=str(device)))
        except (OSError, SafetensorError):
            condition = self._encode(prompt, device, {})
        content = {"tokens": condition.tokens, "pooled": condition.pooled}
        try:
            self.cache.mkdir(parents=True, exist_ok=True)
            write_bytes(path, save({name: value.cpu() for name, value in content.items() if value is not None}))
        except OSError as error:
            log.warning("text embeddings are not kept: cannot write %s (%s)", path, error.strerror)
        return condition

    @staticmethod
    def _condition(fields: Mapping[str, Tensor]) -> Condition:
        tokens = fields["tokens"]
        mask = torch.ones(tokens.shape[:-1], dtype=torch.bool, device=tokens.device)
        return Condition(tokens=tokens, token_mask=mask, pooled=fields.get("pooled"))

    def _encode(self, prompt: str, device: torch.device, learned: Mapping[str, Tensor]) -> Condition:
        read = [self._read(part, prompt, self._place(device), learned) for part in self.pipeline.kind.text]
        fields = {"tokens": torch.cat([tokens for tokens, _ in read], -1)}
        pooled = next((pooled for _, pooled in read if pooled is not None), None)
        if pooled is not None:
            fields["pooled"] = pooled
        return self._condition({name: value[:, None].float().to(device) for name, value in fields.items()})

    def _read(
        self, part: TextPart, prompt: str, device: torch.device, learned: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor | None]:
        """Tokens [1,L,D] of one encoder, and its pooled text [1,E] if that is the one."""
        tokenizer, model = self.tokenizer(part), self._model(part, device)
        if learned:
            tokenizer = self.pipeline.tokenizer(part.tokenizer)
            tokenizer.add_tokens(list(learned))
        words = tokenizer(
            [prompt.lower().strip() if part.lower else prompt],
            padding="max_length",
            max_length=self.length(part),
            truncation=True,
            return_tensors="pt",
        ).to(device)
        ids, table = words.input_ids, model.get_input_embeddings()  # type: ignore[operator]  # of every encoder

        def replace(module: nn.Module, inputs: Any, output: Tensor) -> Tensor:
            for word, vector in learned.items():
                chosen = (ids == tokenizer.convert_tokens_to_ids(word))[..., None]
                output = torch.where(chosen, vector.to(output), output)
            return output

        masked = part.masked or getattr(model.config, "use_attention_mask", False)
        hook = table.register_forward_hook(replace)
        try:
            output = model(
                ids.masked_fill(ids >= table.num_embeddings, 0),
                attention_mask=words.attention_mask if masked else None,
                output_hidden_states=part.layer is not None,
            )
        finally:
            hook.remove()
        tokens = output.last_hidden_state if part.layer is None else output.hidden_states[part.layer]
        return tokens, output.text_embeds if part.pooled else None

    def _model(self, part: TextPart, device: torch.device) -> nn.Module:
        dtype = compute_dtype(device, self.precision)
        if (part.encoder, dtype) not in self._models:
            self._models[part.encoder, dtype] = self.pipeline.load(part.encoder, dtype)
        return self._models[part.encoder, dtype].to(device)

    def _place(self, device: torch.device) -> torch.device:
        return torch.device("cpu") if self.offload else device
