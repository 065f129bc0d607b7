"""One score distillation step at the size of Stable Diffusion 1.5, with random weights: its time and its memory.

    python experiments/stable_diffusion/full_size_step.py --folder /tmp/sd15_random --out experiments/stable_diffusion/step.json

Weights say nothing about either. The folder (3.4 GB of UNet, 0.3 of VAE, 0.5 of text encoder, in float32) is made by the first
call, which ends there; the second reads it as any other model: prior=stable_diffusion prior.model=FOLDER. One line of JSON for
each part of the step. The peak of memory is the process's so far, on the CPU with what it has mapped of the weights' files.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from diffusion3d.cameras import orbit
from diffusion3d.checks import PRECISIONS
from diffusion3d.errors import UserError
from diffusion3d.guidance.base import Step
from diffusion3d.guidance.sds import SDS
from diffusion3d.precision import compute_dtype, pick_device
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.rendering.render import Render

WORDS = 49408
"""Of CLIP's vocabulary."""


def make(folder: Path) -> None:
    """A pipeline with the settings of Stable Diffusion 1.5 and random weights; its tokenizer knows letters alone."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    letters = [chr(code) for code in range(33, 127)]
    ends = ["<|startoftext|>", "<|endoftext|>"]
    words = [*letters, *(f"{letter}</w>" for letter in letters)]
    vocabulary = {word: number for number, word in enumerate(words)}
    vocabulary |= {word: WORDS - 2 + number for number, word in enumerate(ends)}
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=WORDS,
        hidden_size=768,
        intermediate_size=3072,
        num_hidden_layers=12,
        num_attention_heads=12,
        max_position_embeddings=77,
        projection_dim=768,
        bos_token_id=WORDS - 2,
        eos_token_id=WORDS - 1,
        pad_token_id=WORDS - 1,
    )
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(
            down_block_types=("DownEncoderBlock2D",) * 4,
            up_block_types=("UpDecoderBlock2D",) * 4,
            block_out_channels=(128, 256, 512, 512),
            layers_per_block=2,
            sample_size=512,
        ),
        text_encoder=CLIPTextModel(text),
        tokenizer=CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77),
        unet=UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8),
        scheduler=DDIMScheduler(
            beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False, steps_offset=1
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    pipeline.save_pretrained(folder)


class Picture:
    """A scene that is a picture: what a render costs is not asked here."""

    def __init__(self, size: int, views: int, device: torch.device) -> None:
        self.image = torch.rand(1, views, 3, size, size, device=device, requires_grad=True)

    def render(self) -> Render:
        one = torch.ones_like(self.image[:, :, :1])
        return Render(self.image, one, one)


class Clock:
    """Writes a line of JSON for everything that is timed."""

    def __init__(self, out: Path | None, facts: dict[str, object]) -> None:
        self.out, self.lines = out, [facts]

    @contextmanager
    def timed(self, part: str) -> Iterator[None]:
        before, cpu = time.perf_counter(), time.process_time()
        yield
        line = {
            "part": part,
            "seconds": round(time.perf_counter() - before, 2),
            "cpu_seconds": round(time.process_time() - cpu, 2),
            "peak_gb": round(peak(), 2),
        }
        print(json.dumps(line), flush=True)
        self.lines.append(line)
        if self.out is not None:
            self.out.write_text(json.dumps(self.lines, indent=1) + "\n")


def peak() -> float:
    """The most memory that this process has had so far, GB; on CUDA, of the device."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e9
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="of the pipeline; made where there is none")
    parser.add_argument("--out", type=Path, help="a JSON file")
    parser.add_argument("--views", type=int, default=1)
    parser.add_argument("--steps", type=int, default=2, help="the first one warms up")
    parser.add_argument("--precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--vae-precision", default="auto", choices=PRECISIONS)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 is all cores")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if not (given.folder / "model_index.json").is_file():
        print(f"making {given.folder}", flush=True)
        make(given.folder)
        print("made; run again, so that making it does not count in the peak of memory")
        return
    device = pick_device(given.device)
    dtype = str(compute_dtype(device, given.precision)).removeprefix("torch.")
    facts = {
        "device": str(device),
        "cpu": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dtype": dtype,
        "vae_precision": given.vae_precision,
        "views": given.views,
    }
    print(json.dumps(facts), flush=True)
    clock = Clock(given.out, facts)
    with clock.timed("load"):
        prior = StableDiffusion(
            str(given.folder), precision=given.precision, vae_precision=given.vae_precision, text_cache=None
        )
        prior.freeze(device)
    facts["unet_parameters"] = sum(p.numel() for p in prior.network.parameters())
    facts["vae_parameters"] = sum(p.numel() for p in prior.vae.parameters())
    guidance = SDS(prior, scale=7.5, rescale=0.0, weighting="sigma_squared")
    views = torch.linspace(0, 270, given.views)[None]
    cameras = orbit(views, torch.full_like(views, 15.0), 3.0, 40.0, prior.image_size, prior.image_size).to(device)
    with clock.timed("text"):
        condition = prior.condition(["a castle"], cameras)
        prior.condition([""], cameras)
    scene = Picture(prior.image_size, given.views, device)
    for step in range(given.steps):
        scene.image.grad = None
        with clock.timed(f"step {step}"):
            losses = guidance(scene, scene.render(), cameras, condition, Step(0, 1))  # type: ignore[arg-type]
            sum(losses.values(), torch.zeros((), device=device)).backward()
        assert scene.image.grad is not None and bool(torch.isfinite(scene.image.grad).all())
    x = prior.encode(scene.image.detach())
    t = torch.full((1,), 500, device=device)
    with torch.no_grad():
        with clock.timed("unet, text and null"):
            prior.predict(x, t, {"null": condition.without_text(), "cond": condition})
        with clock.timed("decode"):
            prior.decode(x)
    with clock.timed("encode with gradient"):
        prior.encode(scene.image).square().sum().backward()


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        sys.exit(f"error: {error}")
