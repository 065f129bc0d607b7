"""`python -m diffusion3d.view`, as a user types it."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest

import diffusion3d
from choices import CAMERA, SCENE
from diffusion3d.view import main

DATA = ["data=toybox_scenes", "data.train_views=2", "data.test_views=1", "data.size=32", "data.samples=1"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    directory = tmp_path_factory.mktemp("view") / "run"
    typed = [
        "task=fit",
        "task.steps=2",
        "task.video_size=16",
        "logger=none",
        "device=cpu",
        f"hydra.run.dir={directory}",
    ]
    diffusion3d.run([*typed, *DATA, *SCENE, *CAMERA])
    return directory


def test_it_serves_the_page_until_ctrl_c(run):
    command = [sys.executable, "-m", "diffusion3d.view", str(run), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    patience = threading.Timer(300, process.kill)
    patience.start()
    try:
        line = process.stderr.readline()
        found = re.fullmatch(rf"{re.escape(str(run))} is shown at (http://127\.0\.0\.1:\d+); Ctrl-C closes it\n", line)
        assert found, line + process.stderr.read()
        assert urllib.request.urlopen(found[1], timeout=20).status == 200
        process.send_signal(signal.SIGINT)
        out, error = process.communicate(timeout=30)
        assert (process.returncode, out, error) == (0, "", "")
    finally:
        patience.cancel()
        process.kill()


@pytest.mark.parametrize("case", ["nothing", "no scene", "port", "device", "target", "option"])
def test_bad_input_is_one_line_and_exit_code_2(case, run, tmp_path, capsys):
    copy = shutil.copytree(
        run, tmp_path / "copy", ignore=lambda path, names: ["checkpoints"] if case == "no scene" else []
    )
    config = copy / "config.yaml"
    if case == "target":
        config.write_text(config.read_text().replace("diffusion3d.camera_sampling.Orbit", "os.path.join"))
    given = {
        "nothing": ([str(tmp_path / "nowhere")], "nowhere is not a run directory"),
        "no scene": ([str(copy)], "holds no scene"),
        "device": ([str(copy), "--device", "tpu"], "invalid choice: 'tpu'"),
        "target": ([str(copy)], r"os.path .*add run.trust=\[os.path\] \(diffusion3d.view: --trust os.path\)"),
        "option": ([str(copy), "--port", "many"], "invalid int value"),
    }
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given["port"] = ([str(copy), "--port", port], f"cannot listen at 127.0.0.1, port {port}: {os.strerror(98)}")
        arguments, message = given[case]
        try:
            code = main(arguments)
        except SystemExit as exit:
            code = exit.code
    lines = capsys.readouterr().err.splitlines()
    assert code == 2
    assert re.search(message, lines[-1])
    assert lines[-1].startswith("error: ") or case in ("option", "device")
