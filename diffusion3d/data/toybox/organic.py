"""Soft shapes that animals and round things are made of."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.parts import COLOURS

C = {name: np.array(rgb) for name, rgb in COLOURS.items()}
SIDES = (-1, 1)
"""Right and left."""
DARK = np.array([0.08, 0.07, 0.07])
STEEL = C["grey"] * 0.75


def curve(points, steps=4):
    """A Catmull-Rom curve through points [N, K], with `steps` pieces between neighbours."""
    p = np.asarray(points, float)
    p = np.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = (np.arange(steps) / steps)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(p[:-3], p[1:-2], p[2:-1], p[3:], strict=True)
    ]
    return np.concatenate([*pieces, p[-2:-1]])


def sweep(b, points, colour, part, side=(0, 1, 0), n=16):
    """A smooth bent tube with round ends. `points` are (x, y, z, radius along `side`[, radius across it])."""
    points = np.array([(*p, p[3]) if len(p) == 4 else p for p in points], float)
    line = curve(points) if len(points) > 2 else points
    centre, radii = line[:, :3], np.maximum(line[:, 3:], 0.01)
    tangent = np.gradient(centre, axis=0)
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    bend = np.deg2rad([[88], [65], [40], [20]])
    start = centre[0] - tangent[0] * radii[0].min() * np.sin(bend)
    end = centre[-1] + tangent[-1] * radii[-1].min() * np.sin(bend[::-1])
    centre = np.concatenate([start, centre, end])[:, None]
    radii = np.concatenate([radii[0] * np.cos(bend), radii, radii[-1] * np.cos(bend[::-1])])[:, None]
    tangent = tangent[[0] * 4 + list(range(len(line))) + [-1] * 4]
    u = np.asarray(side, float) - (tangent @ side)[:, None] * tangent
    u /= np.linalg.norm(u, axis=1, keepdims=True)
    angle = np.linspace(0, 2 * np.pi, n, endpoint=False)[None, :, None]
    across = (
        radii[..., :1] * np.cos(angle) * u[:, None] + radii[..., 1:] * np.sin(angle) * np.cross(tangent, u)[:, None]
    )
    b.loft(centre + across, colour, part, smooth=True)


def limb(b, p, q, r, s, colour, part):
    """A straight rounded limb from p with radius r to q with radius s."""
    side = (0, 1, 0) if abs(q[1] - p[1]) < 0.9 * np.linalg.norm(np.subtract(q, p)) else (1, 0, 0)
    sweep(b, [(*p, r), (*q, s)], colour, part, side, 14)


def ear(b, base, tip, width, depth, colour, inner):
    """A leaf-shaped ear whose inside looks forward."""
    base, tip = np.asarray(base, float), np.asarray(tip, float)
    for c, w, forward, (low, high) in ((colour, width, 0, (0, 1)), (inner, 0.62 * width, 0.6 * depth, (0.05, 0.78))):
        shape = [(low, 0.46), (0.3 * high, 0.5), (0.6 * high, 0.36), (0.85 * high, 0.2), (high, 0.08)]
        points = [(*(base + u * (tip - base) + (forward, 0, 0)), w * r, depth * 0.5 * min(1, 3 * r)) for u, r in shape]
        sweep(b, points, c, "ear")


def eyes(b, x, y, z, r, iris=None):
    """Two round eyes that look forward: black with a glint, or with a coloured iris around a tall pupil."""
    for s in SIDES:
        at = (x, s * y, z)
        if iris is not None:
            b.ellipsoid((0.6 * r, r, r), iris, "eye", at, (0, 0, s * 18), 2)
            b.ellipsoid(
                (0.35 * r, 0.45 * r, 0.8 * r),
                C["black"] * 0.6,
                "eye",
                np.add(at, (0.42 * r, s * 0.1 * r, 0)),
                (0, 0, 0),
                2,
            )
        else:
            b.ellipsoid((r, r, 1.1 * r), C["black"] * 0.6, "eye", at, (0, 0, 0), 2)
        b.ellipsoid((0.3 * r,) * 3, C["white"], "eye", np.add(at, (0.75 * r, s * 0.3 * r, 0.55 * r)), (0, 0, 0), 1)
