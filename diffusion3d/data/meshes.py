"""A folder or zip of meshes, or a Sweet Home 3D library, rendered on the spot.

GLB, glTF, OBJ with MTL, PLY and STL, with textures, face or vertex colours. Real ones: Debian's sweethome3d-furniture holds
five `.sh3f` libraries with 820 models (`apt-get download sweethome3d-furniture`, `dpkg-deb -x`), whose licences are in them.
"""

from __future__ import annotations

import logging
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Float

from diffusion3d.data.base import Splits
from diffusion3d.data.files import Files
from diffusion3d.data.rendered import Rig, rendered
from diffusion3d.data.textured import FORMATS, read_mesh
from diffusion3d.data.toybox.captions import with_article
from diffusion3d.errors import UserError

log = logging.getLogger(__name__)

CATALOGUE = "PluginFurnitureCatalog.properties"
SHOWN = 8


@dataclass(frozen=True)
class Model:
    """One mesh of a collection.

    Attributes:
        path: in the collection.
        name: in words.
        turn: rotation to apply, None is none.
    """

    path: str
    name: str
    turn: Float[np.ndarray, "3 3"] | None = None

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem


def meshes(
    root: str,
    select: Sequence[str | int] | str | int | None = None,
    scenes: int | None = 8,
    up: str | None = None,
    **rig: Any,
) -> Splits:
    """Meshes from `root`, each a scene whose caption is its name.

    Args:
        root: a folder, a zip, an .sh3f library or one mesh.
        select: names (as `list_models` gives them, or of the file) or positions; None takes all.
        scenes: the first so many of them; None is all.
        up: "y" or "z" where the files' axes are not their format's habit (y for glTF and OBJ, z for PLY and STL).
        rig: of `Rig`.

    Raises:
        UserError: see `Files`, `read_mesh` and `Rig`; nothing is selected.
    """
    if up not in (None, "y", "z"):
        raise UserError(f"data.up={up} is neither y nor z")
    if scenes is not None and scenes < 1:
        raise UserError(f"data.scenes={scenes} must be at least 1")
    views = Rig(**rig)
    files = Files(root)
    models = list_models(files)
    if not models:
        raise UserError(f"data.root={root} holds no {', '.join(suffix[1:] for suffix in FORMATS)} files")
    chosen = pick(models, select)[:scenes]
    if not chosen:
        raise UserError("data.select is empty; null takes all meshes")
    shown = ", ".join(model.path for model in chosen[:SHOWN])
    log.info("rendering %s%s", shown, f" and {len(chosen) - SHOWN} more" if len(chosen) > SHOWN else "")
    detail = 2 * views.distance * math.tan(math.radians(views.fov / 2)) / (views.size * views.samples)
    loaded = (read_mesh(files, model.path, up, model.turn, detail) for model in chosen)
    return rendered(loaded, [[with_article(model.name)] for model in chosen], views)


def list_models(files: Files) -> list[Model]:
    """All meshes of a collection: those of a library's catalogue, else all files that are meshes.

    Raises:
        UserError: the catalogue cannot be read.
    """
    if CATALOGUE in files.names:
        return _catalogue(files)
    paths = [name for name in files.names if PurePosixPath(name).suffix.lower() in FORMATS]
    return [Model(path, re.sub(r"[\W_]+", " ", PurePosixPath(path).stem).strip().lower() or path) for path in paths]


def pick(models: Sequence[Model], select: Sequence[str | int] | str | int | None) -> list[Model]:
    """Those with the given positions or names, in the order given; a name may mean several.

    Raises:
        UserError: a name or position means none.
    """
    if select is None:
        return list(models)
    chosen = []
    for key in [select] if isinstance(select, str | int) else select:
        if isinstance(key, int):
            found = [models[key]] if 0 <= key < len(models) else []
        else:
            found = [m for m in models if key.lower() in (m.name.lower(), m.stem.lower(), m.path.lower())]
        if not found:
            known = ", ".join(dict.fromkeys(m.name for m in models[:SHOWN]))
            raise UserError(f"data.select: there is no {key!r} among the {len(models)} meshes ({known}, …)")
        chosen += found
    return chosen


def _catalogue(files: Files) -> list[Model]:
    """The models of a Sweet Home 3D library, in its order; Java properties in Latin-1, keys such as name#12."""
    what = files.describe(CATALOGUE)
    entries: dict[int, dict[str, str]] = {}
    for line in files.read(CATALOGUE).decode("latin-1").splitlines():
        found = re.match(r"\s*(\w+)#(\d+)\s*[=:]\s*(.*)", line)
        if found:
            text = re.sub(r"\\u([0-9a-fA-F]{4})", lambda m: chr(int(m[1], 16)), found[3].strip())
            entries.setdefault(int(found[2]), {})[found[1]] = text
    models = []
    for number, entry in sorted(entries.items()):
        path = entry.get("model", "").lstrip("/")
        if PurePosixPath(path).suffix.lower() not in FORMATS:
            continue
        turn = None
        if "modelRotation" in entry:
            try:
                turn = np.array(entry["modelRotation"].split(), np.float64).reshape(3, 3)
            except ValueError:
                turn = np.zeros((3, 3))
            if not np.allclose(turn @ turn.T, np.eye(3), atol=1e-3):
                raise UserError(f"{what}: modelRotation#{number} is no rotation")
        models.append(Model(path, entry.get("name", PurePosixPath(path).stem).lower(), turn))
    return models
