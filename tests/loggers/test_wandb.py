"""What W&B is told, read back from its own offline files, and what happens when it misbehaves."""

import json
import logging
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import types
from pathlib import Path
from urllib.parse import urlparse

import pytest
from PIL import Image

import diffusion3d
from diffusion3d.errors import RunError, UserError
from diffusion3d.hydra_cli import sweep
from diffusion3d.loggers.background import Loggers
from diffusion3d.loggers.base import RunInfo
from diffusion3d.loggers.wandb import WandbLogger
from diffusion3d.run import job

CONFIGS = Path(__file__).parent.parent / "configs"


@pytest.fixture(autouse=True)
def logged_out(monkeypatch, tmp_path):
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))


def records(path):
    """The protobuf records of a .wandb file: a header of 7 bytes, then LevelDB's log format (blocks of 32 KiB)."""
    from wandb.proto import wandb_internal_pb2

    data, position, parts, found = path.read_bytes(), 7, b"", []
    while position + 7 <= len(data):
        left = 32768 - position % 32768
        if left < 7:
            position += left
            continue
        length, kind = struct.unpack("<HB", data[position + 4 : position + 7])
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record()
            record.ParseFromString(parts)
            found.append(record)
            parts = b""
    return found


def offline_files(directory):
    return sorted((directory / "wandb").glob("offline-run-*/*.wandb"))


def history(found):
    rows = []
    for record in found:
        if record.WhichOneof("record_type") == "history":
            items = record.history.item
            rows.append({item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in items})
    return rows


@pytest.mark.slow
def test_an_offline_run_holds_everything(tmp_path):
    config = {"prompt": "${literal}", "task": {"steps": 3}}
    swept = {"prompt": "${literal}", "guidance": "vsd", "task.steps": 3}
    info = RunInfo("abc123", tmp_path, config, "distill", "my-sweep", ["one", "two"], swept)
    Image.new("RGB", (4, 4)).save(tmp_path / "grid.png")
    (tmp_path / "rgb.mp4").write_bytes(b"not really a video")
    (tmp_path / "scene.ply").write_bytes(b"ply")
    for segment in (range(2), range(2, 4)):
        logger = Loggers([WandbLogger("proj", finish_seconds=60)])
        logger.start(info)
        for step in segment:
            logger.log(step, {"loss": step / 2, "seconds": 0.1})
        logger.image(segment[-1], "grid", tmp_path / "grid.png")
        logger.image(None, "contact_sheet", tmp_path / "grid.png")
        logger.video("rgb", tmp_path / "rgb.mp4")
        logger.artifact("scene", tmp_path / "scene.ply")
        logger.finish({"norm": 2.5})
    files = offline_files(tmp_path)
    assert len(files) == 2, "a resumed offline run is a second segment"
    rows = []
    for file in files:
        found = records(file)
        [run] = [record.run for record in found if record.WhichOneof("record_type") == "run"]
        assert (run.run_id, run.project, run.run_group, run.job_type) == ("abc123", "proj", "my-sweep", "distill")
        assert list(run.tags) == ["one", "two"]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        [environment, *_] = [
            record.environment for record in found if record.WhichOneof("record_type") == "environment"
        ]
        assert environment.program == sys.argv[0]
        assert config["prompt"] == "${literal}"
        assert config["task"] == {"steps": 3}
        columns = {name: value for name, value in config.items() if name.startswith("sweep/")}
        assert columns == {"sweep/prompt": "${literal}", "sweep/guidance": "vsd", "sweep/task/steps": 3}
        rows += history(found)
        artifacts = [
            record.request.log_artifact.artifact for record in found if record.request.HasField("log_artifact")
        ]
        artifacts += [record.artifact for record in found if record.WhichOneof("record_type") == "artifact"]
        assert [(artifact.name, artifact.type) for artifact in artifacts] == [
            ("abc123-scene", "scene"),
            ("run-abc123-results", "run_table"),
        ]
        parts = {part.path: Path(part.local_path) for part in artifacts[1].manifest.contents}
        table = json.loads(parts["results.table.json"].read_text())
        assert table["columns"] == ["prompt", "variant", "contact_sheet", "rgb", "norm"]
        [[prompt, variant, sheet, video, norm]] = table["data"]
        assert (prompt, variant, norm) == ("${literal}", "guidance=vsd task.steps=3", 2.5)
        assert (sheet["_type"], video["_type"]) == ("image-file", "video-file")
        assert parts[sheet["path"]].read_bytes() == (tmp_path / "grid.png").read_bytes()
        assert parts[video["path"]].read_bytes() == (tmp_path / "rgb.mp4").read_bytes()
        summary = {item.key: item.value_json for record in found for item in record.summary.update}
        assert summary["final/norm"] == "2.5"
        assert [record.exit.exit_code for record in found if record.WhichOneof("record_type") == "exit"] == [0]
    assert {row["_step"]: row["loss"] for row in rows if "loss" in row} == {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5}
    media = {name for row in rows for name in ("grid", "rgb") if name in row or f"{name}/_type" in row}
    assert media == {"grid", "rgb"}


@pytest.mark.slow
def test_every_job_of_a_sweep_is_a_run_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", "task.steps=3", "tags=[study]", "hydra.sweep.dir=my_sweep"]
    typed += ["logger.wandb.finish_seconds=60", "logger.wandb.mode=offline"]
    with pytest.raises(RunError, match="1 of 2 jobs failed"):
        sweep([*typed, "task.nan_at=null,1"], job)
    found = {}
    for directory in (tmp_path / "my_sweep").glob("nan-at-*"):
        [file] = offline_files(directory)
        read = records(file)
        [run] = [record.run for record in read if record.WhichOneof("record_type") == "run"]
        config = {item.key: json.loads(item.value_json) for item in run.config.update}
        [code] = [record.exit.exit_code for record in read if record.WhichOneof("record_type") == "exit"]
        assert (run.run_group, run.job_type, [*run.tags]) == ("my_sweep", "toy", ["study"])
        assert run.display_name == directory.name
        assert len([row for row in history(read) if "loss" in row]) == (3 if code == 0 else 1)
        found[config["sweep/task/nan_at"]] = (run.run_id, code)
    assert {value: code for value, (_, code) in found.items()} == {None: 0, 1: 1}
    assert len({run_id for run_id, _ in found.values()}) == 2


FAKE = """
import time

class Run:
    id, url = "id", "https://example.invalid/a-run"
    summary = {{}}

    def log(self, metrics, step=None):
        {log}

    def finish(self, exit_code): ...

Settings = setup = dict

def init(**settings):
    {init}
    return Run()
"""


def install(folder, monkeypatch, init="pass", log="pass"):
    """A package named wandb that misbehaves as asked, found by the runs' logging processes before the real one."""
    (folder / "packages").mkdir()
    (folder / "packages" / "wandb.py").write_text(FAKE.format(init=init, log=log))
    monkeypatch.syspath_prepend(folder / "packages")


def run_toy(directory, *overrides, wait=60):
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", f"hydra.run.dir={directory}", *overrides]
    return diffusion3d.run([*typed, f"logger.wandb.finish_seconds={wait}", "logger.wandb.mode=online"])


@pytest.mark.parametrize("where", ["init", "log"])
def test_an_error_in_wandb_is_one_warning_and_the_run_goes_on(where, monkeypatch, tmp_path, caplog):
    install(tmp_path, monkeypatch, **{where: 'raise RuntimeError("the server\\nis on fire")'})
    assert run_toy(tmp_path / "run")["norm"] > 0
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "W&B is off for the rest of this run: RuntimeError: the server is on fire; what it has" in warnings[0]
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 41


def test_people_are_told_where_an_online_run_is_to_be_seen(monkeypatch, tmp_path, caplog):
    install(tmp_path, monkeypatch)
    run_toy(tmp_path / "run", "task.steps=2")
    assert "W&B: https://example.invalid/a-run" in caplog.messages


def test_a_silent_server_does_not_hold_the_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(10)
        typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", "task.steps=2", f"hydra.run.dir={tmp_path / 'run'}"]
        where = {"WANDB_BASE_URL": f"http://127.0.0.1:{silent.getsockname()[1]}", "WANDB_API_KEY": "0" * 40}
        path = os.pathsep.join([str(CONFIGS.parent), str(CONFIGS.parent.parent)])
        begin = time.monotonic()
        done = subprocess.run(
            [
                sys.executable,
                "-m",
                "diffusion3d.run",
                *typed,
                "logger.wandb.mode=online",
                "logger.wandb.finish_seconds=5",
            ],
            env={**os.environ, **where, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
        silent.accept()[0].close()  # it was asked
    assert done.returncode == 0 and "W&B is off for the rest of this run" in done.stderr, done.stderr
    assert time.monotonic() - begin < 55, "wandb alone would wait a minute and more"


@pytest.mark.parametrize(
    ("variable", "asked", "expected"),
    [("offline", "auto", "offline"), ("disabled", "auto", "disabled"), (None, "offline", "offline")],
)
def test_the_mode_is_the_configs_else_the_environments(variable, asked, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    assert mode(asked, tmp_path) == expected


def mode(given, folder):
    return asked(given, RunInfo("i", folder, {}, "distill"))["mode"]


def asked(given, info):
    """What a logger in this mode and in this process asks W&B for."""
    import wandb

    calls = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb, "init", lambda **settings: calls.append(settings) or types.SimpleNamespace(url=""))
        WandbLogger("p", mode=given).start(info)
    return calls[0]


@pytest.mark.slow
@pytest.mark.parametrize("key", [None, "environment", "netrc", "netrc of W&B's former host"])
def test_online_when_logged_in_offline_otherwise(key, monkeypatch, tmp_path):
    if key == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    elif key is not None:
        host = "api.wandb.ai" if "former" in key else urlparse(wandb_host()).hostname
        (tmp_path / "netrc").write_text(f"machine {host} login user password {'0' * 40}\n")
        (tmp_path / "netrc").chmod(0o600)
        monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    program = "import sys, pathlib, test_wandb; print(test_wandb.mode('auto', pathlib.Path(sys.argv[1])))"
    path = os.pathsep.join(str(folder) for folder in (Path(__file__).parent, CONFIGS.parent, CONFIGS.parent.parent))
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.split()[-1:] == ["offline" if key is None else "online"], done.stderr


def wandb_host():
    import wandb

    return wandb.Settings().base_url


def test_a_key_that_is_none_is_a_warning_and_the_run_offline(monkeypatch, tmp_path, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "too short")
    assert mode("auto", tmp_path) == "offline"
    assert "offline, for the key is none: " in caplog.text and "too short" not in caplog.text


def test_stopping_a_run_on_its_page_interrupts_the_runs_process(monkeypatch, tmp_path):
    settings = asked("offline", RunInfo("i", tmp_path, {}, "distill", process=12345))["settings"]
    killed = []
    monkeypatch.setattr(os, "kill", lambda *arguments: killed.append(arguments))
    settings.stop_fn()
    assert killed == [(12345, signal.SIGINT)] and settings.x_stats_pid == 12345


def test_unknown_modes_are_refused():
    with pytest.raises(UserError, match="logger.wandb.mode=on is not one of auto, online, offline"):
        WandbLogger("p", mode="on")
