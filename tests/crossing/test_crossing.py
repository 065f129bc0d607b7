"""Every prior x representation x guidance runs three steps, or is refused for the capability that `expected.yaml` names.

`-m crossing` asks all entries; by default a sample is asked in which every choice of every group occurs.
"""

import functools
import math
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

import diffusion3d
from choices import SIZE, make_prior, small
from diffusion3d.camera_sampling import Orbit
from diffusion3d.config import CONF_DIR
from diffusion3d.errors import UserError
from diffusion3d.priors.weights import write_weights
from diffusion3d.rendering.render import composite
from diffusion3d.tasks import distill
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.distill import Distill

EXPECTED = yaml.safe_load((Path(__file__).parent / "expected.yaml").read_text())
REPRESENTATIONS = EXPECTED.pop("representations")
SCHEMES = list(EXPECTED["ddpm"])
ENTRIES = {
    (prior, representation, scheme): word
    for prior, rows in EXPECTED.items()
    for scheme, row in rows.items()
    for representation, word in zip(REPRESENTATIONS, row, strict=True)
}
STRIDES = [
    (list(EXPECTED)[i % len(EXPECTED)], REPRESENTATIONS[i % len(REPRESENTATIONS)], SCHEMES[i % len(SCHEMES)])
    for i in range(22)
]
SAMPLE = [*STRIDES, ("ddpm", "gsplat", "reconstruct"), ("mvdream", "nerf", "reconstruct")]
TYPED = [
    "task=distill",
    "prompt=a castle",
    "logger=none",
    "device=cpu",
    "precision=fp32",
    "terms=none",  # what moves is the guidance's doing
    "task.video_size=16",
    "camera.size=16",
    "camera.views=2",
    "camera.turntable_frames=2",
]


@pytest.fixture(scope="session")
def weights(tmp_path_factory):
    """Of a small `ddpm` whose answers depend on what it is told, which those of one from scratch do not."""
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    write_weights(path, make_prior("ddpm").network, {})
    return path


@pytest.fixture(scope="session")
def cross(weights, tmp_path_factory):
    """Runs an entry in a directory of its own, which it returns."""

    @functools.cache
    def source(representation):
        """A run that an editing scheme may start from."""
        return run("ddpm", representation, "sds", 1)

    def run(prior, representation, scheme, steps=3):
        choice = {"prior": prior, "representation": representation, "guidance": scheme}
        typed = [f"{group}={name}" for group, name in choice.items()]
        typed += [override for group, name in choice.items() for override in small(group, name)]
        if prior == "ddpm":
            typed += [f"prior.weights={weights}"]
        if any(override.startswith("run=") for override in typed):
            typed = [override for override in typed if not override.startswith("run=")]
            typed += [f"run={source(representation)}"]
        directory = tmp_path_factory.mktemp("crossing") / "run"
        metrics = diffusion3d.run([*TYPED, *typed, f"task.steps={steps}", f"hydra.run.dir={directory}"])
        assert math.isfinite(metrics["loss"])
        return directory

    return run


@pytest.fixture
def started(monkeypatch):
    """The representation and the raw tensors that the latest run started from."""
    found = {}
    start = Distill.start

    def remember(self, representation):
        raw, source = start(self, representation)
        found.update(representation=representation, raw={name: value.clone() for name, value in raw.items()})
        return raw, source

    monkeypatch.setattr(Distill, "start", remember)
    monkeypatch.setattr(distill, "write_scene", lambda *_: None)  # videos take longer than the steps
    return found


def check(entry, cross, started, record_property):
    expected = ENTRIES[entry]
    if expected != "runs":
        with pytest.raises(UserError, match=f"needs '{expected}'") as refusal:
            cross(*entry)
        assert "\n" not in str(refusal.value) and not started
        record_property("crossing", "refused")
        return
    directory = cross(*entry)
    before, after = started["raw"], load_checkpoint(directory / "checkpoints")[1]["task"]["raw"]
    assert any(before[name].shape != value.shape or (before[name] != value).any() for name, value in after.items())
    cameras, grey = Orbit(SIZE).turntable(2), torch.full((1, 3), 0.5)
    with torch.no_grad():
        pictures = [composite(started["representation"].scene(raw).render(cameras), grey) for raw in (before, after)]
    assert torch.isfinite(pictures[1]).all() and (pictures[0] - pictures[1]).abs().max() > 1e-5
    record_property("crossing", "runs")


@pytest.mark.parametrize("entry", SAMPLE, ids="-".join)
def test_a_sample_does_what_is_expected(entry, cross, started, record_property):
    check(entry, cross, started, record_property)


@pytest.mark.crossing
@pytest.mark.parametrize("entry", ENTRIES, ids="-".join)
def test_an_entry_does_what_is_expected(entry, cross, started, record_property):
    check(entry, cross, started, record_property)


def test_nothing_is_absent_from_what_is_expected():
    for group, names in (("prior", EXPECTED), ("representation", REPRESENTATIONS), ("guidance", SCHEMES)):
        files = sorted(path.stem for path in (CONF_DIR / group).glob("*.yaml"))
        assert sorted(names) == files, f"expected.yaml and conf/{group} differ"
    for prior, rows in EXPECTED.items():
        assert list(rows) == SCHEMES, prior
    for place, names in enumerate((EXPECTED, REPRESENTATIONS, SCHEMES)):
        assert {entry[place] for entry in SAMPLE} == set(names), "every choice is in the sample"


def test_what_is_refused_is_refused_before_anything_heavy_is_imported():
    prior, representation, scheme = next(entry for entry, word in ENTRIES.items() if word != "runs")
    typed = [f"prior={prior}", f"representation={representation}", f"guidance={scheme}", "prompt=a castle"]
    code = f"""
import sys
import diffusion3d
from diffusion3d.errors import UserError
try:
    diffusion3d.run({typed})
except UserError as error:
    print(error, [name for name in ("torch", "diffusers", "transformers") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip().endswith("[]") and f"guidance={scheme} needs" in done.stdout
