"""Folders and the hub: what is refused, in one line and before anything is loaded."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.priors import hub
from diffusion3d.priors.pipelines import KINDS, Pipeline, file_digest
from diffusion3d.priors.stable_diffusion import StableDiffusion
from diffusion3d.priors.weight_files import variant_of
from tiny_pipelines import CROSS, clip, copy, edit, folder, pipeline, unet


def without(part):
    return lambda path: shutil.rmtree(path / part)


def pickled(part, name):
    def change(path):
        next((path / part).glob("*.safetensors")).unlink()
        torch.save({}, path / part / name)

    return change


def changed(file, **fields):
    return lambda path: edit(path / file, **fields)


def truncated(path):
    file = path / "unet/diffusion_pytorch_model.safetensors"
    file.write_bytes(file.read_bytes()[:5000])


def lacking(path):
    from safetensors.torch import load_file, save_file

    file = path / "unet/diffusion_pytorch_model.safetensors"
    state = load_file(file)
    state.pop("conv_in.weight")
    save_file(state, file)


def only_config(path):
    (path / "model_index.json").unlink()


def one_component(path):
    for part in ("model_index.json", "unet", "text_encoder", "tokenizer", "scheduler"):
        shutil.rmtree(path / part) if (path / part).is_dir() else (path / part).unlink()
    shutil.copytree(path / "vae", path, dirs_exist_ok=True)


BAD = {
    "no vae": (without("vae"), r"lacks the component vae: there is no folder"),
    "no tokenizer": (without("tokenizer"), r"lacks the component tokenizer"),
    "no scheduler": (without("scheduler"), r"lacks the component scheduler"),
    "no weights": (lambda p: (p / "unet/diffusion_pytorch_model.safetensors").unlink(), r"unet holds no weights"),
    "pickled unet": (
        pickled("unet", "diffusion_pytorch_model.bin"),
        r"unet has its weights as a pickle, diffusion_pytorch_model.bin, which may run code and is never read; save",
    ),
    "pickled text": (
        pickled("text_encoder", "pytorch_model.bin"),
        r"text_encoder has its weights as a pickle, pytorch_model",
    ),
    "checkpoint": (pickled("vae", "model.ckpt"), r"vae has its weights as a pickle, model.ckpt"),
    "no index": (only_config, r"has no model_index.json; give the folder that pipeline.save_pretrained wrote"),
    "a vae": (one_component, r"holds one AutoencoderKL, not a whole pipeline"),
    "unknown pipeline": (
        changed("model_index.json", _class_name="FluxPipeline"),
        r"is a FluxPipeline; these kinds are known: S",
    ),
    "an unet as vae": (
        changed("vae/config.json", _class_name="VQModel"),
        r"vae holds a VQModel; a StableDiffusionPipeline needs",
    ),
    "another text": (changed("text_encoder/config.json", architectures=["T5EncoderModel"]), r"needs a CLIPTextModel"),
    "damaged index": (lambda p: (p / "model_index.json").write_text("[1"), r"model_index.json is damaged"),
    "damaged config": (lambda p: (p / "unet/config.json").write_text(""), r"unet/config.json is damaged"),
    "no config": (lambda p: (p / "unet/config.json").unlink(), r"unet/config.json is missing"),
    "damaged weights": (truncated, r"unet cannot be read: "),
    "missing weights": (lacking, r"unet lacks 1 weights \(conv_in.weight, …\)|unet cannot be read: "),
    "flow matching": (
        changed("scheduler/scheduler_config.json", _class_name="FlowMatchEulerDiscreteScheduler"),
        r"scheduler is a FlowMatchEulerDiscreteScheduler that predicts .*; a variance-preserving one",
    ),
    "odd prediction": (changed("scheduler/scheduler_config.json", prediction_type="flow"), r"that predicts flow"),
    "foreign tokenizer": (
        changed("model_index.json", tokenizer=["evil", "Tokenizer"]),
        r"names Tokenizer of evil as tokenizer",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_folder_that_cannot_be_is_refused_in_one_line(name, tmp_path):
    change, message = BAD[name]
    change(copy("sd", tmp_path / "it"))
    with pytest.raises(UserError, match=message) as caught:
        StableDiffusion(str(tmp_path / "it"), precision="fp32").warning("a castle")
    assert "\n" not in str(caught.value)


def test_a_model_that_inpaints_is_refused(tmp_path, monkeypatch):
    path = copy("sd", tmp_path / "it")
    unet(in_channels=9).save_pretrained(path / "unet")
    with pytest.raises(UserError, match=r"unet takes 9 channels and answers 4; a text-to-image model takes 4"):
        StableDiffusion(str(path))


@pytest.mark.parametrize(
    ("kind", "family", "advice"),
    [
        ("sd", "mvdream", r"is a StableDiffusionPipeline: choose prior=stable_diffusion for it"),
        ("sdxl", "deepfloyd", r"is a StableDiffusionXLPipeline: choose prior=stable_diffusion for it"),
        ("deepfloyd", "stable_diffusion", r"is a IFPipeline: choose prior=deepfloyd for it"),
        ("mvdream", "stable_diffusion", r"is a MVDreamPipeline: choose prior=mvdream for it"),
    ],
)
def test_a_model_that_cannot_what_its_config_says_is_refused(kind, family, advice):
    with pytest.raises(UserError, match=advice):
        StableDiffusion(str(folder(kind)), family=family)


@pytest.mark.parametrize("name", ["PNDM", "EulerDiscrete", "EulerAncestralDiscrete", "DPMSolverMultistep", "LCM"])
def test_whatever_walks_them_noise_levels_are_the_same(name, tmp_path):
    path = copy("sd", tmp_path / "it")
    expected = Pipeline(path).schedule()[0].alphas_cumprod
    edit(path / "scheduler/scheduler_config.json", _class_name=f"{name}Scheduler")
    assert torch.equal(Pipeline(path).schedule()[0].alphas_cumprod, expected)


def test_a_single_file_is_refused(tmp_path):
    for name in ("model.safetensors", "v1-5.ckpt"):
        (tmp_path / name).write_bytes(b"")
        with pytest.raises(UserError, match=r"is a single file; give a folder in diffusers' format"):
            StableDiffusion(str(tmp_path / name))


@pytest.mark.parametrize("name", ["no/such/folder", "./missing", "../x", "model", "/root/nowhere", "~/nothing here"])
def test_what_is_neither_folder_nor_id_is_refused_without_asking_the_hub(name, monkeypatch):
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("asked"))
    with pytest.raises(UserError, match=r"is no folder here and no id on the hub \(owner/name\)"):
        StableDiffusion(name)


def test_a_hub_that_cannot_be_reached_is_said_so_at_once(tmp_path, monkeypatch):
    """The real failure, through a proxy that nobody answers at."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    begin = time.monotonic()
    with pytest.raises(
        UserError, match=r"the hub cannot be reached \(.*\); point to a folder in diffusers' format"
    ) as caught:
        StableDiffusion("nobody/no-such-model-7f3a")
    assert time.monotonic() - begin < 15 and "prior.model=DIR" in str(caught.value) and "\n" not in str(caught.value)


def snapshot(monkeypatch, path=None):
    """A hub with one repository, whose download is a folder here."""
    import huggingface_hub

    path = path or folder("sd")
    names = [str(p.relative_to(path)) for p in path.rglob("*") if p.is_file()]
    files = [type("File", (), {"rfilename": name}) for name in [*names, "v1-5.ckpt", "vae/old.bin"]]
    asked = []

    def download(model, local_files_only=False, allow_patterns=None):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("not here")
        asked.append(sorted(allow_patterns))
        return str(path)

    info = type("Info", (), {"siblings": files})
    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, model, timeout: info)
    return asked, names


def test_what_is_fetched_is_what_a_prior_is_made_of(tmp_path, monkeypatch):
    asked, names = snapshot(monkeypatch)
    prior = StableDiffusion("somebody/model", precision="fp32")
    assert asked == [["model_index.json"], sorted(names)]
    assert prior.fingerprint == StableDiffusion(str(folder("sd"))).fingerprint


def test_what_was_fetched_is_found_without_a_network(monkeypatch):
    """The cache holds a part of the repository, which the hub's client calls incomplete."""
    import huggingface_hub
    from huggingface_hub.errors import IncompleteSnapshotError

    def cached(model, local_files_only):
        raise IncompleteSnapshotError("v1-5.ckpt is missing", snapshot_path=str(folder("sd")))

    monkeypatch.setattr(huggingface_hub, "snapshot_download", cached)
    assert hub.find("somebody/model") == folder("sd")
    with pytest.raises(UserError, match="somebody/model is a StableDiffusionPipeline: choose prior=stable_diffusion"):
        hub.find("somebody/model", family="deepfloyd")


SAFE = "unet/diffusion_pytorch_model.safetensors"
HALF = "unet/diffusion_pytorch_model.fp16.safetensors"
EMA = "unet/diffusion_pytorch_model.non_ema.safetensors"
SHARDS = [f"text_encoder/model-0000{i}-of-00002.safetensors" for i in (1, 2)]
HALF_SHARDS = [f"text_encoder/model.fp16-0000{i}-of-00002.safetensors" for i in (1, 2)]


def test_weights_are_chosen_by_variant_and_pickles_never():
    names = [SAFE, HALF, EMA, "unet/diffusion_pytorch_model.bin", "unet/config.json", "README.md", "v1-5.safetensors"]
    assert hub.wanted(names) == ["unet/config.json", SAFE]
    assert hub.wanted(names, "fp16") == ["unet/config.json", HALF]
    assert hub.wanted([HALF, "model_index.json"]) == ["model_index.json", HALF], "where there is no other"
    assert hub.wanted([*SHARDS, *HALF_SHARDS]) == SHARDS
    assert hub.wanted([*SHARDS, *HALF_SHARDS], "fp16") == HALF_SHARDS
    assert hub.wanted(["safety_checker/model.safetensors", "vae/diffusion_pytorch_model.bin"]) == []
    assert [variant_of([name]) for name in (SAFE, HALF, SHARDS[0], HALF_SHARDS[0])] == [None, "fp16", None, "fp16"]


def test_a_repository_with_pickles_alone_is_refused_before_it_is_fetched(tmp_path, monkeypatch):
    import huggingface_hub

    asked, _ = snapshot(monkeypatch)
    files = [type("File", (), {"rfilename": name}) for name in ("model_index.json", "unet/diffusion_pytorch_model.bin")]
    info = type("Info", (), {"siblings": files})
    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", lambda self, model, timeout: info)
    with pytest.raises(UserError, match=r"prior.model=a/b has its weights as a pickle, diffusion_pytorch_model.bin"):
        StableDiffusion("a/b")
    assert asked == [["model_index.json"]]


def test_another_kind_is_refused_before_its_weights_are_fetched(tmp_path, monkeypatch):
    (tmp_path / "flux").mkdir()
    (tmp_path / "flux/model_index.json").write_text('{"_class_name": "FluxPipeline"}')
    for path, message in (
        (tmp_path / "flux", "prior.model=a/b is a FluxPipeline; these kinds are known: StableDiffusionPipeline"),
        (folder("deepfloyd"), "prior.model=a/b is a IFPipeline: choose prior=deepfloyd"),
    ):
        asked, _ = snapshot(monkeypatch, path)
        with pytest.raises(UserError, match=message):
            StableDiffusion("a/b", family="stable_diffusion")
        assert asked == [["model_index.json"]]
    asked, _ = snapshot(monkeypatch, tmp_path)
    with pytest.raises(UserError, match=r"prior.model=a/b is no pipeline in diffusers' format"):
        StableDiffusion("a/b")
    assert asked == []


@pytest.mark.parametrize("model", [None, ""])
def test_no_model_is_said_so(model):
    with pytest.raises(UserError, match="prior.model says neither a folder nor an id"):
        hub.find(model)


def test_a_tokenizer_without_its_vocabulary_is_refused(tmp_path):
    path = copy("sd", tmp_path / "it")
    for name in ("tokenizer.json", "vocab.json", "merges.txt"):
        (path / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(UserError, match=r"tokenizer has no vocabulary \(tokenizer.json, vocab.json and merges.txt, "):
        StableDiffusion(str(path))


def test_prompts_are_cut_to_what_the_encoder_reads_where_the_tokenizer_does_not_say(tmp_path):
    path = copy("sd", tmp_path / "it")
    (path / "tokenizer/tokenizer_config.json").unlink()
    prior, whole = StableDiffusion(str(path), precision="fp32"), StableDiffusion(str(folder("sd")), precision="fp32")
    told = [each.embeddings.encode(["a castle"], torch.device("cpu")).tokens.shape for each in (prior, whole)]
    assert told[0] == told[1]


def test_a_text_encoder_of_another_model_is_refused(tmp_path):
    path = copy("sd", tmp_path / "it")
    shutil.rmtree(path / "text_encoder")
    clip(2 * CROSS).save_pretrained(path / "text_encoder")
    with pytest.raises(UserError, match=rf"unet reads text of width {CROSS}, .* make {2 * CROSS}: they are not of one"):
        StableDiffusion(str(path))


def test_half_weights_alone_are_read(tmp_path):
    path = tmp_path / "half"
    pipeline("sd").to(torch.float16).save_pretrained(path, variant="fp16")
    prior = StableDiffusion(str(path), precision="fp32")
    assert {p.dtype for p in prior.network.parameters()} == {torch.float32}
    assert prior.embeddings.encode(["a"], torch.device("cpu")).tokens.dtype == torch.float32
    (path / "unet/diffusion_pytorch_model.fp16.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        StableDiffusion(str(path))


def test_shards_are_read(tmp_path):
    path = copy("sd", tmp_path / "shards")
    shutil.rmtree(path / "unet")
    pipeline("sd").unet.save_pretrained(path / "unet", max_shard_size="300KB")
    assert len(Pipeline(path).weights("unet")) > 1
    whole, shards = StableDiffusion(str(folder("sd"))), StableDiffusion(str(path))
    for a, b in zip(whole.network.parameters(), shards.network.parameters(), strict=True):
        assert torch.equal(a, b)
    Pipeline(path).weights("unet")[1].unlink()
    with pytest.raises(UserError, match=r"unet has \d of the \d files of its weights: fetch it again"):
        Pipeline(path)


def test_a_sentencepiece_model_without_its_package_is_said_so(tmp_path, monkeypatch):
    path = copy("deepfloyd", tmp_path / "it")
    (path / "tokenizer/tokenizer.json").unlink()
    (path / "tokenizer/spiece.model").write_bytes(b"pieces")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"tokenizer cannot be read: pip install sentencepiece"):
        Pipeline(path).tokenizer("tokenizer")


def test_a_tokenizer_of_published_folders_is_read(tmp_path):
    """Those of Stable Diffusion have vocab.json and merges.txt, no tokenizer.json."""
    path = copy("sd", tmp_path / "old")
    model = json.loads((path / "tokenizer/tokenizer.json").read_text())["model"]
    (path / "tokenizer/tokenizer.json").unlink()
    (path / "tokenizer/vocab.json").write_text(json.dumps(model["vocab"]))
    (path / "tokenizer/merges.txt").write_text("#version: 0.2\n")
    old, new = StableDiffusion(str(path)), StableDiffusion(str(folder("sd")))
    said = [prior.embeddings.encode(["a castle, 7"], torch.device("cpu")).tokens for prior in (old, new)]
    assert torch.equal(*said)


def test_a_file_of_the_hubs_cache_is_known_by_its_name(tmp_path):
    (tmp_path / "blobs").mkdir()
    blob = tmp_path / "blobs" / ("0123456789abcdef" * 4)
    blob.write_bytes(b"weights")
    (tmp_path / "file.safetensors").symlink_to(blob)
    assert file_digest(tmp_path / "file.safetensors") == blob.name
    (tmp_path / "plain").write_bytes(b"weights")
    assert file_digest(tmp_path / "plain") == hashlib.sha256(b"weights").hexdigest()


def test_every_kind_says_what_it_is_made_of():
    for kind in KINDS.values():
        assert {"unet", "scheduler"} <= set(kind.parts) <= set(hub.PARTS)
        assert ("vae" in kind.parts) == (kind.space == "latent")
    assert Path(folder("sdxl"), "text_encoder_2").is_dir()
