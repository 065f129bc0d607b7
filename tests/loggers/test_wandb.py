"""What W&B is told, read back from its own offline files, and what happens when it misbehaves."""

import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
import types
from pathlib import Path

import pytest
from PIL import Image

import diffusion3d
from diffusion3d.errors import RunError, UserError
from diffusion3d.hydra_cli import sweep
from diffusion3d.loggers import background
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
        logger = WandbLogger("proj", finish_seconds=60)
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


class FakeRun:
    id = "id"
    url = "https://example.invalid"

    def __init__(self, log):
        self.log = log

    def finish(self, exit_code):
        pass


def install(monkeypatch, init=None, log=lambda *a, **k: None):
    fake = types.ModuleType("wandb")
    fake.calls = []

    def record_init(**settings):
        fake.calls.append(settings)
        return FakeRun(log)

    fake.init = init or record_init
    fake.Settings = lambda **settings: settings
    fake.setup = lambda: types.SimpleNamespace(settings=types.SimpleNamespace(base_url="https://api.wandb.ai"))
    monkeypatch.setitem(sys.modules, "wandb", fake)
    return fake


def run_toy(directory, *overrides):
    typed = [f"hydra.searchpath=[{CONFIGS}]", "task=toy", f"hydra.run.dir={directory}", *overrides]
    return diffusion3d.run([*typed, "logger.wandb.finish_seconds=0.5"])


def explode(*arguments, **settings):
    raise RuntimeError("the server\nis on fire")


@pytest.mark.parametrize("where", ["init", "log"])
def test_an_error_in_wandb_is_one_warning_and_the_run_goes_on(where, monkeypatch, tmp_path, caplog):
    install(monkeypatch, **{where: explode})
    assert run_toy(tmp_path / "run")["norm"] > 0
    warnings = [r.getMessage() for r in caplog.records if r.levelno >= logging.WARNING]
    assert len(warnings) == 1
    assert "W&B is off for the rest of this run: RuntimeError: the server is on fire" in warnings[0]
    assert len((tmp_path / "run" / "metrics.csv").read_text().splitlines()) == 41


@pytest.mark.parametrize("where", ["init", "log"])
def test_a_wandb_that_hangs_costs_no_more_than_finish_seconds(where, monkeypatch, tmp_path, caplog):
    freed = threading.Event()
    install(monkeypatch, **{where: lambda *a, **k: freed.wait(30)})
    begin = time.monotonic()
    run_toy(tmp_path / "run")
    assert time.monotonic() - begin < 10
    freed.set()
    assert "it did not finish within 0.5 s; what it has can be sent by: wandb sync" in caplog.text


def test_giving_up_waits_for_no_lock_of_wandb():
    """wandb holds it while its service starts."""
    from wandb.sdk import wandb_setup

    with wandb_setup._singleton_lock:
        thread = threading.Thread(target=WandbLogger("proj").abandon, daemon=True)
        thread.start()
        thread.join(5)
        assert not thread.is_alive()


def test_a_service_that_starts_after_wandb_was_given_up_is_abandoned(monkeypatch, tmp_path):
    fake, freed, times = install(monkeypatch), threading.Event(), []
    made = fake.setup()
    fake.setup = lambda: made if freed.wait(30) else None
    monkeypatch.setattr(WandbLogger, "abandon", lambda self: times.append(freed.is_set()))
    logger = WandbLogger("proj", mode="offline", finish_seconds=0.1)
    logger.start(RunInfo("id", tmp_path, {}, "toy", None, [], {}))
    logger.finish(None)
    freed.set()
    logger._thread.join(10)
    assert times == [False, True]


def test_a_silent_server_does_not_hold_the_process(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as silent:
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
                "logger.wandb.finish_seconds=1",
            ],
            env={**os.environ, **where, "PYTHONPATH": path},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
        )
    assert done.returncode == 0 and "W&B is off for the rest of this run" in done.stderr, done.stderr
    assert time.monotonic() - begin < 40, "wandb alone would wait a minute and more"


def test_a_wandb_that_falls_behind_is_switched_off(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr(background, "QUEUE_LENGTH", 5)
    freed = threading.Event()
    install(monkeypatch, log=lambda *a, **k: freed.wait(30))
    run_toy(tmp_path / "run")
    freed.set()
    assert "it is 5 entries behind" in caplog.text


def test_a_missing_wandb_is_a_warning(monkeypatch, tmp_path, caplog):
    monkeypatch.setitem(sys.modules, "wandb", None)
    run_toy(tmp_path / "run", "task.steps=2")
    assert "W&B is off" in caplog.text


@pytest.mark.parametrize(
    ("key", "variable", "asked", "expected"),
    [
        (None, None, "auto", "offline"),
        ("environment", None, "auto", "online"),
        ("netrc", None, "auto", "online"),
        ("environment", "offline", "auto", "offline"),
        (None, "disabled", "auto", "disabled"),
        ("environment", None, "offline", "offline"),
    ],
)
def test_online_when_logged_in_offline_otherwise(key, variable, asked, expected, monkeypatch, tmp_path):
    if key == "environment":
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
    if key == "netrc":
        file = tmp_path / "netrc"
        file.write_text(f"machine api.wandb.ai login user password {'0' * 40}\n")
        file.chmod(0o600)
        monkeypatch.setenv("NETRC", str(file))
    if variable is not None:
        monkeypatch.setenv("WANDB_MODE", variable)
    fake = install(monkeypatch)
    logger = WandbLogger("p", mode=asked)
    logger.start(RunInfo("i", tmp_path, {}, "distill"))
    logger.finish(None)
    assert fake.calls[0]["mode"] == expected


def test_unknown_modes_are_refused():
    with pytest.raises(UserError, match="logger.wandb.mode=on is not one of auto, online, offline"):
        WandbLogger("p", mode="on")
