"""The built wheel, unpacked away from the checkout, runs from any directory."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_the_wheel_holds_code_and_configs_and_runs(tmp_path):
    ignored = shutil.ignore_patterns(".*", "outputs", "build", "dist", "*.egg-info", "__pycache__")
    source = shutil.copytree(ROOT, tmp_path / "source", ignore=ignored)  # a build leaves files behind
    build = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--no-isolation",
        "--outdir",
        str(tmp_path / "dist"),
        str(source),
    ]
    done = subprocess.run(build, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stdout + done.stderr
    [wheel] = (tmp_path / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        archive.extractall(tmp_path / "site")
    tracked = {path.relative_to(ROOT / "conf").as_posix() for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"diffusion3d/conf/{name}" for name in tracked} <= names
    template = ROOT / "diffusion3d" / "comparison" / "template"
    assert {path.relative_to(ROOT).as_posix() for path in template.iterdir()} <= names
    assert not {name for name in names if name.startswith(("tests/", "conf/", "experiments/"))}
    paths = [str(tmp_path / "site"), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_WAIT_POLICY": "PASSIVE"}
    program = (
        "import sys, diffusion3d; sys.argv[1:] = ['hydra.searchpath=[' + sys.argv[1] + ']', 'task=toy', 'logger=none'];"
        "from diffusion3d.run import main; print(diffusion3d.__file__); sys.exit(main())"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(ROOT / "tests" / "configs")],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "site"))
    assert len(list((tmp_path / "outputs").glob("toy_*/metrics.json"))) == 1
