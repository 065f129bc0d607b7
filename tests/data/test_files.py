"""Nothing outside a data set is read, and no zip fills the memory."""

import stat
import zipfile

import pytest

from diffusion3d.data import files as module
from diffusion3d.data.files import Files, folder, inside, read_text
from diffusion3d.errors import UserError


def make_zip(path, **contents):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return str(path)


def test_folders_zips_and_single_files_are_read_alike(tmp_path):
    root = tmp_path / "set"
    (root / "sub").mkdir(parents=True)
    (root / "a.txt").write_text("one")
    (root / "sub" / "b.txt").write_text("two")
    packed = make_zip(tmp_path / "set.zip", **{"a.txt": "one", "sub/b.txt": "two", "empty/": ""})
    for source in (str(root), packed):
        files = Files(source)
        assert files.names == ["a.txt", "sub/b.txt"] and files.read("sub/b.txt") == b"two"
    assert Files(str(root / "a.txt")).names == ["a.txt"]


@pytest.mark.parametrize("name", ["../evil.obj", "sub/../../evil.obj", "/etc/evil.obj", "..\\evil.obj", "C:/evil.obj"])
def test_zips_that_lead_out_are_refused(tmp_path, name):
    path = make_zip(tmp_path / "a.zip", **{"good.obj": "v 0 0 0", name: "v 0 0 0"})
    with pytest.raises(UserError, match=r"a.zip holds '.*evil.obj', which leads out of it"):
        Files(path)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.zip"]


def test_links_in_zips_are_refused(tmp_path):
    link = zipfile.ZipInfo("link.obj")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match=r"a.zip holds the link 'link.obj'"):
        Files(str(tmp_path / "a.zip"))


def test_bombs_are_refused(tmp_path, monkeypatch):
    path = make_zip(tmp_path / "a.zip", **{"zeros.obj": bytes(20 * 2**20)})
    with pytest.raises(UserError, match=r"a.zip is a zip bomb: 'zeros.obj' grows from \d+ to 20971520 bytes"):
        Files(path)
    monkeypatch.setattr(module, "MAX_BYTES", 1000)
    path = make_zip(tmp_path / "b.zip", **{f"{i}.obj": bytes(200) for i in range(6)})
    with pytest.raises(UserError, match=r"b.zip holds 1200 bytes unpacked, more than 1000"):
        Files(path)


def test_damaged_zips_are_refused_and_a_lying_size_is_not_believed(tmp_path):
    path = tmp_path / "a.zip"
    make_zip(path, **{"a.obj": b"v 0 0 0\n" * 1000})
    whole = path.read_bytes()
    path.write_bytes(whole[:40] + b"\xff" * 10 + whole[50:])
    with pytest.raises(UserError, match=r"a.zip/a.obj cannot be read"):
        Files(str(path)).read("a.obj")
    size = (8000).to_bytes(4, "little")
    path.write_bytes(whole.replace(size, (80).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"a.zip/a.obj cannot be read: Bad CRC"):
        Files(str(path)).read("a.obj")
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"a.zip is a damaged zip"):
        Files(str(path))


def test_links_out_of_a_folder_are_not_followed(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside.txt"
    root.mkdir()
    outside.write_text("secret")
    (root / "link.txt").symlink_to(outside)
    (root / "real.txt").write_text("open")
    (root / "within.txt").symlink_to(root / "real.txt")
    files = Files(str(root))
    assert files.read("within.txt") == b"open"
    for name in ("link.txt", "../outside.txt", str(outside)):
        with pytest.raises(UserError, match=r"leads out of"):
            files.read(name)
    with pytest.raises(UserError, match=r"cams.json names '../outside.txt', which leads out of"):
        inside(root, "../outside.txt", root / "cams.json")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("a\0b", r"cams.json names 'a\\x00b', which is no file: .*null"),
        ("x" * 5000, r"cams.json names 'x{80}', which is no file: .*too long"),
    ],
)
def test_names_that_no_file_can_have_are_refused_in_one_line(tmp_path, name, message):
    with pytest.raises(UserError, match=message) as caught:
        inside(tmp_path, name, tmp_path / "cams.json")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_texts_that_are_links_out_of_their_folder_are_not_read(tmp_path):
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "scene").mkdir()
    (tmp_path / "scene" / "caption.txt").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(UserError, match=r"caption.txt is a link that leads out of .*scene"):
        read_text(tmp_path / "scene" / "caption.txt")


def test_missing_things_are_refused(tmp_path):
    for call in (lambda: folder(str(tmp_path / "no")), lambda: Files(str(tmp_path / "no"))):
        with pytest.raises(UserError, match=r"data.root=.*no is "):
            call()
    with pytest.raises(UserError, match=r"cannot read .*no.txt: No such file"):
        read_text(tmp_path / "no.txt")
    with pytest.raises(UserError, match=r"a.zip holds no 'no.obj'"):
        Files(make_zip(tmp_path / "a.zip", x="1")).read("no.obj")
