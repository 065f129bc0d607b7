"""Small pipelines with random weights, in diffusers' own folder format: every kind that `prior=stable_diffusion` reads.

A folder is made once a session, in well under a second.
"""

import functools
import json
import shutil
import string
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file

SCRATCH = tempfile.TemporaryDirectory(prefix="tiny_pipelines_")
"""Removed when Python ends."""
CROSS, LENGTH, LATENTS = 32, 16, 4
"""Width of text tokens, their number, and channels of latents."""


def clip_tokenizer():
    from transformers import CLIPTokenizer

    letters = [*string.ascii_lowercase, *string.digits, *",.-'()"]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={word: i for i, word in enumerate(words)}, merges=[], model_max_length=LENGTH)


def t5_tokenizer():
    from transformers import T5Tokenizer

    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.0), *((c, -3.0) for c in string.ascii_lowercase)]
    return T5Tokenizer(vocab=pieces, extra_ids=0)


def clip(width=CROSS, projection=False):
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tokenizer = clip_tokenizer()
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=2 * width,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=LENGTH,
        projection_dim=width,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def vae():
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(16, 16),
        layers_per_block=1,
        latent_channels=LATENTS,
        norm_num_groups=8,
        sample_size=32,
        scaling_factor=0.5,
    ).eval()


def unet(**changed):
    from diffusers import UNet2DConditionModel

    usual = {
        "sample_size": 16,
        "in_channels": LATENTS,
        "out_channels": LATENTS,
        "down_block_types": ("CrossAttnDownBlock2D", "DownBlock2D"),
        "up_block_types": ("UpBlock2D", "CrossAttnUpBlock2D"),
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "cross_attention_dim": CROSS,
        "attention_head_dim": 2,
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**usual, **changed}).eval()


def scheduler(**changed):
    from diffusers import DDIMScheduler

    usual = {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "clip_sample": False,
        "steps_offset": 1,
    }
    return DDIMScheduler(**{**usual, **changed})


def sd(unet_changes=(), scheduler_changes=()):
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(**dict(unet_changes)),
        scheduler=scheduler(**dict(scheduler_changes)),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def sdxl(**changed):
    from diffusers import StableDiffusionXLPipeline

    return StableDiffusionXLPipeline(
        vae=vae(),
        text_encoder=clip(),
        text_encoder_2=clip(24, projection=True),
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer(),
        unet=unet(
            cross_attention_dim=CROSS + 24,
            addition_embed_type="text_time",
            addition_time_embed_dim=8,
            projection_class_embeddings_input_dim=24 + 6 * 8,
        ),
        scheduler=scheduler(),
        **changed,
    )


def lcm():
    from diffusers import LatentConsistencyModelPipeline, LCMScheduler

    return LatentConsistencyModelPipeline(
        vae=vae(),
        text_encoder=clip(),
        tokenizer=clip_tokenizer(),
        unet=unet(time_cond_proj_dim=16),
        scheduler=LCMScheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )


def deepfloyd():
    from diffusers import DDPMScheduler, IFPipeline
    from transformers import T5Config, T5EncoderModel

    tokenizer = t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer),
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
    )
    network = unet(
        sample_size=32,
        in_channels=3,
        out_channels=6,
        down_block_types=("ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"),
        addition_embed_type="text",
        addition_embed_type_num_heads=2,
        attention_head_dim=8,
        encoder_hid_dim=24,
        encoder_hid_dim_type="text_proj",
        resnet_time_scale_shift="scale_shift",
        class_embed_type=None,
    )
    return IFPipeline(
        tokenizer=tokenizer,
        text_encoder=T5EncoderModel(config).eval(),
        unet=network,
        scheduler=DDPMScheduler(
            beta_schedule="squaredcos_cap_v2", variance_type="learned_range", clip_sample=True, thresholding=True
        ),
        safety_checker=None,
        feature_extractor=None,
        watermarker=None,
        requires_safety_checker=False,
    )


MVDREAM = {
    "_class_name": "MultiViewUNetModel",
    "image_size": 16,
    "in_channels": LATENTS,
    "out_channels": LATENTS,
    "model_channels": 32,
    "num_res_blocks": 1,
    "attention_resolutions": [2, 1],
    "channel_mult": [1, 2, 2],
    "num_head_channels": 16,
    "transformer_depth": 1,
    "context_dim": CROSS,
    "camera_dim": 16,
}
"""Settings of a multi-view UNet as its published program names them."""


def mvdream():
    """Stable Diffusion with a UNet that embeds cameras; diffusers has no pipeline of this kind."""
    from diffusers import UNet2DConditionModel

    from diffusion3d.priors.mvdream import diffusers_config

    made = sd()
    made.unet = UNet2DConditionModel(**diffusers_config(MVDREAM)).eval()
    return made


MAKE = {
    "sd": sd,
    "sd_v": functools.partial(sd, (), (("prediction_type", "v_prediction"), ("rescale_betas_zero_snr", True))),
    "sdxl": sdxl,
    "lcm": lcm,
    "deepfloyd": deepfloyd,
    "mvdream": mvdream,
    "mvdream_ldm": mvdream,
}


def pipeline(kind):
    """A new one with random weights, always the same."""
    torch.manual_seed(0)
    made = MAKE[kind]()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in made.unet.parameters():  # no input may lack an effect
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    made.set_progress_bar_config(disable=True)
    return made


@functools.cache
def folder(kind) -> Path:
    """Where the pipeline of a kind is; nobody may change it."""
    path = Path(SCRATCH.name) / kind
    made = pipeline(kind)
    made.save_pretrained(path)
    if kind.startswith("mvdream"):
        edit(path / "model_index.json", _class_name="MVDreamPipeline")
    if kind == "mvdream_ldm":
        from diffusion3d.priors.mvdream import ldm_names

        theirs = {ours: theirs for theirs, ours in ldm_names(made.unet.config)}
        state = {theirs[name]: value for name, value in made.unet.state_dict().items()}
        save_file(state, path / "unet" / "diffusion_pytorch_model.safetensors")
        (path / "unet" / "config.json").write_text(json.dumps(MVDREAM))
    return path


def edit(path, **changed):
    """Change fields of a JSON file."""
    path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))


def copy(kind, path) -> Path:
    """A folder of a kind that may be changed."""
    return Path(shutil.copytree(folder(kind), path))
