"""What trackio is told, read back from its database."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

pytest.importorskip("trackio")

PROGRAM = """
import json, logging, sys
from pathlib import Path
from diffusion3d.loggers.base import RunInfo
from diffusion3d.loggers.trackio import TrackioLogger

logging.basicConfig()
directory = Path(sys.argv[1])
info = RunInfo("abc123", directory, {"task": {"steps": 4}}, "distill", "my-sweep", ["one"], {"guidance": "vsd"})
for segment in (range(2), range(2, 4), range(4, 4)):
    logger = TrackioLogger("proj")
    logger.start(info)
    if segment.start:
        logger.resume(segment.start)
    for step in segment:
        logger.log(step, {"loss": step / 2})
    logger.image(segment.stop - 1, "grid", directory / "grid.png")
    logger.video("rgb", directory / "rgb.mp4")
    logger.finish({"norm": 2.5})

from trackio.sqlite_storage import SQLiteStorage

name = "castle_1a2b_abc123"
found = {"logs": SQLiteStorage.get_logs("proj", name), "config": SQLiteStorage.get_run_config("proj", name)}
Path(sys.argv[2]).write_text(json.dumps({**found, "runs": SQLiteStorage.get_runs("proj")}, default=str))
"""


@pytest.mark.slow
def test_the_database_holds_everything(tmp_path):
    directory = tmp_path / "castle_1a2b"
    directory.mkdir()
    Image.new("RGB", (4, 4)).save(directory / "grid.png")
    (directory / "rgb.mp4").write_bytes(b"not really a video")
    command = [sys.executable, "-c", PROGRAM, str(directory), str(tmp_path / "found.json")]
    path = str(Path(__file__).parent.parent.parent)
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "db"), "PYTHONPATH": path}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["runs"] == ["castle_1a2b_abc123"], "a resumed run goes on"
    rows = found["logs"]
    assert {row["step"]: row["loss"] for row in rows if "loss" in row} == {0: 0.0, 1: 0.5, 2: 1.0, 3: 1.5}
    assert [row["step"] for row in rows if "final/norm" in row] == [1, 3, 3]
    kinds = {name: row[name]["_type"] for row in rows for name in ("grid", "rgb") if name in row}
    assert kinds == {"grid": "trackio.image", "rgb": "trackio.video"}
    config = found["config"]
    assert (config["sweep"], config["_Group"], config["tags"]) == ({"guidance": "vsd"}, "my-sweep", ["one"])
