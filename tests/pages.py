"""Browsers that are not there, and a clock that stands still."""

import math
from contextlib import nullcontext
from types import SimpleNamespace

import numpy as np


class Page:
    """What `ViserServer.get_clients` gives, for a page of `width` x `height` pixels; keeps what it is sent."""

    def __init__(self, position=(3.0, 0.0, 0.0), wxyz=(0.5, -0.5, -0.5, 0.5), width=80, height=64, fov=40.0):
        self.client_id = 0
        self.camera = SimpleNamespace(
            position=np.array(position),
            wxyz=np.array(wxyz),
            fov=math.radians(fov),
            image_width=width,
            image_height=height,
            aspect=width / height if height else None,
        )
        self.scene = self
        self.pictures, self.formats, self.told = [], [], []

    def set_background_image(self, picture, format, jpeg_quality):
        self.pictures.append(picture)
        self.formats.append(format)

    def add_notification(self, title, text, auto_close_seconds):
        self.told.append((title, text))

    def atomic(self):
        return nullcontext()


def show(viewer, *pages):
    """From now on these are the pages that look."""
    viewer.server.get_clients = lambda: dict(enumerate(pages))


class Clock:
    """Time that passes when told to."""

    def __init__(self):
        self.now = 100.0

    def monotonic(self):
        return self.now

    def perf_counter(self):
        self.now += 1e-3
        return self.now
