import pytest

from diffusion3d.files import whole, write_bytes


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
