"""The scripts that measure reliability: what they ask for, how they judge it, and when what they kept is of use no more."""

import importlib
import os
import sys
from pathlib import Path

import pytest

from diffusion3d.config import CONF_DIR
from diffusion3d.errors import RunError

CONFIGS = Path(__file__).parent.parent / "configs"
FOLDER = Path(__file__).parent.parent.parent / "experiments" / "reliability"


@pytest.fixture
def script(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    path, environment = sys.path[:], dict(os.environ)
    yield importlib.import_module
    sys.path[:] = path
    os.environ.clear()
    os.environ.update(environment)
    for file in FOLDER.glob("*.py"):
        sys.modules.pop(file.stem, None)


@pytest.mark.parametrize(("kills", "ends"), [(50, 16), (150, 50)])
def test_kills_hit_writes_steps_and_all_of_the_end(kills, ends, script):
    module = script("kills")
    runs = module.plan(kills, 12, 0)
    assert len(runs) == ends and {run["kind"] for run in runs} == {*module.KINDS}
    whens = [[wish["when"] for wish in run["wishes"]] for run in runs]
    assert sum(map(len, whens)) == kills and min(map(len, whens)) >= 3
    assert sum(when.count("write") for when in whens) == 12
    assert all(when[-1] == "end" and "end" not in when[:-1] for when in whens)
    for kind in module.KINDS:
        shares = [run["wishes"][-1]["share"] for run in runs if run["kind"] == kind]
        assert [int(share * len(shares)) for share in sorted(shares)] == [*range(len(shares))]


def test_what_a_kill_hit_is_the_newest_result(script, tmp_path):
    newest_result = script("kills").newest_result
    (tmp_path / "videos").mkdir()
    for time, name in ((1, "contact_sheet.png"), (3, "videos/.rgb.tmp.mp4"), (2, "metrics.json")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, ns=(time, time))
    assert newest_result(tmp_path, 0) == "videos/.rgb.tmp.mp4"
    assert newest_result(tmp_path, 4) is None


def test_results_of_other_code_or_configuration_are_told_apart(script, monkeypatch, tmp_path):
    module = script("circumstances")
    monkeypatch.setattr(module, "CHECKOUT", tmp_path)
    files = [tmp_path / name for name in ("diffusion3d/sub/a.py", "conf/a.yaml", "more.py")]
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("1")
    found = {module.code_hash(files[-1])}
    (tmp_path / "diffusion3d" / "kernels.so").touch()
    assert {module.code_hash(files[-1])} == found
    for number, file in enumerate(files):
        file.write_text("2")
        found.add(module.code_hash(files[-1]))
        assert len(found) == number + 2
    files[0].rename(files[0].with_name("b.py"))
    assert module.code_hash(files[-1]) not in found


def test_a_process_is_judged_by_its_exit_code_its_last_line_and_its_time(script):
    fuzz = script("fuzz")
    told = {"exit code": 2, "traceback": False, "last line": "error: no such key"}
    assert fuzz.agrees("refused", told) and not fuzz.agrees("stopped", told) and not fuzz.agrees("ran", told)
    assert not fuzz.agrees("refused", {**told, "last line": "KeyError: 'no such key'"})
    assert not fuzz.agrees("refused", {**told, "traceback": True})
    assert fuzz.agrees("ran", {"exit code": 0, "traceback": False, "last line": "outputs in here"})
    assert fuzz.as_process(["--help"], 0.01)["exit code"] is None


@pytest.mark.slow
def test_lists_choose_from_all_groups(script, tmp_path):
    lists = script("override_lists").make_lists(300, 0, tmp_path)
    valid = [one["typed"] for one in lists if one["wrong"] == "nothing"]
    chosen = {override.partition("=")[0].partition("@")[0] for typed in valid for override in typed}
    groups = {path.name for path in CONF_DIR.iterdir() if path.is_dir()}
    assert groups - {"hydra", "distillation", "field"} <= chosen
    assert len(valid) > 0.4 * len(lists)
    assert 5 <= sum("-m" in typed for typed in valid) < 0.2 * len(valid)


def test_a_crash_inside_a_sweep_is_told_from_an_error(script, tmp_path, monkeypatch):
    fuzz = script("fuzz")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")

    def answer(override):
        output = tmp_path / override[5:9]
        typed = ["-m", f"hydra.searchpath=[{CONFIGS}]", "task=toy", "logger=none", "task.steps=6", override]
        fuzz.answer([*typed, f"paths.output={output}"], output)

    with pytest.raises(fuzz.Failed, match="RuntimeError: oh no"):
        answer("task.fail=null,oh no")
    with pytest.raises(RunError, match="1 of 2 jobs failed"):
        answer("task.nan_at=null,0")
