"""Scenes of runs as the page draws them: splats of 32 bytes, or the GLB as it is."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffusion3d.errors import UserError

MOST_SPLATS = 300_000
MOST_BYTES = 64 * 2**20
"""Of a GLB: larger ones are for a program of their own."""


@dataclass(frozen=True)
class ShownScene:
    """A scene for the page.

    Attributes:
        kind: "splat" (see `representations.dot_splat`; the axes are ours) or "glb".
        content: the file. count: Gaussians in the run's own file, of which `content` holds the most important.
    """

    kind: str
    content: bytes
    count: int | None = None


def shown_scene(splats: Path | None, mesh: Path | None) -> ShownScene | None:
    """The splats, or else the mesh; None where there is neither, or none that can be read or is small enough."""
    if splats is not None:
        from diffusion3d.representations.dot_splat import ROW, write_splat
        from diffusion3d.representations.ply import read_ply

        try:
            content = write_splat(read_ply(splats))
        except UserError:
            return shown_scene(None, mesh)
        return ShownScene("splat", content[: MOST_SPLATS * ROW.itemsize], len(content) // ROW.itemsize)
    if mesh is not None and mesh.stat().st_size <= MOST_BYTES:
        return ShownScene("glb", mesh.read_bytes())
    return None
