"""Training a small prior on a folder of pictures."""

import csv
import hashlib
import json
import shutil

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

import diffusion3d
from choices import PRIOR, SIZE
from diffusion3d.errors import RunError, UserError
from diffusion3d.priors.weights import find_weights, read_weights, write_weights
from diffusion3d.run import main
from diffusion3d.tasks.checkpoint import load_checkpoint
from diffusion3d.tasks.train import batch_shapes, learning_rate, swapped
from posed_scenes import training, write_scenes

STEPS = 5


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    root = tmp_path_factory.mktemp("posed")
    write_scenes(root)
    return training(
        root,
        *PRIOR,
        "task.batches=[{scenes: 2, views: 2, share: 0.5}, {scenes: 3, views: 1, share: 0.5}]",
        "task.checkpoint_every=2",
        "task.preview_every=3",
    )


@pytest.fixture(scope="module")
def whole(typed, tmp_path_factory):
    """An undisturbed run."""
    directory = tmp_path_factory.mktemp("train") / "run"
    diffusion3d.run([*typed, f"task.steps={STEPS}", f"hydra.run.dir={directory}"])
    return directory


def table(directory):
    with (directory / "metrics.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def weights(directory):
    return directory / "export" / "weights.safetensors"


def test_a_run_leaves_everything_behind(whole):
    rows = table(whole)
    assert [int(row["step"]) for row in rows] == list(range(STEPS))
    assert all(float(row["grad_norm"]) > 0 for row in rows)
    levels = [f"validation/x0_error_t{level}" for level in (100, 300, 500, 700, 900)]
    validated = [row for row in rows if row[levels[0]]]
    assert [int(row["step"]) for row in validated] == [2, STEPS - 1]
    metrics = json.loads((whole / "metrics.json").read_text())
    assert all(metrics[level] == pytest.approx(float(validated[-1][level])) for level in levels)
    for step in (3, STEPS):
        with Image.open(whole / "previews" / f"step_{step:07d}.png") as grid:
            assert grid.size == (4 * SIZE, SIZE + 16)


def test_the_weights_are_the_average_in_float16_with_their_hash(whole):
    data = weights(whole).read_bytes()
    facts = json.loads(weights(whole).with_suffix(".json").read_text())
    assert facts["sha256"] == hashlib.sha256(data).hexdigest()
    assert (facts["steps"], facts["scenes"]) == (STEPS, 2) and facts["vocabulary"]
    average = load_checkpoint(whole / "checkpoints")[1]["task"]["average"]
    shipped = load_file(weights(whole))
    assert shipped.keys() == average.keys()
    for name, value in average.items():
        assert shipped[name].dtype == torch.float16 and torch.equal(shipped[name], value.half()), name


def test_the_average_follows_the_learner(whole, typed, tmp_path):
    """After the first step a tenth of it is the start: keep = (step + 1) / (step + 10)."""
    one = tmp_path / "one"
    diffusion3d.run([*typed, f"prior.weights={weights(whole)}", "task.steps=1", f"hydra.run.dir={one}"])
    start, state = load_file(weights(whole)), load_checkpoint(one / "checkpoints")[1]["task"]
    moved = [name for name in start if not torch.equal(start[name].float(), state["learner"][name])]
    assert len(moved) > len(start) / 2
    for name, value in start.items():
        expected = value.double() + 0.9 * (state["learner"][name].double() - value.double())
        torch.testing.assert_close(state["average"][name].double(), expected, rtol=1e-5, atol=1e-7)


def test_a_stopped_run_resumes_to_the_same_bits(whole, typed, tmp_path):
    """What a SIGKILL in step 3 leaves: the checkpoint of step 2, and rows, previews and weights beyond it."""
    killed = tmp_path / "killed"
    diffusion3d.run([*typed, "task.steps=5", f"hydra.run.dir={killed}"])
    checkpoints = sorted((killed / "checkpoints").iterdir())
    assert [path.stem for path in checkpoints] == ["step_00000004", "step_00000005"]
    checkpoints[-1].unlink()
    (killed / "metrics.json").unlink()
    diffusion3d.run([f"run.resume={killed}"])
    assert table(killed) == table(whole)
    final = f"checkpoints/step_{STEPS:08d}.safetensors"
    assert (killed / final).read_bytes() == (whole / final).read_bytes()
    assert weights(killed).read_bytes() == weights(whole).read_bytes()
    preview = f"previews/step_{STEPS:07d}.png"
    assert (killed / preview).read_bytes() == (whole / preview).read_bytes()


def test_trained_weights_can_be_sampled(whole, tmp_path, caplog):
    sample = [
        "task=sample",
        "prompt=a spaceship",
        "logger=none",
        *PRIOR,
        "task.count=1",
        "task.views=2",
        "sampler.steps=2",
    ]
    pictures = []
    for name, given in {"trained": f"prior.weights={weights(whole)}", "untrained": "prior.weights=null"}.items():
        diffusion3d.run([*sample, given, f"hydra.run.dir={tmp_path / name}"])
        pictures.append((tmp_path / name / "grid.png").read_bytes())
        assert ("has learnt nothing" in caplog.text) == (name == "untrained")
    assert pictures[0] != pictures[1]


def test_unknown_prompts_are_told_so(whole, tmp_path, caplog):
    sample = ["task=sample", "logger=none", *PRIOR, "task.count=1", "task.views=1", "sampler.steps=1"]
    known = json.loads(weights(whole).with_suffix(".json").read_text())["vocabulary"][0]
    given = [*sample, f"prior.weights={weights(whole)}"]
    diffusion3d.run([*given, f"prompt={known}", f"hydra.run.dir={tmp_path / 'known'}"])
    assert "never seen" not in caplog.text
    diffusion3d.run([*given, "prompt=tax law of the middle ages", f"hydra.run.dir={tmp_path / 'odd'}"])
    assert "has never seen anything like 'tax law of the middle ages'; nearest of the" in caplog.text
    assert "open-vocabulary" in caplog.text


def damage(kind, folder, whole):
    path = folder / "weights.safetensors"
    shutil.copy(weights(whole), path)
    beside = path.with_suffix(".json")
    if kind == "missing":
        path.unlink()
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:5000])
    elif kind == "replaced":
        shutil.copy(weights(whole).with_suffix(".json"), beside)
        path.write_bytes(path.read_bytes()[:-1] + b"\x7f")
    elif kind == "no safetensors":
        path.write_text("<html>404</html>")
    elif kind == "bad json":
        beside.write_text("{")
    elif kind == "other facts":
        beside.write_text("[1]")
    return path


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("missing", "does not exist; give a .safetensors file"),
        ("truncated", "is not a readable safetensors file"),
        ("no safetensors", "is not a readable safetensors file"),
        ("replaced", "the file is damaged or was replaced; fetch both again"),
        ("bad json", "weights.json is damaged"),
        ("other facts", "weights.json is damaged"),
    ],
)
def test_bad_weights_are_one_line_and_exit_code_two(kind, message, whole, tmp_path, monkeypatch, capsys):
    path = damage(kind, tmp_path, whole)
    typed = [
        "task=sample",
        "prompt=x",
        "logger=none",
        *PRIOR,
        f"prior.weights={path}",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    monkeypatch.setattr("sys.argv", ["diffusion3d", *typed])
    monkeypatch.setattr("signal.signal", lambda *arguments: None)
    assert main() == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and message in lines[0], lines


def test_weights_of_another_network_are_refused(whole, tmp_path):
    typed = ["task=sample", "prompt=x", "logger=none", *PRIOR, "prior.network.channels=[16,16,16]"]
    with pytest.raises(
        UserError, match="does not fit prior.network: .* set prior.network as weights.json or the weights"
    ):
        diffusion3d.run([*typed, f"prior.weights={weights(whole)}", f"hydra.run.dir={tmp_path}"])


def test_weights_of_a_smaller_network_start_a_training_and_nothing_else(whole, typed, tmp_path):
    grown = [f"prior.weights={weights(whole)}", "prior.network.attention=[1,2]"]
    with pytest.raises(UserError, match=r"lacks \d+ parameters of prior.network \(down_attention.1.* train it first"):
        diffusion3d.run(
            ["task=sample", "prompt=x", "logger=none", *PRIOR, *grown, f"hydra.run.dir={tmp_path / 'sample'}"]
        )
    diffusion3d.run([*typed, *grown, "task.steps=1", f"hydra.run.dir={tmp_path / 'run'}"])
    assert (
        "parameters are new, prior.weights lacks them: down_attention.1." in (tmp_path / "run" / "run.log").read_text()
    )


def test_weights_survive_a_round_trip(tmp_path):
    module = torch.nn.Linear(3, 2)
    write_weights(tmp_path / "w.safetensors", module, {"steps": 7})
    state, facts = read_weights(find_weights(str(tmp_path / "w.safetensors")), module)
    assert facts["steps"] == 7
    for name, value in module.state_dict().items():
        assert state[name].dtype == torch.float32
        torch.testing.assert_close(state[name], value, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", ["validation", "train"])
def test_empty_data_are_refused(name, typed, tmp_path, monkeypatch):
    from diffusion3d.data.base import InMemory, Splits
    from diffusion3d.tasks import train

    def empty(node, **arguments):
        data = build(node, **arguments)
        if not isinstance(data, Splits):
            return data
        full = data.train
        nothing = InMemory(full.cameras.select(scenes=slice(0)), full.pixels[:0], [])
        return Splits(**{**vars(data), name: nothing})

    build = train.build
    monkeypatch.setattr(train, "build", empty)
    with pytest.raises(UserError, match=f"data.{name} holds no scenes"):
        diffusion3d.run([*typed, "task.steps=1", f"hydra.run.dir={tmp_path / 'run'}"])


def test_half_floats_are_refused(typed, tmp_path):
    with pytest.raises(UserError, match="precision=fp16 is for priors that do not learn"):
        diffusion3d.run([*typed, "precision=fp16", f"hydra.run.dir={tmp_path / 'run'}"])


def test_nan_stops_the_run_and_names_the_term(typed, tmp_path):
    with pytest.raises(RunError, match="loss term 'denoising' is (inf|nan) at step 0; there is no checkpoint yet"):
        diffusion3d.run(
            [*typed, "objective.scales=[{side: 4, weight: inf}]", "task.steps=3", f"hydra.run.dir={tmp_path / 'run'}"]
        )


@pytest.mark.parametrize("batches", [[{"scenes": 2}], [{"scenes": 2, "views": 1, "sides": 3}], []])
def test_other_than_kinds_of_batches_is_refused(batches):
    assert [shape.share for shape in batch_shapes([{"scenes": 2, "views": 1}])] == [1.0]
    for odd in (batches, [{"scenes": 2, "views": 1, "share": 0}]):
        with pytest.raises(UserError, match=r"^task.batches=\[.*each is \{scenes: 8, views: 4, share: 0.5\}"):
            batch_shapes(odd)


def test_learning_rates_warm_up_and_decay():
    rates = [learning_rate(step, 100, 2.0, warmup=10, decay=0.2) for step in (0, 4, 9, 50, 80, 90, 99)]
    assert rates == pytest.approx([0.2, 1.0, 2.0, 2.0, 2.0, 1.0, 0.1])


def test_swapped_parameters_come_back():
    one, other = torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)
    before, x = one.weight.clone(), torch.ones(1, 2)
    expected = other(x)
    with swapped(one, other):
        assert torch.equal(one(x), expected)
    assert torch.equal(one.weight, before)
