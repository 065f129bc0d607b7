"""Schemes in whole runs: what needs the task's help."""

import shutil

import pytest
import torch

import diffusion3d
from choices import DRAWN, PRIOR, SCENE
from diffusion3d.errors import UserError
from diffusion3d.tasks.checkpoint import load_checkpoint

TYPED = [
    "task=distill",
    "prompt=a castle",
    "logger=none",
    "device=cpu",
    *SCENE,
    "camera.views=2",
    "camera.turntable_frames=4",
    "representation.density=null",
    "task.video_size=32",
    "task.checkpoint_every=2",
]


def distill(directory, *overrides, steps=2, prior=PRIOR):
    return diffusion3d.run([*TYPED, *prior, f"task.steps={steps}", f"hydra.run.dir={directory}", *overrides])


def raw(directory):
    return load_checkpoint(directory / "checkpoints")[1]["task"]["raw"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source") / "run"
    distill(directory)
    return directory


@pytest.mark.parametrize("scheme", ["dds", "pds"])
def test_editing_starts_from_a_finished_run(finished, scheme, tmp_path):
    edit = [f"guidance={scheme}", f"run={finished}", "guidance.source_prompt=a red car", "terms=none"]
    distill(tmp_path / "still", *edit, "task.lr=0")
    # the prior that ships: one from scratch answers the same to every prompt, so that nothing is to be edited
    distill(tmp_path / "moved", *edit, steps=1, prior=())
    for name, value in raw(finished).items():
        assert torch.equal(raw(tmp_path / "still")[name], value), name
        assert not torch.equal(raw(tmp_path / "moved")[name], value), name


def test_editing_that_cannot_be_is_refused_in_one_line(finished, tmp_path):
    known = ["guidance=dds", "guidance.source_prompt=a red car"]
    with pytest.raises(UserError, match=r"guidance=dds needs a finished run: add run=DIR"):
        distill(tmp_path / "a", *known)
    with pytest.raises(UserError, match=r"guidance.source_prompt must be given"):
        distill(tmp_path / "b", "guidance=dds", f"run={finished}")
    image = [x for x in TYPED if not x.startswith("representation.")]
    with pytest.raises(UserError, match="holds a scene of another kind"):
        diffusion3d.run(
            [*image, *PRIOR, *known, f"run={finished}", "representation=image", f"hydra.run.dir={tmp_path / 'c'}"]
        )


@pytest.mark.parametrize(
    ("scheme", "counter", "count"),
    [(["guidance=vsd"], "learner.step_0", 4), (["guidance=reconstruct", *DRAWN], "rounds", 2)],
)
def test_a_scheme_resumes_with_what_it_has_learned_to_the_bit(scheme, counter, count, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    distill(whole, *scheme, steps=4)
    state = load_checkpoint(whole / "checkpoints")[1]["task"]["guidance"]
    assert float(state[counter]) == count and not any(name.startswith("prior.") for name in state)
    shutil.copytree(whole, cut)
    (cut / "checkpoints" / "step_00000004.safetensors").unlink()
    diffusion3d.run([f"run.resume={cut}"])
    final = "checkpoints/step_00000004.safetensors"
    assert (cut / final).read_bytes() == (whole / final).read_bytes()
