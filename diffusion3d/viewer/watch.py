"""A viewer of scenes that are being optimised: it shows how far they are, and the loop pauses and steps as its buttons say."""

from __future__ import annotations

import logging
import math
import time

from diffusion3d.errors import one_line
from diffusion3d.viewer.viewer import Viewer

log = logging.getLogger(__name__)

TEXT_SECONDS = 0.2
"""Between two figures while the loop runs."""
PUMP_SECONDS = 0.05


class Pace:
    """Whether a loop may go on, as buttons say."""

    def __init__(self) -> None:
        self.done = 0
        self._until = math.inf

    @property
    def waits(self) -> bool:
        return self.done >= self._until

    def pause(self) -> None:
        self._until = 0

    def step(self) -> None:
        """One step more, then pause."""
        self._until = self.done + 1

    def go_on(self) -> None:
        self._until = math.inf


class Watcher:
    """The `watch` of `diffusion3d.tasks.loop`. Whatever fails here is logged once and ends the watching, not the loop.

    Args:
        viewer: of the scenes.
        steps: of the loop.
        every: steps between two looks at the scene.
    """

    def __init__(self, viewer: Viewer, steps: int, every: int) -> None:
        self.viewer, self.steps, self.every = viewer, steps, every
        self.pace = Pace()
        self.failed = False
        self._told = -math.inf
        self._seen = -1
        gui = viewer.server.gui
        with gui.add_folder("Run", order=-1):
            self._text = gui.add_markdown("starting")
            gui.add_button("Pause").on_click(lambda _: self.pace.pause())
            gui.add_button("Step").on_click(lambda _: self.pace.step())
            gui.add_button("Continue").on_click(lambda _: self.pace.go_on())

    def __call__(self, done: int, loss: float) -> bool:
        """After a step: show it.

        Returns:
            Whether the loop is to wait and call again.
        """
        if self.failed:
            return False
        try:
            return self._look(done, loss)
        except Exception as error:  # whatever goes wrong with the page, the run goes on
            log.warning("the viewer is off, the run goes on: %s: %s", type(error).__name__, one_line(error))
            self.failed = True
            return False

    def _look(self, done: int, loss: float) -> bool:
        self.pace.done = done
        waits = self.pace.waits
        if done != self._seen and (waits or done % self.every == 0):
            self._seen = done
            self.viewer.changed()
        now = time.monotonic()
        if waits or now - self._told >= TEXT_SECONDS:
            self._told = now
            text = f"step {done} of {self.steps}, loss {loss:.4g}" + (" (paused)" if waits else "")
            if text != self._text.content:
                self._text.content = text
        self.viewer.pump(PUMP_SECONDS if waits else 0.0, rests=waits)
        return self.pace.waits
