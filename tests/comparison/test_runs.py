"""Finding and reading run directories."""

import json
import os

import pytest
import yaml

from compared_runs import LOG, config, make_run
from diffusion3d.comparison.curves import Curve, read_curves
from diffusion3d.comparison.differences import differing
from diffusion3d.comparison.runs import find_runs, read_run, read_runs
from diffusion3d.comparison.texts import clean
from diffusion3d.errors import RunError, UserError
from diffusion3d.hydra_cli import sweep
from diffusion3d.run import job

QUICK = {"videos": (), "scene": False, "steps": 3}


def bare(folder, *arguments, **more):
    return make_run(folder, *arguments, **{**QUICK, **more})


def test_runs_are_found_at_any_depth_each_once(tmp_path):
    one, two = bare(tmp_path / "one"), bare(tmp_path / "sweep_1" / "deeper" / "two")
    bare(tmp_path / ".hidden" / "three")
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "config.yaml").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path)
    assert find_runs([tmp_path, one, tmp_path / "link"]) == [one, two]
    assert [run.name for run in read_runs([one, two])] == ["one", "sweep_1/deeper/two"]
    assert [run.name for run in read_runs([two])] == ["two"]


def test_what_holds_no_run_is_refused(tmp_path):
    with pytest.raises(UserError, match="no run in .* a run directory holds a config.yaml and metrics"):
        find_runs([tmp_path])
    with pytest.raises(UserError, match="nowhere is no folder"):
        find_runs([tmp_path / "nowhere"])


def test_a_finished_run_tells_what_it_has(tmp_path):
    run = read_run(make_run(tmp_path / "run", metrics={"loss": 2.5, "note": "text", "on": True}), "run")
    assert (run.status, run.error, run.metrics) == ("finished", "", {"loss": 2.5})
    assert list(run.videos) == ["rgb", "depth"]
    assert run.splats == tmp_path / "run" / "export" / "scene.ply"
    assert len(run.curves["loss"].steps) == 100


@pytest.mark.parametrize(
    ("log", "status", "error"),
    [
        (LOG, "unfinished", "running, or killed; its last words: writing to …/run"),
        ("", "unfinished", "running, or killed"),
        ("diffusion3d.errors.Interrupted: stopped at step 3", "stopped", "stopped at step 3"),
        ("ZeroDivisionError", "failed", "ZeroDivisionError"),
        ("ValueError: no /home/me/x.csv here", "failed", "ValueError: no …/x.csv here"),
        ("hydra.errors.Problem: in target:\nValueError('odd')\nfull_key: prior", "failed", "Problem: .*'odd'.* prior"),
        ("A: one\n\nDuring handling:\n\nTraceback (most recent call last):\n  File\nB: two", "failed", "B: two"),
    ],
)
def test_a_run_without_an_end_says_why(tmp_path, log, status, error):
    path = bare(tmp_path / "run", error=log if status in ("failed", "stopped") else None)
    if status == "unfinished":
        (path / "run.log").write_text(log)
    run = read_run(path, "run")
    assert run.status == status
    import re

    assert re.fullmatch(error, run.error), run.error
    assert run.metrics["loss"] == pytest.approx(1000 / 3)


def test_a_run_that_goes_on_is_no_longer_stopped(tmp_path):
    path = bare(tmp_path / "run", error="ValueError: once")
    with (path / "run.log").open("a") as log:
        log.write(LOG)
    assert read_run(path, "run").status == "unfinished"


def test_jobs_of_a_sweep_that_were_refused_are_shown_with_their_error(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = ["prompt=castle,car", "guidance=sds,dds", "guidance.scale=5", "logger=none", "hydra.sweep.dir=sweep"]
    with pytest.raises(RunError, match="^4 of 4 jobs failed$"):
        sweep([*typed, "device=cuda:99"], job)
    runs = read_runs(find_runs([tmp_path / "sweep"]))
    assert [run.status for run in runs] == ["failed"] * 4
    assert all("device=cuda:99 is not one of auto, cpu" in run.error for run in runs)
    keys, values = differing(runs)
    assert keys == {"prompt": True, "guidance": True}
    assert {(one["prompt"], one["guidance"]) for one in values} == {
        (prompt, guidance) for prompt in ("castle", "car") for guidance in ("sds", "dds")
    }


def test_the_last_word_on_a_job_is_its_sweeps(tmp_path):
    path = bare(tmp_path / "run", error="ValueError: once")
    (path / "job.json").write_text(json.dumps({"number": 0, "swept": {"guidance": "vsd"}, "error": "refused now"}))
    run = read_run(path, "run")
    assert (run.status, run.error) == ("failed", "refused now")
    (path / "config.yaml").unlink()
    swept = {"guidance.scale": 3, "guidance": "vsd", "seed": 1}
    (path / "job.json").write_text(json.dumps({"number": 0, "swept": swept, "error": ""}))
    run = read_run(path, "run")
    assert (run.status, run.error) == ("failed", "ValueError: once")
    assert run.config == {"guidance": {"_target_": "vsd", "scale": 3}, "seed": 1}
    assert run.overrides["guidance"] == "vsd"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.yaml", b"\xff\xfe\x00"),
        ("config.yaml", b"- a list"),
        ("config.yaml", b"a: {b: [}"),
        ("config.yaml", b"a: &a [1]\nb: [*a, *a]"),
        ("config.yaml", b"a: " + 5000 * b"[" + 5000 * b"]"),
        ("config.yaml", b"!!python/object/apply:os.system [exit]"),
        ("metrics.json", b"{"),
        ("metrics.json", b"3"),
        ("overrides.yaml", b"{a: 1}"),
        ("job.json", b"[1]"),
    ],
)
def test_damaged_files_are_told_of(tmp_path, name, content):
    path = bare(tmp_path / "run", metrics={"loss": 1.0})
    (path / name).write_bytes(content)
    run = read_run(path, "run")
    assert f"{name} is damaged" in run.error
    assert run.status == ("unfinished" if name == "metrics.json" else "finished")


def test_a_run_whose_files_are_missing_or_lead_elsewhere(tmp_path):
    path = bare(tmp_path / "run", metrics={"loss": 1.0})
    secret = tmp_path / "secret.mp4"
    secret.write_bytes(b"secret")
    (path / "videos").mkdir()
    (path / "videos" / "rgb.mp4").symlink_to(secret)
    (path / "videos" / "depth.mp4").write_bytes(b"")
    (path / "run.log").unlink()
    (path / "run.log").symlink_to(path / "run.log")
    (path / "overrides.yaml").unlink()
    run = read_run(path, "run")
    assert (run.status, run.videos, run.overrides) == ("finished", {}, {})


def test_curves_skip_what_is_torn_and_are_shortened(tmp_path):
    path = tmp_path / "metrics.csv"
    path.write_text("step,loss,psnr\n0,4.0,\n1,nan,20\n2,2.0,\n3,inf,30\n4,1")
    curves = read_curves(path)
    assert curves == {"loss": Curve([0, 2], [4, 2]), "psnr": Curve([1, 3], [20, 30])}
    path.write_bytes(b"step,loss\n0,\x00\xff\n1,2\n\x00")
    assert read_curves(path) == {"loss": Curve([1], [2])}
    path.write_text("loss\n1\n")
    assert read_curves(path) == {}
    path.write_text("")
    assert read_curves(path) == {}
    assert Curve(list(range(1000)), [1.0] * 1000).shortened(7).steps[0] == 71
    assert len(Curve(list(range(1000)), [1.0] * 1000).shortened(7).steps) == 7


def test_only_keys_that_differ_are_kept(tmp_path):
    other = {"guidance": {"_target_": "diffusion3d.guidance.vsd.VSD", "scale": 7.5, "lora": 4}}
    runs = [
        bare(tmp_path / "1", config("castle", seed=1), ["prompt='castle'", "guidance=sds"]),
        bare(tmp_path / "2", config("car", seed=2, **other), ["prompt=car", "guidance=vsd"]),
        bare(tmp_path / "3", config("castle", seed=3), ["seed=3", "prompt=castle"]),
        bare(tmp_path / "4", config("castle", seed=4, **other)),
    ]
    keys, values = differing(read_runs(runs))
    assert keys == {"prompt": True, "seed": True, "guidance": True}
    assert values[0] == {"prompt": "castle", "seed": 1, "guidance": "sds"}
    assert [each["guidance"] for each in values] == ["sds", "vsd", "sds", "vsd"], (
        "typed, or named by others of the class"
    )


def test_a_choice_without_a_class_and_a_key_that_was_dropped(tmp_path):
    runs = [
        bare(tmp_path / "1", config(terms={"size": {"weight": 1.0}}, representation={"density": None})),
        bare(
            tmp_path / "2", config(terms={}, representation={"density": {"_target_": "a.B", "cap": 3}}), ["terms=none"]
        ),
    ]
    keys, values = differing(read_runs(runs))
    assert list(keys) == ["terms", "representation.density"]
    assert values == [
        {"terms": "default", "representation.density": None},
        {"terms": "none", "representation.density": "B"},
    ]


def test_prompts_are_what_was_typed(tmp_path):
    prompts = ["${oc.env:HOME} castle", "\\\\${x}", "</script><img src=x onerror=alert(1)>"]
    from diffusion3d.config import save_config

    for number, prompt in enumerate(prompts):
        path = bare(tmp_path / str(number))
        save_config(config(prompt), path / "config.yaml")
    _, values = differing(read_runs(find_runs([tmp_path])))
    assert [each["prompt"] for each in values] == prompts


def test_texts_hold_neither_secrets_nor_places(monkeypatch):
    monkeypatch.setenv("WANDB_API_KEY", "very-secret-indeed")
    assert clean("key very-secret-indeed, hf_" + "a" * 30 + ", " + "0123456789" * 4) == "key ***, ***, 0123456…"
    assert clean("anything", "prior.hf_token") == clean("x", "logger.api_key") == "***"
    assert clean("<e>", "objective.token") == "<e>"
    for place in (
        "/home/me/data",
        "~/data",
        "~me/x/data",
        "file:///srv/data",
        r"C:\Users\me\data",
        "//host/data",
        "/data",
    ):
        assert clean(place) == "…/data", place
    for kept in ("a castle and/or a car", "stabilityai/sd", "../data/x", "https://a.org/b/c", "</b></i>"):
        assert clean(kept) == kept
    assert clean("no '/a/b', (/c/d) or x=/e/f:/g/h") == "no '…/b', (…/d) or x=…/f:…/h"
    assert len(clean("x" * 10**6)) < 3000
    os.fsencode(clean("\udcff"))


def test_yaml_files_are_never_code(tmp_path):
    path = bare(tmp_path / "run")
    (path / "config.yaml").write_text(yaml.dump({"a": object}))
    assert "config.yaml is damaged" in read_run(path, "run").error
