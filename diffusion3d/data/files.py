"""The files of a data set: a folder or a zip, of which nothing outside is ever read."""

from __future__ import annotations

import stat
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from diffusion3d.errors import UserError, one_line

MAX_BYTES = 8 * 2**30
"""Of all files of a zip together, unpacked."""
MAX_MEMBER = 2**30
"""Of one file of a zip, which is read whole."""
MAX_RATIO = 200
"""Of unpacked to packed size, for files of a zip above SMALL."""
SMALL = 16 * 2**20
ZIPS = (".zip", ".sh3f")


def inside(root: Path, name: str, source: Path) -> Path:
    """The path of a file that `source` names, which must lie in `root`, also once links are followed.

    Raises:
        UserError: it does not, or no file can have this name.
    """
    path = root / name
    try:
        leads_out = not path.resolve().is_relative_to(root.resolve())
        path.exists()
    except (OSError, RuntimeError, ValueError) as error:  # too long, a circle of links, a null byte
        raise UserError(f"{source} names {name[:80]!r}, which is no file: {one_line(error)[:120]}") from None
    if leads_out:
        how = "is a link that" if path == source else f"names {name!r}, which"
        raise UserError(f"{source} {how} leads out of {root}; copy the file into the folder")
    return path


def read_text(path: Path) -> str:
    """Raises: UserError: the file is missing, not UTF-8 or a link out of its folder."""
    try:
        return inside(path.parent, path.name, path).read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8 text") from None


def folder(root: str) -> Path:
    """The folder that data.root names.

    Raises:
        UserError: there is none.
    """
    path = Path(root).expanduser()
    if not path.is_dir():
        raise UserError(f"data.root={root} is not a folder")
    return path


class Files:
    """Read access to a folder, a zip (which is never unpacked to disk) or a single file and what lies beside it.

    Args:
        root: its path.

    Attributes:
        names: of all files, or of the single one, relative to the folder or zip, sorted, with forward slashes.

    Raises:
        UserError: there is nothing, a zip is damaged, names files outside itself or is a bomb.
    """

    def __init__(self, root: str) -> None:
        self.root = Path(root).expanduser()
        self.zip: zipfile.ZipFile | None = None
        if self.root.is_dir():
            found = (path.relative_to(self.root).as_posix() for path in self.root.rglob("*") if path.is_file())
            self.names = sorted(found)
        elif not self.root.is_file():
            raise UserError(f"data.root={root} is neither a folder nor a file")
        elif zipfile.is_zipfile(self.root):
            try:
                self.zip = zipfile.ZipFile(self.root)
            except (zipfile.BadZipFile, OSError, ValueError) as error:
                raise UserError(f"{self.root} is a damaged zip: {error}") from None
            self.names = sorted(self._check(self.zip))
        elif self.root.suffix.lower() in ZIPS:
            raise UserError(f"{self.root} is a damaged zip: it has no end")
        else:
            self.names = [self.root.name]
            self.root = self.root.parent

    def _check(self, archive: zipfile.ZipFile) -> list[str]:
        """The names of the files of a zip."""
        infos = archive.infolist()
        for info in infos:
            path = PurePosixPath(info.filename.replace("\\", "/"))
            if path.is_absolute() or ".." in path.parts or (path.parts[:1] and path.parts[0].endswith(":")):
                raise UserError(f"{self.root} holds {info.filename!r}, which leads out of it; do not trust this zip")
            if stat.S_ISLNK(info.external_attr >> 16):
                raise UserError(f"{self.root} holds the link {info.filename!r}; pack the file itself")
            if info.file_size > SMALL and info.file_size > MAX_RATIO * max(info.compress_size, 1):
                raise UserError(
                    f"{self.root} is a zip bomb: {info.filename!r} grows from {info.compress_size} to {info.file_size} bytes"
                )
            if info.file_size > MAX_MEMBER:
                raise UserError(
                    f"{self.root}: {info.filename!r} has {info.file_size} bytes, more than {MAX_MEMBER}; unpack the zip"
                )
        total = sum(info.file_size for info in infos)
        if total > MAX_BYTES:
            raise UserError(f"{self.root} holds {total} bytes unpacked, more than {MAX_BYTES}; unpack it into a folder")
        return [info.filename for info in infos if not info.is_dir()]

    def describe(self, name: str) -> str:
        """What to call a file in messages."""
        return f"{self.root}/{name}"

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        return (self.root / name).is_file() if self.zip is None else name in self.names

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            UserError: it is missing, damaged, encrypted, or outside.
        """
        if self.zip is None:
            try:
                return inside(self.root, name, self.root).read_bytes()
            except OSError as error:
                raise UserError(f"cannot read {self.describe(name)}: {error.strerror}") from None
        try:
            return self.zip.read(name)
        except KeyError:
            raise UserError(f"{self.root} holds no {name!r}") from None
        except (zipfile.BadZipFile, RuntimeError, OSError, EOFError, NotImplementedError, zlib.error) as error:
            raise UserError(f"{self.describe(name)} cannot be read: {error}") from None
