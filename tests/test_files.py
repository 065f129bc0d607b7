from pathlib import Path

import pytest

from diffusion3d.files import whole, whole_folder, write_bytes, write_text


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "a.gif"
    with whole(path) as temporary:
        assert temporary.suffix == ".gif" and temporary.parent == tmp_path
        temporary.write_bytes(b"new")
        assert not path.exists()
    assert path.read_bytes() == b"new" and list(tmp_path.iterdir()) == [path]


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "a.bin"
    write_bytes(path, b"old")
    with pytest.raises(TypeError), whole(path) as temporary:
        temporary.write_bytes(b"ne" + temporary.write_bytes(b"n"))
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has a device that is always full")
def test_what_cannot_be_written_is_named(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with pytest.raises(OSError, match="No space left") as caught, whole(path), open("/dev/full", "w") as full:
        full.write("new")
    assert caught.value.filename == str(path)
    assert path.read_text() == "old"


def test_a_folder_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "saved"
    for content in ("old", "new"):
        with whole_folder(path) as temporary:
            (temporary / "unet").mkdir()
            (temporary / "unet" / f"{content}.txt").write_text(content)
            assert [*path.rglob("*.txt")] == ([] if content == "old" else [path / "unet" / "old.txt"])
    assert [*path.rglob("*.txt")] == [path / "unet" / "new.txt"] and [*tmp_path.iterdir()] == [path]
    with pytest.raises(ZeroDivisionError), whole_folder(path) as temporary:
        (temporary / "half.txt").write_text(str(1 / 0))
    assert [*path.rglob("*.txt")] == [path / "unet" / "new.txt"] and [*tmp_path.iterdir()] == [path]


def test_a_folder_whose_writer_was_killed_between_two_renames_comes_back(tmp_path):
    path = tmp_path / "saved"
    path.mkdir()
    (path / "a.txt").write_text("old")
    path.rename(tmp_path / ".saved.old")
    with pytest.raises(ZeroDivisionError), whole_folder(path):
        _ = 1 / 0
    assert (path / "a.txt").read_text() == "old" and [*tmp_path.iterdir()] == [path]
