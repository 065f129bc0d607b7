"""A small Stable Diffusion with random weights, in diffusers' folder format, ready to be trained.

    python experiments/latent_prior/skeleton.py --out outputs/latent_prior/0_skeleton

128 pixels become 16 x 16 latents of 4 channels; a CLIP text encoder of its own reads prompts with a tokenizer made from toybox
captions and the words that MiniLM knows. The same seed gives the same weights, and the tokenizer is always the same.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from diffusion3d.priors.text import minilm_folder
from diffusion3d.priors.weights import halve

HEAD = 32
"""Channels of an attention head; fewer cost more time on a CPU."""
LOG_VARIANCE = -6.0
"""Of the noise on the latents before training."""
START, END = "<|startoftext|>", "<|endoftext|>"
SUFFIX = "</w>"
CAPTIONS = 20_000
FREQUENT = 2_000
"""A caption's words count as often as they stand in CAPTIONS captions, a word of MiniLM's as FREQUENT over its rank."""


@dataclass(frozen=True)
class Sizes:
    """Of the networks; what ships is the default.

    Attributes:
        vae: channels of the autoencoder's levels; each but the last halves the resolution.
        unet: channels of the UNet's levels; all but the first attend, to one another and to the text.
        text: width of the text encoder.
        layers: of the text encoder.
        length: tokens of a prompt.
        vocabulary: tokens that the tokenizer knows.
        image: side of the images, pixels.
        groups: of the group norms.
    """

    vae: tuple[int, ...] = (32, 32, 64, 96)
    unet: tuple[int, ...] = (80, 96, 96)
    text: int = 128
    layers: int = 2
    length: int = 32
    vocabulary: int = 3072
    image: int = 128
    groups: int = 16


def corpus() -> list[str]:
    """Toybox captions, and English words that MiniLM has a token for, the frequent ones several times."""
    from diffusion3d.data.toybox.generate import draw

    rng = np.random.default_rng(0)
    captions = [draw(0, index).caption(rng) for index in range(CAPTIONS)]
    vocabulary = json.loads((minilm_folder() / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
    words = [word for word in sorted(vocabulary, key=vocabulary.get) if word.isascii() and word.isalpha()]
    return captions + [word for rank, word in enumerate(words, 1) for _ in range(1 + FREQUENT // rank)]


def bpe(texts: Sequence[str], size: int) -> tuple[list[str], list[tuple[str, str]]]:
    """The tokens, in CLIP's order, and merges of a byte-level BPE (Sennrich et al. 2016)."""
    from tokenizers import Tokenizer, models, trainers
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    letters = sorted(ByteLevel.alphabet())
    ends = [letter + SUFFIX for letter in letters]
    pattern = CLIPTokenizer(vocab={START: 0, END: 1}, merges=[]).backend_tokenizer
    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=SUFFIX))
    tokenizer.normalizer, tokenizer.pre_tokenizer = pattern.normalizer, pattern.pre_tokenizer
    trainer = trainers.BpeTrainer(
        vocab_size=size - 2,
        initial_alphabet=letters,
        special_tokens=ends,  # so that their numbers, which break ties, do not depend on a hash
        end_of_word_suffix=SUFFIX,
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    merges = [tuple(merge) for merge in json.loads(tokenizer.to_str())["model"]["merges"]]
    fixed = [*letters, *ends]
    return [*fixed, *("".join(merge) for merge in merges), START, END], merges


def pipeline(sizes: Sizes, seed: int, words: Any) -> Any:
    """A diffusers.StableDiffusionPipeline with random weights and a tokenizer."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(seed)
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(words),
            hidden_size=sizes.text,
            intermediate_size=4 * sizes.text,
            num_hidden_layers=sizes.layers,
            num_attention_heads=max(1, sizes.text // HEAD),
            max_position_embeddings=sizes.length,
            projection_dim=sizes.text,
            bos_token_id=words.bos_token_id,
            eos_token_id=words.eos_token_id,
            pad_token_id=words.pad_token_id,
        )
    )
    levels, latents = len(sizes.vae), 4
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=sizes.vae,
        layers_per_block=1,
        mid_block_add_attention=False,  # so that crops teach it what whole images need
        latent_channels=latents,
        norm_num_groups=sizes.groups,
        sample_size=sizes.image,
    )
    with torch.no_grad():  # latents begin with little noise: otherwise the autoencoder must first learn to drown it out
        vae.quant_conv.weight[latents:] = 0
        vae.quant_conv.bias[latents:] = LOG_VARIANCE
    attending = len(sizes.unet) - 1
    unet = UNet2DConditionModel(
        sample_size=sizes.image // 2 ** (levels - 1),
        down_block_types=("DownBlock2D",) + ("CrossAttnDownBlock2D",) * attending,
        up_block_types=("CrossAttnUpBlock2D",) * attending + ("UpBlock2D",),
        block_out_channels=sizes.unet,
        layers_per_block=1,
        cross_attention_dim=sizes.text,
        attention_head_dim=max(1, sizes.unet[-1] // HEAD),  # it is their number, as Stable Diffusion 1 has it
        norm_num_groups=sizes.groups,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=text,
        tokenizer=words,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def write(folder: Path, sizes: Sizes, seed: int, texts: Sequence[str]) -> dict[str, int]:
    """Write a pipeline in float16; {component: its parameters}."""
    from transformers import CLIPTokenizer

    tokens, merges = bpe(texts, sizes.vocabulary)
    vocabulary = {token: number for number, token in enumerate(tokens)}
    words = CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=sizes.length)
    made = pipeline(sizes, seed, words)
    made.save_pretrained(folder)
    halve(folder)
    # transformers 5 writes tokenizer.json, earlier ones read these
    (folder / "tokenizer" / "vocab.json").write_text(json.dumps(vocabulary, ensure_ascii=False), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(merge) for merge in merges)]
    (folder / "tokenizer" / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    parts = {"vae": made.vae, "unet": made.unet, "text_encoder": made.text_encoder}
    return {name: sum(p.numel() for p in part.parameters()) for name, part in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    parameters = write(given.out, Sizes(), given.seed, corpus())
    size = sum(path.stat().st_size for path in given.out.rglob("*") if path.is_file())
    counts = ", ".join(f"{name} {count / 1e6:.2f} M" for name, count in parameters.items())
    print(f"{given.out}: {counts} parameters, {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
