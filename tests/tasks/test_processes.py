"""Training in two processes that torchrun starts: the same as in one."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import diffusion3d
from choices import PRIOR, SIZE, choices, chosen, make_prior
from diffusion3d.objectives.base import Share
from diffusion3d.priors.weights import write_weights
from diffusion3d.tasks.build import build
from diffusion3d.tasks.checkpoint import load_checkpoint, read_checkpoint
from discs import data_of
from posed_scenes import training, write_scenes

TESTS = Path(__file__).parent.parent
UNEVEN, ALONE = "task.batches=[{scenes: 3, views: 2}]", "task.batches=[{scenes: 1, views: 4}]"
"""One scene for rank 0 and two for rank 1; none for rank 0."""


def torchrun(log, *arguments):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE", "PYTHONPATH": str(TESTS.parent)}
    return subprocess.Popen(
        [*command, "--redirects=3", f"--log-dir={log}", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def printed(log, rank):
    return "".join(path.read_text() for path in sorted(log.glob(f"*/attempt_0/{rank}/std*.log")))


def table(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{k: float(v) for k, v in row.items() if v and k != "seconds"} for row in rows if row["loss"]]


def flat(tensors):
    return torch.cat([tensor.flatten().double() for tensor in tensors])


def last(directory):
    return load_checkpoint(directory / "checkpoints")


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    root = tmp_path_factory.mktemp("posed")
    write_scenes(root)
    prior = make_prior()
    write_weights(root / "weights.safetensors", prior.network, {"image_size": SIZE, "vocabulary": []})
    return training(
        root,
        "precision=fp32",
        *PRIOR,
        f"prior.weights={root / 'weights.safetensors'}",
        "objective.text_noise=0.5",
        "objective.clean_view=0.5",
    )


@pytest.fixture(scope="module")
def one(typed, tmp_path_factory):
    """Each training in this process alone."""
    folder = tmp_path_factory.mktemp("one")
    for name, more in {
        "uneven": ["task.steps=1", UNEVEN],
        "alone": ["task.steps=1", ALONE],
        "whole": ["task.steps=5", "task.checkpoint_every=3", "task.preview_every=3", UNEVEN],
    }.items():
        diffusion3d.run([*typed, *more, f"hydra.run.dir={folder / name}"])
    return folder


@pytest.fixture(scope="module")
def two(typed, one, tmp_path_factory):
    """The same in two processes, the last one from its third step on; and trainings that fail in rank 1."""
    folder = tmp_path_factory.mktemp("two")
    cut = folder / "whole"
    shutil.copytree(one / "whole", cut)
    (cut / "checkpoints" / "step_00000005.safetensors").unlink()
    jobs = {
        "uneven": ["task.steps=1", UNEVEN],
        "alone": ["task.steps=1", ALONE],
        "whole": [f"run.resume={cut}"],
        "error": ["task.steps=4", UNEVEN],
        "nan": ["task.steps=4", UNEVEN],
        "sample": ["task=sample", "prompt=x", "logger=none", *PRIOR],
    }
    described = [
        {
            "typed": more if name in ("whole", "sample") else [*typed, *more, f"hydra.run.dir={folder / name}"],
            "fault": name if name in ("error", "nan") else None,
            "said": str(folder / f"{name}.said"),
        }
        for name, more in jobs.items()
    ]
    (folder / "jobs.json").write_text(json.dumps(described))
    process = torchrun(folder / "log", TESTS / "several.py", folder / "jobs.json")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output + printed(folder / "log", 0) + printed(folder / "log", 1)
    return folder


def said(folder, name):
    return [json.loads(Path(f"{folder / name}.said{rank}").read_text()) for rank in (0, 1)]


@pytest.mark.parametrize("name", ["uneven", "alone"])
def test_gradients_and_random_numbers_are_those_of_one_process(name, one, two):
    """After the first step Adam's average is a tenth of the gradient, which is clipped to a norm of 1."""
    (_, expected), (_, found) = last(one / name), last(two / name)
    moments = [state["task"]["optimizer"]["state"] for state in (expected, found)]
    assert moments[0].keys() == moments[1].keys()
    gradient, shared = (10 * flat(moment["exp_avg"] for moment in kept.values()) for kept in moments)
    assert gradient.norm() == pytest.approx(1, rel=1e-3)
    assert (shared - gradient).norm() < 5e-6, "rounding of float32 sums"
    assert torch.equal(expected["rng"]["torch"], found["rng"]["torch"])
    for before, after in zip(table(one / name), table(two / name), strict=True):
        assert after == pytest.approx(before, rel=1e-5)


def test_a_run_resumes_in_another_number_of_processes(one, two):
    (step, expected), (now, found) = last(one / "whole"), last(two / "whole")
    assert step == now == 5 and torch.equal(expected["rng"]["torch"], found["rng"]["torch"])
    _, before = read_checkpoint(one / "whole" / "checkpoints" / "step_00000003.safetensors")
    for part in ("learner", "average"):
        start, end, shared = (flat(state["task"][part].values()) for state in (before, expected, found))
        assert (shared - end).norm() < 5e-3 * (end - start).norm(), part
    rows, again = table(one / "whole"), table(two / "whole")
    assert len(again) == 5 and again[-1] == pytest.approx(rows[-1], rel=1e-3)
    assert "processes was 1, is 2" in (two / "whole" / "run.log").read_text()
    first, second = said(two, "whole")
    assert first["metrics"]["validation/x0_error_t500"] > 0 and second["metrics"] == {}


def test_an_error_in_any_process_ends_all(two):
    first, second = said(two, "error")
    assert first == {"kind": "RunError", "message": "in process 1: ValueError: the disk is on fire"}
    assert second == {"kind": "ValueError", "message": "the disk is on fire"}
    assert "several.py" in (two / "error" / "run.log").read_text(), "the traceback of the other process"


def test_a_nan_in_any_process_ends_all(two):
    for ended in said(two, "nan"):
        assert ended["kind"] == "RunError" and "loss term 'denoising' is nan at step 1" in ended["message"]


def test_other_tasks_are_refused(two):
    for ended in said(two, "sample"):
        assert ended["kind"] == "UserError" and "task=sample runs in one process and 2 were started" in ended["message"]


def test_only_rank_0_prints(two):
    assert "continuing at step 3 of 5" in printed(two / "log", 0)
    assert printed(two / "log", 1) == ""


def worker(launcher, rank):
    """The process id of a worker of torchrun."""
    for children in Path(f"/proc/{launcher.pid}/task").glob("*/children"):
        for pid in map(int, children.read_text().split()):
            if f"RANK={rank}\0".encode() in Path(f"/proc/{pid}/environ").read_bytes().replace(b"LOCAL_RANK", b""):
                return pid
    raise AssertionError("not there")


@pytest.mark.skipif(sys.platform != "linux", reason="finds workers in /proc")
def test_a_signal_to_one_process_stops_all_after_the_same_step(typed, one, tmp_path):
    run, log = tmp_path / "run", tmp_path / "log"
    more = ["task.steps=5000", "task.checkpoint_every=2", "task.preview_every=5000", UNEVEN]
    process = torchrun(log, "-m", "diffusion3d.run", *typed, *more, f"hydra.run.dir={run}")
    deadline = time.monotonic() + 300
    while not [*run.glob("checkpoints/step_*")] and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(worker(process, 1), signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and output.count("exitcode  : 143") == 2, output
    step, _ = last(run)
    stopped = [line for line in printed(log, 0).splitlines() if line.startswith("stopped at")]
    assert stopped == [f"stopped at step {step} of 5000; continue with: python -m diffusion3d.run run.resume={run}"], (
        printed(log, 0)
    )
    assert printed(log, 1) == ""
    assert len(table(run)) == step


def test_the_command_line_refuses_other_tasks_in_one_line(tmp_path):
    process = torchrun(tmp_path / "log", "-m", "diffusion3d.run", "-m", "task=sample", "prompt=x", "seed=0,1")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and output.count("exitcode  : 2") == 2, output
    [line] = printed(tmp_path / "log", 0).splitlines()
    assert line == "error: a sweep (-m) starts its own processes: leave torchrun or accelerate out"
    assert printed(tmp_path / "log", 1) == ""


PRIORS = {"denoising": "ddpm"}


@pytest.mark.parametrize("choice", choices("objective"))
def test_shares_add_up_to_the_whole(choice, monkeypatch):
    """Losses, gradients and random numbers of every objective in float64; three processes for five scenes."""
    name = PRIORS.get(choice, "stable_diffusion")
    prior = make_prior(name)
    settings = {"cache": None} if choice == "latent_denoising" else {}
    objective = build(chosen("objective", choice, f"prior={name}"), prior=prior, **settings).double()
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    data = objective.prepare(data_of())
    indices, views = np.array([0, 1, 2, 3, 1]), np.tile(np.arange(2), (5, 1))
    batch = data.batch(indices, views, np.random.default_rng(0))
    parameters = [*objective.trained().parameters()]

    def computed(share):
        torch.manual_seed(4)
        mine = slice(None) if share is None else slice(share.first, share.last)
        terms = objective.loss(batch.select(scenes=mine), share)
        gradients = torch.autograd.grad(sum(terms.values()), parameters, allow_unused=True)
        gradient = flat(torch.zeros(1) if g is None else g for g in gradients)
        return {key: term.item() for key, term in terms.items()}, gradient, torch.get_rng_state()

    terms, gradient, state = computed(None)
    shares = [computed(Share.of(5, rank, 3)) for rank in range(3)]
    for key, value in terms.items():
        assert sum(share[0][key] for share in shares) == pytest.approx(value, rel=1e-12)
    scale = float(gradient.abs().max())
    torch.testing.assert_close(sum(share[1] for share in shares), gradient, atol=1e-12 * scale, rtol=0)
    assert scale > 0 and all(torch.equal(share[2], state) for share in shares)


@pytest.mark.parametrize(("scenes", "count"), [(1, 1), (7, 3), (4, 4), (2, 5)])
def test_shares_cover_a_batch_once(scenes, count):
    shares = [Share.of(scenes, rank, count) for rank in range(count)]
    covered = [scene for share in shares if not share.spare for scene in range(share.first, share.last)]
    assert covered == list(range(scenes))
    sizes = [share.last - share.first for share in shares]
    assert min(sizes) >= 1 and max(sizes) - min(sizes) <= 1
