"""Pictures with a dot per colour channel, and where the dots of a batch are: for tests that project known points."""

import numpy as np
import torch
from PIL import Image


def paint(path, places, width, height, radius=2.0):
    """A black picture with a soft dot in channel i at the i-th (x, y); pixel centres lie at half-integers."""
    rows, columns = np.mgrid[:height, :width] + 0.5
    channels = [np.exp(-((columns - x) ** 2 + (rows - y) ** 2) / (2 * radius**2)) for x, y in places]
    channels += [np.zeros((height, width))] * (3 - len(channels))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray((255 * np.stack(channels, 2)).round().astype(np.uint8)).save(path)


def dots(images):
    """Centroids (x, y) of the channels of images [B, V, 3, H, W]: [B, V, 3, 2]."""
    x, y = torch.arange(images.shape[4]) + 0.5, torch.arange(images.shape[3]) + 0.5
    total = images.sum((3, 4))
    return torch.stack([(images.sum(3) * x).sum(-1) / total, (images.sum(4) * y).sum(-1) / total], -1)


def everything(data):
    """All views of all scenes."""
    views = np.broadcast_to(np.arange(data.views), (len(data), data.views))
    return data.batch(np.arange(len(data)), views, np.random.default_rng(0))


def ring(count, distance=4.0, height=1.5, center=(0.0, 0.0, 0.0)):
    """Positions around a centre, and unit right, up and backward axes of cameras there that look at it: [V, 3] each."""
    angle = 0.4 + 2 * np.pi * np.arange(count) / count
    offset = np.stack([distance * np.cos(angle), distance * np.sin(angle), height * np.sin(3 * angle)], 1)
    back = offset / np.linalg.norm(offset, axis=1, keepdims=True)
    right = np.cross([0, 0, 1], back)
    right /= np.linalg.norm(right, axis=1, keepdims=True)
    return offset + center, right, np.cross(back, right), back
