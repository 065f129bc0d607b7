"""Teach a prior's text encoder what a sentence encoder knows."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from diffusion3d.errors import UserError
from diffusion3d.files import whole_folder
from diffusion3d.objectives.base import Objective, Share
from diffusion3d.precision import autocast
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.priors.text import SentenceEncoder
from diffusion3d.priors.weights import halve
from diffusion3d.views import PosedViews

FORMS = ("{}", "a {}", "the {}", "{} {}", "a {} {}", "a {} with a {}", "a {} {} on a {}")
"""What is made of random words."""
HELD_OUT = 20
"""One word in so many is for validation alone."""
VALIDATED = 256
"""Held-out words that validation asks for."""


class TextDistillation(Objective):
    """The error of a sentence's embedding, read off the pooled output of a CLIP text encoder by a linear map.

    loss = 1 - cos(y, e) + mse * |y - e|^2, with e the teacher's embedding, of unit length, and y the estimate (after Reimers &
    Gurevych 2020, eq. 1). The map is thrown away.

    Sentences are the data's captions, some of them worded for a view as the prior words them, and phrases of the teacher's own
    words.

    Args:
        prior: whose text encoder learns.
        teacher: what it learns from.
        phrases: of random words, beside every caption.
        worded: share of the captions that are worded for a view.
        mse: weight of the squared error.

    Raises:
        UserError: the prior has several text encoders.
    """

    def __init__(
        self, prior: StableDiffusion, teacher: SentenceEncoder, phrases: int = 2, worded: float = 0.5, mse: float = 0.5
    ) -> None:
        super().__init__()
        pipeline = prior.pipeline
        if len(prior.kind.text) != 1:
            raise UserError(
                f"objective=text_distillation teaches one text encoder, and prior.model={pipeline.path} has "
                f"{len(prior.kind.text)}; take a Stable Diffusion 1.x or 2.x"
            )
        self.prior, self.teacher = prior, teacher
        self.part = prior.kind.text[0]
        self.encoder = pipeline.load(self.part.encoder).requires_grad_(True)
        self.tokenizer = pipeline.tokenizer(self.part.tokenizer)
        self.learner = nn.ModuleList([self.encoder, nn.Linear(self.encoder.config.hidden_size, teacher.dim)])
        self.phrases, self.worded, self.mse = phrases, worded, mse
        words = sorted(
            word for word in teacher.tokenizer.get_vocab() if word.isascii() and word.isalpha() and len(word) > 2
        )
        self.words = [word for word in words if zlib.crc32(word.encode()) % HELD_OUT]
        self.held_out = [word for word in words if zlib.crc32(word.encode()) % HELD_OUT == 0]

    def trained(self) -> nn.Module:
        return self.learner

    def sentences(self, captions: Sequence[str]) -> list[str]:
        """Captions and phrases of a step."""
        wordings = self.prior.view_prompts.wordings if self.prior.view_prompts else ("{}",)
        found = []
        for caption in captions:
            wording = wordings[int(torch.randint(len(wordings), ()))] if float(torch.rand(())) < self.worded else "{}"
            found.append(wording.replace("{}", caption))
            for _ in range(self.phrases):
                form = FORMS[int(torch.randint(len(FORMS), ()))]
                found.append(form.format(*(self.words[i] for i in torch.randint(len(self.words), (3,)).tolist())))
        return found

    def told(self, sentences: Sequence[str]) -> Float[Tensor, "N D"]:
        """The teacher's embeddings, of unit length."""
        device = next(self.learner.parameters()).device
        words = self.teacher.tokenizer(
            list(sentences), padding=True, truncation=True, max_length=self.teacher.max_length, return_tensors="pt"
        ).to(device)
        with torch.no_grad(), autocast(device, self.prior.precision):
            hidden = self.teacher.model(**words).last_hidden_state.float()
        mask = words.attention_mask[..., None]
        return F.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1)

    def estimated(self, sentences: Sequence[str]) -> Float[Tensor, "N D"]:
        device = next(self.learner.parameters()).device
        words = self.tokenizer(
            list(sentences),
            padding="max_length",
            truncation=True,
            max_length=self.prior.embeddings.length(self.part),
            return_tensors="pt",
        ).to(device)
        with autocast(device, self.prior.precision):
            pooled = self.encoder(words.input_ids).pooler_output
        return self.learner[1](pooled.float())

    def loss(self, batch: PosedViews, share: Share | None = None) -> dict[str, Tensor]:
        assert batch.captions is not None
        share = share or Share.of(len(batch.captions))
        all_captions = [*[""] * share.first, *batch.captions, *[""] * (share.scenes - share.last)]
        each = 1 + self.phrases
        sentences = self.sentences(all_captions)[each * share.first : each * share.last]
        y, e = self.estimated(sentences), self.told(sentences)
        terms = {"cosine": 1 - F.cosine_similarity(y, e).mean(), "mse": self.mse * (y - e).square().sum(1).mean()}
        return {name: share.part * term for name, term in terms.items()}

    @torch.no_grad()
    def validate(self, batches: Iterable[PosedViews]) -> dict[str, float]:
        """Mean cosine of estimates and embeddings of captions and of words that no random phrase has."""
        asked = {
            "validation/cosine": [caption for batch in batches for caption in batch.captions or ()],
            "validation/cosine_words": self.held_out[:: max(1, len(self.held_out) // VALIDATED)],
        }
        return {
            name: float(F.cosine_similarity(self.estimated(texts), self.told(texts)).mean())
            for name, texts in asked.items()
        }

    def preview(self, prompts: Sequence[str], batches: Sequence[PosedViews]) -> dict[str, Float[Tensor, "V 3 H W"]]:
        return {}

    def export(self, folder: Path, facts: Mapping[str, Any]) -> None:
        with whole_folder(folder) as new:
            self.prior.export(new, facts)
            for old in (new / self.part.encoder).glob("model*"):
                old.unlink()
            self.encoder.save_pretrained(new / self.part.encoder)
            halve(new / self.part.encoder)
