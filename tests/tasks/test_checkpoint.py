import math
import random
import re
import subprocess
import sys

import numpy as np
import pytest
import torch

from diffusion3d.errors import RunError
from diffusion3d.tasks.checkpoint import load_checkpoint, nonfinite, read_checkpoint, save_checkpoint
from diffusion3d.tasks.rng import rng_state, seed_everything, set_rng_state


def same(a, b):
    if isinstance(a, torch.Tensor | np.ndarray):
        a, b = torch.as_tensor(a), torch.as_tensor(b)
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.nan_to_num(), b.nan_to_num())
    if isinstance(a, dict):
        return list(a) == list(b) and [*map(type, a)] == [*map(type, b)] and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and (a == b or (a != a and b != b))


def test_any_state_comes_back(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    state = {
        "scalars": [None, True, False, 3, -(2**70), 1e-300, math.inf, -0.0, "text ${x} 介", ()],
        "nested": {"a": {"b": [(1, 2), [3]]}, "a/b": {0: base}, 0: "integer key"},
        "tensors": [base, base.T, base[1:], torch.tensor(2.5), torch.zeros(0, 3), torch.zeros(2, 0)],
        "kinds": [
            torch.ones(2, dtype=d) for d in (torch.bfloat16, torch.float16, torch.float64, torch.int64, torch.bool)
        ],
        "numpy": [np.arange(5, dtype=np.uint32), np.float32(0.1).item()],
    }
    save_checkpoint(tmp_path, 7, state)
    step, loaded = load_checkpoint(tmp_path)
    assert step == 7
    assert same(state, loaded)


def test_optimizer_and_generators_go_on_as_if_nothing_had_happened(tmp_path):
    seed_everything(3)
    x = torch.nn.Parameter(torch.randn(4))
    optimizer = torch.optim.Adam([x])

    def draw():
        x.square().sum().backward()
        optimizer.step()
        return [torch.randn(3).tolist(), np.random.rand(), np.random.randn(), random.gauss(0, 1), x.tolist()]

    draw()
    save_checkpoint(tmp_path, 1, {"x": x, "optimizer": optimizer.state_dict(), "rng": rng_state()})
    expected = [draw(), draw()]
    seed_everything(99)
    _, state = load_checkpoint(tmp_path)
    x.grad = None
    with torch.no_grad():
        x.copy_(state["x"])
    optimizer.load_state_dict(state["optimizer"])
    set_rng_state(state["rng"])
    first = draw()
    assert first[:4] == expected[0][:4]


def test_shared_tensors_are_stored_once_and_equal_states_give_equal_files(tmp_path):
    big = torch.randn(10_000)
    one = save_checkpoint(tmp_path / "a", 1, {"x": big, "y": big})
    two = save_checkpoint(tmp_path / "b", 1, {"x": big, "y": big})
    assert one.stat().st_size < 60_000
    assert one.read_bytes() == two.read_bytes()


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path):
    for step in (5, 50, 100):
        save_checkpoint(tmp_path, step, step)
    assert names(tmp_path) == ["step_00000050.safetensors", "step_00000100.safetensors"]
    assert load_checkpoint(tmp_path) == (100, 100)


def test_damaged_ones_of_later_steps_make_way(tmp_path):
    for step in (50, 300):
        save_checkpoint(tmp_path, step, step)
    (tmp_path / "step_00000300.safetensors").write_bytes(b"torn")
    assert load_checkpoint(tmp_path) == (50, 50)
    save_checkpoint(tmp_path, 100, 100)
    assert names(tmp_path) == ["step_00000050.safetensors", "step_00000100.safetensors"]
    assert load_checkpoint(tmp_path) == (100, 100)


LIMITED = """
import resource, sys
from pathlib import Path
import torch
from diffusion3d.errors import RunError
from diffusion3d.tasks.checkpoint import save_checkpoint
folder = Path(sys.argv[1])
save_checkpoint(folder, 1, {"x": torch.ones(100)})
resource.setrlimit(resource.RLIMIT_FSIZE, (2**16, 2**16))
try:
    save_checkpoint(folder, 2, {"x": torch.ones(2**16)})
except RunError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_write_that_fails_leaves_the_last_one_and_no_litter(tmp_path):
    done = subprocess.run([sys.executable, "-c", LIMITED, tmp_path / "run"], capture_output=True, text=True)
    assert re.fullmatch(
        r"cannot write checkpoint .*step_00000002.safetensors: .*File too large.*; step_00000001 is kept: "
        r"make room there and go on with run.resume=.*\n",
        done.stdout,
    ), done
    assert names(tmp_path / "run") == ["step_00000001.safetensors"]


def test_nothing_to_load(tmp_path):
    assert load_checkpoint(tmp_path / "missing") is None


@pytest.mark.parametrize("where", ["empty", "header", "half", "end", "bit in header", "bit in data"])
def test_a_damaged_checkpoint_is_passed_over_with_a_warning(where, tmp_path, caplog):
    save_checkpoint(tmp_path, 1, {"x": torch.ones(100)})
    path = save_checkpoint(tmp_path, 2, {"x": torch.ones(100), "s": "0123456789"})
    data = bytearray(path.read_bytes())
    cut = {"empty": 0, "header": 50, "half": len(data) // 2, "end": len(data) - 1}
    if where in cut:
        del data[cut[where] :]
    else:
        data[data.find(b"0123456789") if where == "bit in header" else -3] ^= 1
    path.write_bytes(data)
    step, state = load_checkpoint(tmp_path)
    assert (step, state["x"].sum()) == (1, 100)
    assert "step_00000002.safetensors is damaged" in caplog.text


def test_a_write_that_was_cut_leaves_the_last_one_in_place(tmp_path):
    save_checkpoint(tmp_path, 1, "good")
    (tmp_path / ".step_00000002.tmp.safetensors").write_bytes(b"half of")
    assert load_checkpoint(tmp_path) == (1, "good")
    save_checkpoint(tmp_path, 3, "better")
    assert names(tmp_path) == ["step_00000001.safetensors", "step_00000003.safetensors"]


def test_another_format_is_not_misread(tmp_path, monkeypatch):
    save_checkpoint(tmp_path, 1, "older and readable")
    monkeypatch.setattr("diffusion3d.tasks.checkpoint.FORMAT", 99)
    save_checkpoint(tmp_path, 2, "x")
    monkeypatch.undo()
    with pytest.raises(RunError, match="step_00000002.safetensors has format 99 and this version reads 1"):
        load_checkpoint(tmp_path)


def test_what_the_system_does_not_give_is_not_taken_for_damage(tmp_path):
    save_checkpoint(tmp_path, 1, "older and readable")
    (tmp_path / "step_00000002.safetensors").mkdir()
    with pytest.raises(RunError, match="cannot read checkpoint .*step_00000002.safetensors: Is a directory; nothing"):
        load_checkpoint(tmp_path)
    with pytest.raises(OSError, match="Is a directory"):
        read_checkpoint(tmp_path / "step_00000002.safetensors")


def test_when_all_are_damaged_nothing_begins_anew(tmp_path):
    for step in (1, 2):
        save_checkpoint(tmp_path, step, step).write_bytes(b"torn")
    with pytest.raises(RunError, match=re.escape(f"no checkpoint in {tmp_path} can be read, all 2 are damaged: put")):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize("state", [{"a": object()}, {"a": {1, 2}}, {(1, 2): 3}, {True: 1}, [lambda: 0]])
def test_what_is_no_data_is_refused(state, tmp_path):
    with pytest.raises(TypeError, match="checkpoint: "):
        save_checkpoint(tmp_path, 1, state)


def test_nonfinite_names_the_tensor():
    good = {"a": [torch.ones(2), torch.tensor([1, 2])]}
    assert nonfinite(good) is None
    assert nonfinite(good | {"b": {3: (0, torch.tensor([1.0, math.inf]))}}) == "state.b.3.1"
