"""Stable Diffusion and its kin against diffusers' own pipelines, on small ones with random weights."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from choices import cameras
from diffusion3d.diffusion.condition import Prediction
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.errors import UserError
from diffusion3d.guidance.editing import DDS
from diffusion3d.guidance.lora import LoRA
from diffusion3d.priors.draw import guided
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.priors.view_prompts import ViewPrompts
from tiny_pipelines import MAKE, copy, edit, folder, pipeline

PROMPT = "a castle"


def make(kind, path=None, **options):
    return StableDiffusion(str(path or folder(kind)), **{"precision": "fp32", **options}).freeze(torch.device("cpu"))


def noise(prior, scenes=1, views=1, seed=0):
    return torch.randn(prior.noise_shape(scenes, views), generator=torch.Generator().manual_seed(seed))


def case(prior, views=2, t=600):
    return noise(prior, 1, views), torch.full((1, views), t), prior.condition([PROMPT], cameras(1, views))


def sample(prior, x, levels, scale, prompt=PROMPT):
    condition = prior.condition([prompt], cameras(1, 1))

    def denoiser(x_t, t):
        return Prediction(guided(prior, x_t, t, condition, scale, 0.0))

    return Sampler(len(levels)).sample(denoiser, prior.schedule, x, [*levels, -1]).x0


@pytest.mark.parametrize("kind", ["sd", "sd_v", "sdxl"])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_sampling_is_that_of_diffusers_own_pipeline(kind, scale):
    """DDIM under classifier-free guidance from the same noise; the v model has no signal at its last level."""
    prior, theirs = make(kind), pipeline(kind)
    if kind == "sd_v":
        theirs.scheduler.register_to_config(timestep_spacing="trailing")
        assert prior.schedule.alphas_cumprod[-1] == 0
    x = noise(prior)
    options = {"num_inference_steps": 5, "guidance_scale": scale, "output_type": "latent"}
    expected = theirs(PROMPT, latents=x[0], **options).images
    levels = theirs.scheduler.timesteps.tolist()
    assert levels[0] == (999 if kind == "sd_v" else 801)
    found = sample(prior, x, levels, scale)
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-4)
    image = theirs(PROMPT, latents=x[0], **{**options, "output_type": "pt"}).images
    torch.testing.assert_close(prior.decode(found)[0].clamp(0, 1), image, atol=1e-4, rtol=1e-4)


def test_a_latent_consistency_model_is_told_the_scale():
    prior, theirs = make("lcm", embedded_scale=4.0), pipeline("lcm")
    x, options = noise(prior), {"num_inference_steps": 1, "output_type": "latent"}
    for scale, same in ((4.0, True), (8.0, False)):
        expected = theirs(PROMPT, latents=x[0], guidance_scale=scale, **options).images
        assert torch.allclose(sample(prior, x, [999], 1.0)[0], expected, atol=1e-4, rtol=1e-4) == same


@pytest.mark.parametrize("kind", ["sd", "sdxl"])
@torch.no_grad()
def test_a_turbo_model_draws_in_one_step_as_its_pipeline_does(kind, tmp_path):
    from diffusers import EulerAncestralDiscreteScheduler

    path, theirs = copy(kind, tmp_path / f"{kind}-turbo"), pipeline(kind)
    theirs.scheduler = EulerAncestralDiscreteScheduler.from_config(theirs.scheduler.config, timestep_spacing="trailing")
    theirs.scheduler.save_pretrained(path / "scheduler")
    prior = make(kind, path)
    x = noise(prior)
    start = x[0] / (1 + 1 / theirs.scheduler.init_noise_sigma**2) ** 0.5  # s x / sqrt(1 + s²)
    expected = theirs(PROMPT, latents=x[0], num_inference_steps=1, guidance_scale=0.0, output_type="latent").images
    assert prior.distilled
    assert torch.allclose(sample(prior, start[None], [999], 1.0)[0], expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("kind", "prediction"),
    [("sd", "epsilon"), ("sd", "v_prediction"), ("sd", "sample"), ("sd_v", "v_prediction"), ("deepfloyd", "epsilon")],
)
@pytest.mark.parametrize("level", [1, 500, 999])
@torch.no_grad()
def test_x0_is_that_of_the_folders_own_scheduler(kind, prediction, level, tmp_path):
    path = copy(kind, tmp_path / "it")
    edit(path / "scheduler/scheduler_config.json", prediction_type=prediction, thresholding=False, clip_sample=False)
    prior, theirs = make(kind, path), pipeline(kind)
    x_t, t, condition = case(prior, 1, level)
    scheduler = type(theirs.scheduler).from_pretrained(path, subfolder="scheduler")
    scheduler.set_timesteps(1000)
    said = {"clean_caption": False} if kind == "deepfloyd" else {}
    tokens = theirs.encode_prompt(
        PROMPT, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False, **said
    )
    answer = theirs.unet(x_t[0], level, encoder_hidden_states=tokens[0]).sample
    assert answer.shape[1] == (6 if kind == "deepfloyd" else 4)
    expected = scheduler.step(answer, level, x_t[0]).pred_original_sample
    found = prior.denoise(x_t, t, condition).x0
    # DeepFloyd's last level divides by an alpha of 5e-5
    torch.testing.assert_close(found[0], expected, atol=1e-4, rtol=1e-3 if level == 999 else 1e-4)


@torch.no_grad()
def test_the_text_is_that_of_the_pipeline_for_every_kind():
    for kind in ("sd", "sdxl", "deepfloyd"):
        theirs = pipeline(kind)
        options = {"clean_caption": False} if kind == "deepfloyd" else {"device": "cpu", "num_images_per_prompt": 1}
        expected = theirs.encode_prompt(PROMPT, do_classifier_free_guidance=True, **options)
        prior = make(kind)
        condition = prior.condition([PROMPT], cameras(1, 1))
        torch.testing.assert_close(condition.tokens[0], expected[0], atol=1e-5, rtol=1e-5)
        x_t, t, _ = case(prior, 1)
        null = dataclasses.replace(condition, tokens=expected[1][:, None])
        if kind == "sdxl":
            torch.testing.assert_close(condition.pooled[0], expected[2], atol=1e-5, rtol=1e-5)
            null = dataclasses.replace(null, pooled=expected[3][:, None])
        found = prior.denoise(x_t, t, condition.without_text()).x0
        torch.testing.assert_close(found, prior.denoise(x_t, t, null).x0, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_null_text_of_sdxl_is_empty_or_zero_as_its_pipeline_says(tmp_path):
    path = copy("sdxl", tmp_path / "it")
    edit(path / "model_index.json", force_zeros_for_empty_prompt=False)
    zero, empty = make("sdxl"), make("sdxl", path)
    x_t, t, condition = case(zero)
    said = zero.condition([""], condition.cameras)
    found = empty.denoise(x_t, t, condition.without_text()).x0
    torch.testing.assert_close(found, zero.denoise(x_t, t, said).x0)
    assert not torch.allclose(found, zero.denoise(x_t, t, condition.without_text()).x0, atol=1e-4)


@torch.no_grad()
def test_nothing_divides_by_a_signal_that_is_not_there(tmp_path):
    prior = make("sd_v")
    x_t, t, condition = case(prior, 2, 999)
    answer = prior.denoise(x_t, t, condition).x0
    assert torch.isfinite(answer).all() and answer.std() > 0.01
    path = copy("sd_v", tmp_path / "it")
    edit(path / "scheduler/scheduler_config.json", prediction_type="epsilon")
    assert (make("sd", path).denoise(x_t, t, condition).x0 == 0).all()


def test_the_vaes_gradient_is_that_of_finite_differences():
    prior = make("sd")
    generator = torch.Generator().manual_seed(5)
    images = torch.rand(1, 2, 3, 32, 32, generator=generator)
    weights, direction = noise(prior, 1, 2), torch.randn(images.shape, generator=generator)

    def value(x):
        return (prior.encode(x) * weights).sum()

    images.requires_grad_()
    (gradient,) = torch.autograd.grad(value(images), images)
    with torch.no_grad():
        slope = (value(images + 5e-3 * direction) - value(images - 5e-3 * direction)) / 1e-2
    assert (gradient * direction).sum().item() == pytest.approx(slope.item(), rel=5e-3)
    assert all(parameter.grad is None for parameter in prior.parameters())


@torch.no_grad()
def test_latents_are_those_of_the_pipelines_vae():
    prior, theirs = make("sd"), pipeline("sd")
    images = torch.rand(2, 2, 3, 32, 32)
    expected = theirs.vae.encode(images.flatten(0, 1) * 2 - 1).latent_dist.mean * theirs.vae.config.scaling_factor
    torch.testing.assert_close(prior.encode(images).flatten(0, 1), expected)


@pytest.mark.parametrize("kind", ["sd", "deepfloyd"])
@torch.no_grad()
def test_images_of_another_size_are_resized_before_they_are_encoded(kind):
    prior = make(kind)
    images = torch.rand(1, 2, 3, 48, 56)
    small = F.interpolate(images[0], (32, 32), mode="bilinear", antialias=True)[None]
    torch.testing.assert_close(prior.encode(images), prior.encode(small))
    large = make(kind, image_size=64)
    assert large.encode(images).shape == large.noise_shape(1, 2) and large.noise_shape(1, 2)[-1] == 2 * prior.side


def test_vae_slices_and_tiles_carry_gradients():
    plain, sliced, tiled = (make("sd", image_size=64, **o) for o in ({}, {"vae_slicing": True}, {"vae_tiling": True}))
    images = torch.rand(1, 2, 3, 64, 64, requires_grad=True)
    gradients = []
    for prior in (plain, sliced, tiled):
        (gradient,) = torch.autograd.grad(prior.encode(images).square().sum(), images)
        gradients.append(gradient)
        assert prior.decode(noise(prior)).shape == (1, 1, 3, 64, 64)
    torch.testing.assert_close(gradients[0], gradients[1], atol=1e-5, rtol=1e-4)
    assert torch.isfinite(gradients[2]).all() and (gradients[2] != 0).any()
    assert torch.nn.functional.cosine_similarity(gradients[0].flatten(), gradients[2].flatten(), dim=0) > 0.7


@torch.no_grad()
def test_attention_in_slices_is_attention():
    x_t, t, condition = case(make("sd"))
    expected = make("sd").denoise(x_t, t, condition).x0
    torch.testing.assert_close(
        make("sd", attention_slicing=True).denoise(x_t, t, condition).x0, expected, atol=1e-5, rtol=0
    )


@pytest.mark.parametrize(("precision", "dtype"), [("bf16", torch.bfloat16), ("fp16", torch.float16)])
@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm", "deepfloyd", "mvdream"])
def test_half_precision_is_near_and_what_comes_out_is_float32(kind, precision, dtype):
    exact, half = make(kind), make(kind, precision=precision)
    assert {p.dtype for p in half.network.parameters()} == {dtype}
    assert half.vae is None or {p.dtype for p in half.vae.parameters()} == {torch.float32}
    with torch.no_grad():
        x_t, t, condition = case(exact, t=300)
        said = half.condition([PROMPT], condition.cameras)
        x0 = half.denoise(x_t, t, said).x0
        assert said.tokens.dtype == x0.dtype == torch.float32
        assert (x0 - exact.denoise(x_t, t, condition).x0).std() < 0.1 * x0.std()


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["sd", "sdxl", "lcm", "deepfloyd", "mvdream"])
def test_vsds_learner_adapts_every_layer_of_the_unet(kind, precision):
    prior = make(kind, precision=precision)
    torch.manual_seed(0)
    learner, (x, t, condition) = LoRA(prior, rank=2, lr=1e-2), case(prior)
    t = t[:, 0]
    with torch.no_grad():
        answer = prior.denoise(x, t, condition).x0
        assert torch.equal(learner.denoise(x, t, condition).x0, answer)
    for _ in range(2):
        learner.learn(x, condition)
    layers = sum(isinstance(m, nn.Linear | nn.Conv2d) for m in make(kind).network.modules())
    assert len(learner.adapters) == layers
    assert all((adapter[1].weight != 0).any() for adapter in learner.adapters), "an adapter that nothing reaches"
    with torch.no_grad():
        assert not torch.equal(learner.denoise(x, t, condition).x0, answer)
        assert torch.equal(prior.denoise(x, t, condition).x0, answer), "nothing stays attached"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_prior_that_is_not_frozen_learns_in_float32(precision):
    prior = StableDiffusion(str(folder("sd")), precision=precision)
    x_t, t, condition = case(prior)
    prior.train().denoise(x_t, t, condition).x0.square().mean().backward()
    assert all(p.dtype == torch.float32 and p.grad.isfinite().all() for p in prior.network.parameters())
    assert not prior.vae.training and all(p.grad is None for p in prior.vae.parameters())


@pytest.mark.parametrize("kind", sorted(MAKE))
@torch.no_grad()
def test_what_is_saved_is_what_was_loaded(kind, tmp_path):
    from diffusers import DiffusionPipeline

    prior = make(kind)
    for parameter in prior.network.parameters():
        parameter.mul_(1.1)
    prior.save(tmp_path / "saved")
    again = make(kind, tmp_path / "saved")
    x_t, t, condition = case(prior)
    assert torch.equal(again.denoise(x_t, t, condition).x0, prior.denoise(x_t, t, condition).x0)
    assert again.fingerprint != prior.fingerprint == make(kind).fingerprint
    if not kind.startswith("mvdream"):
        theirs = DiffusionPipeline.from_pretrained(tmp_path / "saved")
        assert type(theirs) is type(pipeline(kind))
        assert torch.equal(theirs.unet.conv_in.weight, prior.network.conv_in.weight)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    (tmp_path / "saved" / "unet" / "stale.safetensors").touch()
    prior.save(tmp_path / "saved")  # and once more over it
    again.save(tmp_path / "saved")
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == written
    with pytest.raises(TypeError, match="not JSON serializable"):
        make(kind).export(tmp_path / "saved", {"loss": object()})
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == written
    parameter = next(make(kind, tmp_path / "saved").network.parameters())
    assert torch.equal(parameter, next(prior.network.parameters())), "those of the pipeline that was not exported"


@torch.no_grad()
def test_a_saved_pipeline_draws_with_diffusers_alone(tmp_path):
    from diffusers import StableDiffusionPipeline

    prior = make("sd")
    prior.save(tmp_path / "saved")
    theirs = StableDiffusionPipeline.from_pretrained(tmp_path / "saved")
    x = noise(prior)
    image = theirs(PROMPT, latents=x[0], num_inference_steps=3, guidance_scale=4.0, output_type="pt").images
    found = prior.decode(sample(prior, x, theirs.scheduler.timesteps.tolist(), 4.0))[0].clamp(0, 1)
    torch.testing.assert_close(found, image, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_a_distilled_model_has_no_estimate_without_text(tmp_path):
    turbo = copy("sd", tmp_path / "sd-turbo")
    for prior in (make("lcm"), make("sd", turbo), make("sd", distilled=True)):
        x_t, t, condition = case(prior)
        assert torch.isfinite(prior.denoise(x_t, t, condition).x0).all()
        with pytest.raises(UserError, match=r"has no estimate without text: set guidance.scale=1"):
            prior.denoise(x_t, t, condition.without_text())
        with pytest.raises(UserError, match=r"has no estimate without text: set guidance.scale=1"):
            guided(prior, x_t, t, condition, 3.0, 0.0)
    prior = make("sd", turbo, distilled=False)
    assert torch.isfinite(prior.denoise(x_t, t, condition.without_text()).x0).all()


def test_the_words_for_a_side_that_are_cut_off_are_said_so(capsys):
    prior, plain = make("sd", view_prompts=ViewPrompts()), make("sd")
    length = plain.embeddings.length(plain.kind.text[0])
    fits = next(p for n in range(length, 0, -1) if plain.warning(p := " ".join(["a"] * n)) is None)
    assert prior.warning(fits) == f"the prompt is cut to the {length} tokens that the text encoder reads"
    assert prior.warning("a") is None and not capsys.readouterr().err


@torch.no_grad()
def test_view_words_reach_their_views_and_plain_text_has_none():
    prior, plain = make("sd", view_prompts=ViewPrompts()), make("sd")
    four = cameras(1, 4)
    condition = prior.condition([PROMPT], four, torch.zeros(1, 3))
    sides = []
    x_t, t = noise(prior, 1, 4), torch.full((1, 4), 500)
    turned = (four.azimuth[0] / 45).round() * 45
    assert len(set(turned.tolist())) == 4, "the views look from four sides"
    x0 = prior.denoise(x_t, t, condition).x0
    for view, azimuth in enumerate(four.azimuth[0].abs().tolist()):
        side = "front" if azimuth < 45 else "back" if azimuth > 135 else "side"
        sides.append(side)
        said = plain.condition([f"{PROMPT}, {side} view"], four)
        torch.testing.assert_close(x0[:, view], plain.denoise(x_t, t, said).x0[:, view], atol=1e-5, rtol=1e-5)
    assert len(set(sides)) > 1
    torch.testing.assert_close(prior.plain_text([PROMPT], four).tokens, plain.condition([PROMPT], four).tokens)
    both = prior.predict(x_t, t, {"cond": condition, "other": condition.with_text(prior.plain_text(["a dog"], four))})
    torch.testing.assert_close(both["cond"].x0, x0, atol=1e-5, rtol=1e-5)


def test_of_a_schemes_prompts_those_that_say_what_is_seen_are_worded():
    prior, four = make("sd", view_prompts=ViewPrompts()), cameras(1, 4)
    guidance = DDS(prior, source_prompt="a dog", negative_prompt="ugly", prompts=["a cat"], prompt_weights=[0.5])
    condition = prior.condition([PROMPT], four)
    rows = {name: guidance.told(name, condition).tokens.shape[1] for name in ("cond", "source", "negative", "prompt_0")}
    assert rows == {"cond": 4, "source": 4, "negative": 1, "prompt_0": 1}
    assert torch.equal(guidance.told("source", condition).tokens, prior.condition(["a dog"], four).tokens)
    x_t, t = noise(prior, 1, 4), torch.tensor([500])
    assert torch.isfinite(guidance.guided(x_t, t, condition, 7.5)).all()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, r"prior.image_size=30 must be a multiple of 4"),
        ({"image_size": 31}, r"prior.image_size=31 must be a multiple of 4"),
    ],
)
def test_sizes_that_cannot_be_are_refused(options, message):
    with pytest.raises(UserError, match=message):
        make("sd", **options)


def test_attention_of_views_is_not_sliced():
    with pytest.raises(UserError, match=r"prior.attention_slicing is not for multi-view models"):
        make("mvdream", attention_slicing=True)


def test_a_prompt_that_is_cut_is_told_so():
    prior = make("sd")
    assert prior.warning("a castle") is None
    assert "cut to the 16 tokens" in prior.warning("a castle on a hill by the sea")
