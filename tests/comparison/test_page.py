"""Writing the page."""

import base64
import json
import re
import subprocess
import sys

import pytest
from filelock import FileLock

from compared_runs import config, make_run
from diffusion3d import compare as module
from diffusion3d.compare import compare, main
from diffusion3d.comparison import page
from diffusion3d.representations.dot_splat import ROW

EVIL = "</script><img src=x onerror=\"document.title='bad'\"><!-- ]]> &amp; 'quoted' \u2028"


def data_of(index):
    return json.loads(
        re.search(r'<script type="application/json" id="data">(.*?)</script>', index.read_text(), re.S)[1]
    )


def names_in(data):
    for run in data["runs"]:
        yield from run["videos"].values()
        yield from [name for name in (run["picture"], run["scene"] and run["scene"]["file"]) if name]
    yield from data["curves"].values()


def content_of(path):
    found = re.fullmatch(r'received\("([^"]+)", (.*)\);\n', path.read_text())
    assert found[1] == path.name
    value = json.loads(found[2])
    return base64.b64decode(value) if isinstance(value, str) else value


@pytest.fixture
def runs(tmp_path):
    folder = tmp_path / "home" / "somebody" / "outputs"
    make_run(folder / "castle", config("castle", 5.0), ["prompt=castle", "guidance.scale=5"], {"loss": 1.0})
    make_run(folder / "evil", config(EVIL, 10.0), [f"prompt={EVIL}"], {"loss": float("nan"), "steps": 2**60})
    failed = make_run(
        folder / "failed", config("car", 5.0), error=f"ValueError: {EVIL} /etc/x/y", videos=(), scene=False
    )
    (failed / "previews").mkdir()
    (failed / "previews" / "step_1.png").write_bytes(b"png")
    return folder


def test_the_page_and_its_media(runs, tmp_path):
    out = tmp_path / "compare"
    assert compare([runs], out) == f"{out}/index.html: 3 runs (2 finished, 1 failed)"
    data = data_of(out / "index.html")
    assert [key["name"] for key in data["keys"]] == ["prompt", "guidance.scale"]
    castle, evil, failed = data["runs"]
    assert castle["config"] == {"prompt": "castle", "guidance.scale": 5.0}
    assert evil["prompt"] == EVIL
    assert evil["metrics"] == {"loss": "nan", "steps": str(2**60)}
    assert failed["status"] == "failed" and "…/y" in failed["error"] and failed["picture"]
    assert {path.name for path in (out / "media").iterdir()} == set(names_in(data))
    splats = content_of(out / "media" / castle["scene"]["file"])
    assert len(splats) == castle["scene"]["count"] * ROW.itemsize > 0
    loss = content_of(out / "media" / data["curves"]["loss"])
    assert set(loss["runs"]) == {"0", "1", "2"} and len(loss["steps"]) == 1 and len(loss["steps"][0]) == 100


def test_nothing_of_the_machine_is_told_and_nothing_is_fetched(runs, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hidden-value-1234")
    make_run(runs / "secret", config("hidden-value-1234", data="/home/somebody/data"), metrics={}, scene=False)
    compare([runs], tmp_path / "compare")
    for path in [tmp_path / "compare" / "index.html", *(tmp_path / "compare" / "media").glob("*.js")]:
        text = path.read_text()
        assert "hidden-value" not in text and "somebody" not in text and str(tmp_path) not in text
    page = (tmp_path / "compare" / "index.html").read_text()
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    assert "default-src 'none'" in page


def test_text_cannot_leave_its_place(runs, tmp_path):
    compare([runs], tmp_path / "compare")
    text = (tmp_path / "compare" / "index.html").read_text()
    assert "onerror" in text and "<img" not in text
    assert text.count("<script") == text.count("</script>") == 3


def test_names_stay_in_the_folder(tmp_path):
    folder = tmp_path / "runs"
    for name in ("..a", "name with <b> & 'quotes'", "ü" * 60, "-" * 100, ".."):
        path = folder / "x" / name if name != ".." else folder / "y"
        make_run(path, steps=2, metrics={}, videos=("rgb",), scene=False)
    compare([folder], tmp_path / "compare")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["compare", "runs"]
    for path in (tmp_path / "compare" / "media").iterdir():
        assert re.fullmatch(r"[a-z0-9-]+\.[0-9a-f]{16}\.(mp4|js)", path.name)


def test_a_single_file_holds_all(runs, tmp_path):
    out = tmp_path / "compare"
    compare([runs], out)
    compare([runs], out, single_file=True)
    data, text = data_of(out / "index.html"), (out / "index.html").read_text()
    assert list((out / "media").iterdir()) == []
    held = dict(re.findall(r'<script type="application/json" data-file="([^"]+)">([^<]*)</script>', text))
    assert set(held) == set(names_in(data))
    assert (
        base64.b64decode(json.loads(held[data["runs"][0]["videos"]["rgb"]]))
        == (runs / "castle/videos/rgb.mp4").read_bytes()
    )


def test_a_single_file_of_many_runs_is_refused(runs, tmp_path, capsys):
    for number in range(20):
        make_run(runs / str(number), steps=1, videos=(), scene=False)
    assert main([str(runs), "--out", str(tmp_path / "compare"), "--single-file"]) == 2
    error = "error: --single-file inlines at most 20 runs and there are 23; name fewer, or leave it out\n"
    assert capsys.readouterr().err == error
    assert not (tmp_path / "compare").exists()


def test_the_old_page_is_whole_until_the_new_one_is(runs, tmp_path, monkeypatch):
    out = tmp_path / "compare"
    compare([runs / "castle"], out)
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file() and path.name != ".lock"}
    (runs / "castle" / "videos" / "rgb.mp4").write_bytes(b"another film")

    def die(path, text):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(page, "write_text", die)
        with pytest.raises(KeyboardInterrupt):
            compare([runs], out)
    assert {path: path.read_bytes() for path in before} == before
    assert len(list((out / "media").iterdir())) > len(before) - 1, "new media are beside the old"
    (out / "media" / "note.txt").write_text("of a person")
    compare([runs], out)
    assert {path.name for path in (out / "media").iterdir()} == {*names_in(data_of(out / "index.html")), "note.txt"}


def test_pages_of_others_are_kept_and_two_writers_do_not_meet(runs, tmp_path, capsys):
    out = tmp_path / "site"
    out.mkdir()
    (out / "index.html").write_text("<p>mine")
    assert main([str(runs), "--out", str(out)]) == 2
    assert "is no comparison page and is kept; choose another folder with --out" in capsys.readouterr().err
    assert (out / "index.html").read_text() == "<p>mine" and not (out / "media").exists()
    (out / "index.html").unlink()
    with FileLock(out / ".lock"):
        assert main([str(runs), "--out", str(out)]) == 2
    assert "is being written by another process" in capsys.readouterr().err
    assert main([str(runs), "--out", str(out / ".lock" / "x")]) == 2
    assert re.fullmatch(r"error: cannot write .*; choose another folder with --out\n", capsys.readouterr().err)


def test_scenes_that_cannot_be_read_leave_a_page(runs, tmp_path):
    (runs / "castle" / "export" / "scene.ply").write_bytes(b"ply\nnonsense")
    (runs / "evil" / "export" / "scene.ply").rename(runs / "evil" / "export" / "other.ply")
    (runs / "evil" / "export" / "mesh.glb").write_bytes(b"glTF")
    compare([runs], tmp_path / "compare")
    castle, evil, _ = data_of(tmp_path / "compare" / "index.html")["runs"]
    assert castle["scene"] is None
    assert content_of(tmp_path / "compare" / "media" / evil["scene"]["file"]) == b"glTF"


def test_the_command_line_needs_no_torch_without_scenes(tmp_path):
    make_run(tmp_path / "run", scene=False, videos=())
    program = "import sys; from diffusion3d.compare import main; main(['run']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["compare/index.html: 1 runs (1 unfinished)", "False"], done.stderr


def test_help_names_the_options(capsys):
    with pytest.raises(SystemExit) as left:
        module.main(["--help"])
    assert left.value.code == 0
    assert {"--out", "--single-file"} <= set(capsys.readouterr().out.replace("]", " ").split())
