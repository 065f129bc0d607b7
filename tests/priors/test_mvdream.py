"""The multi-view UNet against the plain one that it extends, and against a second reading of its attention."""

import json
import math

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint
from safetensors.torch import load_file

from choices import cameras
from diffusion3d.cameras import orbit
from diffusion3d.diffusion.sampler import Sampler
from diffusion3d.errors import UserError
from diffusion3d.priors.draw import draw
from diffusion3d.priors.mvdream import camera_numbers, diffusers_config, join_views, ldm_names
from diffusion3d.priors.stable_diffusion import StableDiffusion
from tiny_pipelines import MVDREAM, copy, edit, folder, pipeline

PUBLISHED = {
    "image_size": 32,
    "in_channels": 4,
    "out_channels": 4,
    "model_channels": 320,
    "attention_resolutions": [4, 2, 1],
    "num_res_blocks": 2,
    "channel_mult": [1, 2, 4, 4],
    "num_head_channels": 64,
    "transformer_depth": 1,
    "context_dim": 1024,
    "camera_dim": 16,
}
"""The settings of sd-v2.1-base-4view."""


@pytest.fixture(scope="module")
def prior():
    return StableDiffusion(str(folder("mvdream")), precision="fp32").freeze(torch.device("cpu"))


def case(prior, views, scenes=1):
    x = torch.randn(prior.noise_shape(scenes, views), generator=torch.Generator().manual_seed(0))
    return x, torch.full((scenes, views), 500), prior.condition(["a castle"] * scenes, cameras(scenes, views))


@torch.no_grad()
def test_one_view_is_the_plain_unet_with_a_class_embedding(prior):
    plain = pipeline("mvdream").unet
    x, t, condition = case(prior, 1, scenes=3)
    labels = camera_numbers(condition.cameras)[:, 0]
    answer = plain(x[:, 0], t[:, 0], condition.tokens[:, 0], class_labels=labels).sample
    expected = prior.schedule.x0_from_eps(x, answer[:, None], t)
    torch.testing.assert_close(prior.denoise(x, t, condition).x0, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_self_attention_spans_the_pixels_of_all_views_of_a_scene(prior):
    """Written again from the paper: softmax over V L keys, by hand."""
    block = prior.network.down_blocks[0].attentions[0].transformer_blocks[0]
    attn, (scenes, views, length, width) = block.attn1, (2, 3, 16, 32)
    x = torch.randn(scenes * views, length, width)
    found = attn(x, views=views)
    heads = attn.heads
    q, k, v = (
        layer(x).reshape(scenes, views * length, heads, width // heads).transpose(1, 2)
        for layer in (attn.to_q, attn.to_k, attn.to_v)
    )
    shares = torch.softmax(q @ k.mT / math.sqrt(width // heads), -1)
    expected = attn.to_out[0]((shares @ v).transpose(1, 2).reshape(scenes * views, length, width))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    text = torch.randn(scenes * views, 5, 32)
    alone = torch.cat([block.attn2(x[i : i + 1], text[i : i + 1]) for i in range(len(x))])
    torch.testing.assert_close(block.attn2(x, text, views=views), alone, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_views_without_cameras_of_their_own_are_interchangeable(prior):
    x, t, condition = case(prior, 4, scenes=2)
    order = torch.tensor([3, 1, 0, 2])
    expected = prior.denoise(x, t, condition).x0[:, order]
    found = prior.denoise(x[:, order], t[:, order], condition.select(order)).x0
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(prior.denoise(x[:, order], t[:, order], condition).x0, expected, atol=1e-3)


def test_cameras_are_told_in_the_published_convention():
    """Camera axes x right, y up, z backward; centre at distance 1; azimuth 0 at +x, as its program renders objects."""
    for azimuth, elevation, distance in ((0.0, 0.0, 3.0), (90.0, 0.0, 1.7), (30.0, 20.0, 2.0)):
        a, e = math.radians(azimuth), math.radians(elevation)
        backward = torch.tensor([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
        right = torch.tensor([-math.sin(a), math.cos(a), 0.0])
        up = torch.linalg.cross(backward, right)
        expected = torch.eye(4)
        expected[:3] = torch.stack([right, up, backward, backward], -1)
        seen = orbit(torch.tensor([[azimuth]]), torch.tensor([[elevation]]), distance, 40.0, 8, 8)
        torch.testing.assert_close(camera_numbers(seen)[0, 0], expected.flatten(), atol=1e-6, rtol=0)
        assert seen.c2w[0, 0, :3, 3].norm() == pytest.approx(distance)


@torch.no_grad()
def test_published_weights_are_read_by_their_names(prior):
    """The folder with the published program's names of weights and settings, half of them converted by diffusers, too."""
    theirs = StableDiffusion(str(folder("mvdream_ldm")), precision="fp32").freeze(torch.device("cpu"))
    state = load_file(folder("mvdream_ldm") / "unet" / "diffusion_pytorch_model.safetensors")
    assert "input_blocks.1.1.transformer_blocks.0.attn1.to_q.weight" in state and "camera_embed.0.weight" in state
    renamed = {f"model.diffusion_model.{name.replace('camera_embed', 'label_emb.0')}": v for name, v in state.items()}
    converted = convert_ldm_unet_checkpoint(renamed, theirs.network.config)
    for name, value in theirs.network.state_dict().items():
        assert torch.equal(value, converted.pop(name)), name
    assert not converted
    condition = prior.condition(["a castle"], cameras(1, 4))
    pictures = [draw(p, Sampler(2), condition, generator=torch.Generator().manual_seed(0)) for p in (prior, theirs)]
    assert torch.equal(*pictures)


def test_names_are_one_to_one_and_none_is_left_out():
    with torch.device("meta"):
        for settings in (PUBLISHED, MVDREAM):
            unet = UNet2DConditionModel(**diffusers_config(settings))
            pairs = list(ldm_names(unet.config))
            names = {ours: theirs for theirs, ours in pairs}
            assert len(names) == len(pairs) == len(set(names.values()))
            assert set(unet.state_dict()) <= set(names)


def test_the_published_settings_are_stable_diffusion_2s_with_cameras():
    with torch.device("meta"):
        unet = UNet2DConditionModel(**diffusers_config(PUBLISHED))
    cameras = 16 * 1280 + 1280 + 1280 * 1280 + 1280
    assert sum(p.numel() for p in unet.parameters()) == 865_910_724 + cameras
    assert unet.config.attention_head_dim == [5, 10, 20, 20]
    join_views(unet)
    assert unet.down_blocks[0].attentions[0].transformer_blocks[0].attn1.processor.joint


def test_what_is_not_mvdream_is_refused(tmp_path):
    path = copy("mvdream_ldm", tmp_path / "image")
    edit(path / "unet/config.json", ip_dim=16)
    with pytest.raises(UserError, match=r"ip_dim=16, camera_dim=16 and num_classes=None; only MVDream's are known"):
        StableDiffusion(str(path))
    edit(path / "unet/config.json", ip_dim=0, context_dim=48)
    with pytest.raises(UserError, match=r"unet does not fit its config.json"):
        StableDiffusion(str(path))
    edit(path / "unet/config.json", camera_dim=None)
    with pytest.raises(UserError, match=r"camera_dim=None"):
        StableDiffusion(str(path))
    (path / "unet/config.json").write_text(json.dumps({"_class_name": "MultiViewUNetModel", "camera_dim": 16}))
    with pytest.raises(UserError, match=r"config.json does not say its in_channels"):
        StableDiffusion(str(path))
    blind = copy("sd", tmp_path / "blind")
    edit(blind / "model_index.json", _class_name="MVDreamPipeline")
    with pytest.raises(UserError, match=r"must embed cameras: class_embed_type=projection of 16 numbers"):
        StableDiffusion(str(blind))


def test_attention_takes_gradients_from_view_to_view(prior):
    x, t, condition = case(prior, 3)
    x.requires_grad_()
    prior.denoise(x, t, condition).x0[:, 0].square().sum().backward()
    assert (x.grad[0, 1:].flatten(1).norm(dim=1) > 0).all()
