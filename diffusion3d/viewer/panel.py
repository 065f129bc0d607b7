"""The viewer's controls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from diffusion3d.viewer.pictures import SHOWN

if TYPE_CHECKING:
    from viser import ViserServer


@dataclass(frozen=True)
class Look:
    """What is to be seen, whatever the camera.

    Attributes:
        scene: which one.
        shown: one of `SHOWN`.
        in_browser: whether the browser draws it (splats) or gets pictures.
        background: sRGB, 0 ... 255.
        resolution: rows of pictures when nothing moves.
        opacity: splats that are fainter are hidden.
    """

    scene: int
    shown: str
    in_browser: bool
    background: tuple[int, ...]
    resolution: int
    opacity: float


class Panel:
    """Controls that all browsers share.

    Args:
        server: of the page.
        scenes: how many there are to choose from.
        splats: whether they are made of Gaussians.
        reset: called when the cameras are to go back to the front.
        record: called when a video of the turntable is wanted; None has no such button.
    """

    def __init__(
        self,
        server: ViserServer,
        scenes: int,
        splats: bool,
        reset: Callable[[], None],
        record: Callable[[], None] | None,
    ) -> None:
        gui = server.gui
        self._shown = gui.add_dropdown("Show", SHOWN)
        self._background = gui.add_rgb("Background", (255, 255, 255))
        self._resolution = gui.add_slider("Resolution", 64, 1024, 64, 512, hint="Rows of pictures that are rendered")
        self._in_browser = gui.add_checkbox(
            "Drawn by the browser", splats, visible=splats, hint="One colour per splat; else rendered as the run does"
        )
        self._opacity = gui.add_slider("Opacity from", 0.0, 1.0, 0.01, 0.0, visible=splats)
        self._scene = gui.add_slider("Scene", 0, max(1, scenes - 1), 1, 0, visible=scenes > 1)
        gui.add_button("Reset camera").on_click(lambda _: reset())
        with gui.add_folder("Turntable"):
            self._play = gui.add_checkbox("Play", False)
            if record is not None:
                gui.add_button("Record", hint="Into the run's videos/").on_click(lambda _: record())

    @property
    def playing(self) -> bool:
        """Whether the cameras go round the object."""
        return self._play.value

    def look(self) -> Look:
        shown = self._shown.value
        return Look(
            self._scene.value,
            shown,
            self._in_browser.value and shown == "colour",
            self._background.value,
            self._resolution.value,
            self._opacity.value,
        )
