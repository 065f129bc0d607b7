"""A page that shows a scene to any number of browsers."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import queue
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from torch import Tensor

from diffusion3d.camera_sampling import Orbit
from diffusion3d.cameras import Cameras
from diffusion3d.errors import one_line
from diffusion3d.export.pictures import to_uint8, write_video
from diffusion3d.representations.base import Representation, Scene
from diffusion3d.representations.gsplat import SplatScene
from diffusion3d.viewer.cameras import View
from diffusion3d.viewer.panel import Look, Panel
from diffusion3d.viewer.pictures import frames, gaussians, thresholded
from diffusion3d.viewer.server import address, close_server, open_server

if TYPE_CHECKING:
    from viser import ClientHandle, GaussianSplatHandle

log = logging.getLogger(__name__)

REST_SECONDS = 0.3
"""A camera that has not moved for this long rests."""
FRAME_SECONDS = 0.1
"""What a picture may take to render while something moves."""
LOWEST = 64
"""Rows of the smallest picture."""
FPS = 20


@dataclass
class _Shown:
    """Where a browser looks from and since when; what it was sent, and whether that was of full resolution."""

    view: View | None = None
    since: float = 0.0
    content: tuple[object, ...] = ()
    final: bool = False


class Viewer:
    """Has the browsers draw splats, and sends pictures of any other scene: small ones while something moves, then one of full
    resolution.

    Scenes are read and rendered in `pump` alone, by the thread that calls it. Leaving it as a context closes the page.

    Args:
        representation: of the scenes.
        raw: gives their raw tensors as they are now.
        camera: its distance, field of view and turntable.
        host, port: where to listen; port 0 is any that is free.
        videos: folder for recordings; None offers none.

    Raises:
        UserError: viser is not there, or nobody can listen at that address.
    """

    def __init__(
        self,
        representation: Representation,
        raw: Callable[[], Mapping[str, Tensor]],
        camera: Orbit,
        host: str = "127.0.0.1",
        port: int = 8080,
        videos: Path | None = None,
    ) -> None:
        self._representation, self._raw, self._camera, self._videos = representation, raw, camera, videos
        self._path: list[tuple[float, float, float]] = [tuple(p) for p in camera.turntable().origins[0].tolist()]
        self._wanted: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._version = 0
        self._splats: GaussianSplatHandle | None = None
        self._drawn: tuple[object, ...] = ()
        self._clients: dict[int, _Shown] = {}
        self._playing_since: float | None = None
        self._frame = 0
        self._speed = 0.0
        scenes = min(len(value) for value in raw().values())
        splats = isinstance(self._scene(0), SplatScene)
        self.server = open_server(host, port)
        self.url = address(self.server)
        self.server.gui.configure_theme(show_logo=False, show_share_button=False)
        front = self.server.initial_camera
        front.position, front.look_at, front.up = self._path[0], (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)
        front.fov = math.radians(camera.fov)
        record = None if videos is None else lambda: self._wanted.put(self._record)
        self.panel = Panel(self.server, scenes, splats, lambda: self._wanted.put(self._reset), record)

    def __enter__(self) -> Viewer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        close_server(self.server)

    def changed(self) -> None:
        """The raw tensors are no longer those that are shown."""
        self._version += 1

    def pump(self, seconds: float = 0.0, rests: bool = True) -> None:
        """Do what the browsers want.

        Args:
            seconds: how long to wait for a button.
            rests: whether the scene stays as it is for now, so that a picture of full resolution is worth its time.
        """
        with contextlib.suppress(queue.Empty):
            self._wanted.get(seconds > 0, seconds)()
        look = self.panel.look()
        clients = self.server.get_clients()
        self._clients = {number: self._clients.get(number, _Shown()) for number in clients}
        self._turn(clients)
        if clients:
            self._draw(look)
        for number, client in clients.items():
            self._serve(client, self._clients[number], look, rests)

    def _scene(self, number: int) -> Scene:
        return self._representation.scene({name: value[number : number + 1] for name, value in self._raw().items()})

    def _frames(self, cameras: Cameras, look: Look) -> Tensor:
        device = next(iter(self._raw().values())).device
        scene = thresholded(self._scene(look.scene), look.opacity)
        return frames(scene, cameras.to(device), look.shown, look.background)

    def _draw(self, look: Look) -> None:
        """The splats that browsers draw."""
        content = (look.scene, look.opacity, self._version)
        if look.in_browser and content != self._drawn:
            scene = thresholded(self._scene(look.scene), look.opacity)
            assert isinstance(scene, SplatScene)
            if self._splats is None:
                self._splats = self.server.scene.add_gaussian_splats("/splats", *gaussians(scene))
            else:
                self._splats.set_gaussians(*gaussians(scene))
            self._drawn = content
        if self._splats is not None:
            self._splats.visible = look.in_browser

    def _serve(self, client: ClientHandle, shown: _Shown, look: Look, rests: bool) -> None:
        """The picture behind splats, or instead of them."""
        view, now = View.of(client.camera), time.monotonic()
        if view is None:
            return
        if view != shown.view:
            shown.view, shown.since = view, now
        final = look.in_browser or (rests and now - shown.since >= REST_SECONDS)
        content = (look.background,) if look.in_browser else (look, view, self._version)
        if content == shown.content and (shown.final or not final):
            return
        if look.in_browser:
            picture = np.array([[look.background]], np.uint8)
        else:
            picture = self._picture(view, look, look.resolution if final else self._rows(look.resolution, view.aspect))
        client.scene.set_background_image(picture, "png" if final else "jpeg", jpeg_quality=90)
        shown.content, shown.final = content, final

    def _picture(self, view: View, look: Look, rows: int) -> UInt8[np.ndarray, "H W 3"]:
        begin = time.perf_counter()
        picture = to_uint8(self._frames(view.cameras(rows), look)[0].movedim(0, -1))
        self._speed = picture.shape[0] * picture.shape[1] / (time.perf_counter() - begin)
        return picture

    def _rows(self, most: int, aspect: float) -> int:
        """Of a picture that takes about `FRAME_SECONDS` to render."""
        return min(most, max(LOWEST, int(math.sqrt(FRAME_SECONDS * self._speed / aspect))))

    def _turn(self, clients: Mapping[int, ClientHandle]) -> None:
        if not self.panel.playing:
            self._playing_since = None
            return
        now = time.monotonic()
        if self._playing_since is None:
            self._playing_since, self._frame = now, -1
        frame = int((now - self._playing_since) * FPS) % len(self._path)
        if frame != self._frame:
            self._frame = frame
            for client in clients.values():
                _place(client, self._path[frame])

    def _reset(self) -> None:
        for client in self.server.get_clients().values():
            _place(client, self._path[0])
            client.camera.fov = math.radians(self._camera.fov)

    def _record(self) -> None:
        """The turntable as an mp4, square, of the panel's resolution."""
        look = self.panel.look()
        assert self._videos is not None
        self._tell("Recording", f"{len(self._path)} frames, {look.resolution} x {look.resolution}")
        try:
            self._videos.mkdir(exist_ok=True)
            names = (self._videos / f"viewer_{look.shown}_{number}.mp4" for number in itertools.count(1))
            path = next(name for name in names if not name.exists())
            write_video(path, self._frames(self._camera.turntable(size=look.resolution), look).cpu(), FPS)
        except (OSError, RuntimeError) as error:
            self._tell("Not recorded", one_line(error))
        else:
            self._tell("Recorded", str(path))

    def _tell(self, title: str, text: str) -> None:
        log.info("%s: %s", title.lower(), text)
        for client in self.server.get_clients().values():
            client.add_notification(title, text, auto_close_seconds=10.0)


def _place(client: ClientHandle, position: tuple[float, float, float]) -> None:
    """Look from there at the world's origin."""
    with client.atomic():
        client.camera.position = position
        client.camera.look_at = (0.0, 0.0, 0.0)
        client.camera.up_direction = (0.0, 0.0, 1.0)
