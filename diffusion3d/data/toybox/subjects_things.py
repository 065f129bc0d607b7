"""Plants, food and household things."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.organic import SIDES, C, limb, sweep
from diffusion3d.data.toybox.parts import Subject


def around(n, start=0.0):
    """The cosine and sine of n angles evenly around z."""
    return [(np.cos(a), np.sin(a)) for a in start + 2 * np.pi * np.arange(n) / n]


def mushroom_at(b, x, y, s, cap, spots, rng):
    """One mushroom of size s that stands at (x, y)."""
    r, h, z = s * rng.uniform(0.7, 0.82), s * rng.uniform(0.5, 0.64), s * rng.uniform(0.86, 1.04)
    cream = C["white"] * (1, 0.96, 0.86)
    stem = [(0, 0), (0.34 * s, 0), (0.39 * s, 0.1 * s), (0.32 * s, 0.4 * s), (0.26 * s, z), (0, z + 0.06)]
    b.lathe(stem, cream, "stem", (x, y, 0))
    b.lathe(
        [(0, z - 0.24 * s), (0.42 * s, z - 0.24 * s), (0.3 * s, z - 0.06 * s), (0, z - 0.06 * s)],
        cream * 0.93,
        "stem",
        (x, y, 0),
    )
    b.lathe(
        [(0, z), (0.3 * r, z), (r * 0.93, z - 0.06 * s), (r * 0.93, z + 0.02), (0, z + 0.08)],
        cream * 0.86,
        "gills",
        (x, y, 0),
    )
    a = np.deg2rad(np.linspace(0, 90, 10))
    curve = zip(r * np.cos(a) ** 0.85, z + h * np.sin(a), strict=True)
    b.lathe([(0, z), (r * 0.9, z - 0.07 * s), *curve], cap, "cap", (x, y, 0), sections=28)
    start = rng.uniform(0, 1)
    for n, up, size in ((1, 90, 0.24), (5, 47, 0.2), (7, 14, 0.15)):
        t = np.deg2rad(up)
        for c, k in around(n, start + up):
            u, v = r * np.cos(t) ** 0.85, h * np.sin(t)
            tilt = np.rad2deg(np.arctan2(np.cos(t) / r, np.sin(t) / h))
            q = s * size * rng.uniform(0.85, 1.15)
            b.ellipsoid(
                (q, q, 0.07 * s),
                spots,
                "spot",
                (x + u * c, y + u * k, z + v),
                (0, tilt, np.rad2deg(np.arctan2(k, c))),
                2,
            )


def mushroom(b, colour, rng):
    """A toadstool with a domed spotted cap, often with a small one beside it."""
    mushroom_at(b, 0, 0, 1.0, colour["cap"], colour["spots"], rng)
    if rng.random() < 0.5:
        a = rng.uniform(0, 2 * np.pi)
        mushroom_at(b, 0.75 * np.cos(a), 0.75 * np.sin(a), 0.42, colour["cap"], colour["spots"], rng)


def ribbed(b, points, colour, side=(0, 1, 0)):
    """A tube with dark stripes along it, like the ribs of a cactus; `points` are (x, y, z, radius)."""
    sweep(b, points, colour, "body", side)
    points = np.array(points, float)
    step = np.diff(points[:, :3], axis=0)
    step /= np.linalg.norm(step, axis=1, keepdims=True)
    tangent = np.r_[step[:1], step[:-1] + step[1:], step[-1:]]
    tangent /= np.linalg.norm(tangent, axis=1, keepdims=True)
    for c, s in around(8, 0.2):
        line = []
        for p, t in zip(points, tangent, strict=True):
            u = np.asarray(side, float)
            line.append((*(p[:3] + 0.88 * p[3] * (c * u + s * np.cross(t, u))), 0.26 * p[3]))
        sweep(b, line, colour * 0.66, "rib", side, 6)


def cactus(b, colour, rng):
    """A tall cactus with two bent arms, ribs and flowers, in a pot."""
    body, pot = colour["body"], colour["pot"]
    h, r = rng.uniform(1.35, 1.6), rng.uniform(0.27, 0.32)
    b.cone(0.36, 0.46, pot, "pot", (0, 0, 0.23), top=0.5)
    b.cylinder(0.56, 0.17, pot * 0.9, "pot", (0, 0, 0.5))
    b.cylinder(0.48, 0.06, C["brown"] * 0.6, "soil", (0, 0, 0.57))
    ribbed(b, [(0, 0, 0.5, r * 0.9), (0, 0, 0.9, r), (0, 0, 0.4 + h, r * 0.92)], body)
    turn = rng.uniform(-0.5, 0.5)
    y = np.array([-np.sin(turn), np.cos(turn), 0])
    for s in SIDES:
        z, out, up, q = 0.6 + h * rng.uniform(0.24, 0.42), r + rng.uniform(0.3, 0.38), rng.uniform(0.45, 0.62), r * 0.62
        line = [(0.3 * r, z), (out - 0.27, z), (out - 0.08, z + 0.08), (out, z + 0.27), (out, z + up)]
        ribbed(b, [(*(s * y * u + (0, 0, v)), q) for u, v in line], body, (np.cos(turn), np.sin(turn), 0))
        b.ellipsoid((0.14, 0.14, 0.1), C["pink"], "flower", s * y * out + (0, 0, z + up + q + 0.02), subdivisions=2)
    top = 0.4 + h + r
    for c, s in around(5):
        b.ellipsoid(
            (0.12, 0.1, 0.07), C["pink"], "flower", (0.12 * c, 0.12 * s, top), (0, -25, np.rad2deg(np.arctan2(s, c))), 2
        )
    b.ellipsoid((0.09, 0.09, 0.09), C["yellow"], "flower", (0, 0, top + 0.03), subdivisions=2)


def lamp(b, colour, rng):
    """A table lamp: a wide shade with a glowing bulb on a turned stand with a broad foot."""
    shade, base = colour["shade"], colour["base"]
    r, t, h, z = rng.uniform(0.58, 0.68), rng.uniform(0.3, 0.38), rng.uniform(0.56, 0.68), rng.uniform(1.02, 1.18)
    w, u = rng.uniform(0.26, 0.34), 0.03
    b.lathe([(0, 0), (0.5, 0), (0.5, 0.1), (0.2, 0.18), (0, 0.18)], base, "base", (0, 0, 0))
    a = np.linspace(0, np.pi, 9)
    bulge = zip(0.11 + (w - 0.02) * np.sin(a), 0.42 - 0.3 * np.cos(a), strict=True)
    b.lathe([(0, 0.1), *bulge, (0.1, 0.8), (0.1, z + 0.2), (0, z + 0.2)], base, "base", (0, 0, 0))
    b.ellipsoid((0.19, 0.19, 0.23), (1, 0.97, 0.7), "bulb", (0, 0, z + 0.12))
    b.lathe([(0, z + 0.1), (r * 0.9, z), (r, z), (t, z + h), (0, z + h)], shade, "shade", (0, 0, 0), sections=28)
    b.lathe(
        [
            (0, z + h * 0.55),
            (r * 0.5, z + h * 0.5),
            (r * 0.93, z),
            (r * 0.95, z),
            (t * 0.9, z + h * 0.9),
            (0, z + h * 0.96),
        ],
        (1, 0.93, 0.62),
        "inside",
        (0, 0, 0),
        sections=28,
    )
    for v, q, k in ((z + 0.04, r, 0.07), (z + h - 0.03, t, 0.06)):
        b.cylinder(q + u, 2 * k, shade * 0.78, "trim", (0, 0, v), sections=28)
    b.cylinder(t * 0.8, 0.1, (1, 0.93, 0.62), "inside", (0, 0, z + h + 0.01))
    b.ellipsoid((0.09, 0.09, 0.12), base, "base", (0, 0, z + h + 0.12), subdivisions=2)


def cake(b, colour, rng):
    """A cake of two tiers with dripping icing, cherries and burning candles on a plate."""
    sponge, icing = colour["sponge"], colour["icing"]
    r, h = rng.uniform(0.82, 0.92), rng.uniform(0.5, 0.6)
    q, k = r * rng.uniform(0.56, 0.64), rng.uniform(0.36, 0.44)
    b.lathe(
        [(0, 0), (r * 0.8, 0), (r * 1.2, 0.07), (r * 1.2, 0.13), (0, 0.13)],
        C["white"] * 0.93,
        "plate",
        (0, 0, 0),
        sections=32,
    )
    for radius, low, tall, drips in ((r, 0.1, h, 11), (q, 0.1 + h, k, 7)):
        top = low + tall
        b.cylinder(radius, tall, sponge, "sponge", (0, 0, low + tall / 2), sections=32)
        edge = [
            (0, top - 0.07),
            (radius + 0.05, top - 0.07),
            (radius + 0.06, top),
            (radius - 0.02, top + 0.07),
            (0, top + 0.07),
        ]
        b.lathe(edge, icing, "icing", (0, 0, 0), sections=32)
        for c, s in around(drips, 0.2):
            drop = rng.uniform(0.03, 0.16)
            x, y = radius * c, radius * s
            limb(b, (x, y, top - 0.08), (x, y, top - 0.1 - drop), 0.085, 0.085, icing, "icing")
    for c, s in around(8, 0.5):
        b.ellipsoid(
            (0.105, 0.105, 0.1),
            C["red"] * (1, 0.8, 0.9),
            "cherry",
            ((r + q + 0.05) / 2 * c, (r + q + 0.05) / 2 * s, h + 0.25),
            subdivisions=2,
        )
    top, n = 0.17 + h + k, int(rng.integers(3, 6))
    spot = [(0.62 * q * c, 0.62 * q * s) for c, s in around(n, rng.uniform(0, 6))] + ([(0, 0)] if n > 3 else [])
    for i, (x, y) in enumerate(spot):
        b.cylinder(0.068, 0.34, C[("blue", "yellow", "red", "green")[i % 4]], "candle", (x, y, top + 0.16), sections=12)
        b.lathe(
            [(0, 0), (0.075, 0.07), (0.05, 0.15), (0, 0.24)], (1, 0.72, 0.15), "flame", (x, y, top + 0.32), sections=12
        )


def mug(b, colour, rng):
    """A coffee mug with a big handle on its left, a coloured band and coffee inside."""
    body, band = colour["body"], colour["band"]
    r, h, t = rng.uniform(0.58, 0.68), rng.uniform(1.1, 1.3), 0.1
    s = r * rng.uniform(0.86, 1.0)
    out = [
        (0, 0),
        (s * 0.9, 0),
        (s, 0.07),
        (r, h - 0.05),
        (r - 0.03, h),
        (r - t, h),
        (r - t - 0.02, h - 0.22),
        (0, h - 0.22),
    ]
    b.lathe(out, body, "body", (0, 0, 0), sections=32)
    b.lathe(
        [(0, h - 0.24), (r - t - 0.01, h - 0.24), (r - t - 0.01, h - 0.15), (0, h - 0.15)],
        C["brown"] * 0.75,
        "coffee",
        (0, 0, 0),
        sections=32,
    )
    low, high = h * 0.3, h * rng.uniform(0.56, 0.66)
    line = [(s + (r - s) * z / h + 0.022, z) for z in (low, high)]
    b.lathe([(0, low), *line, (0, high)], band, "band", (0, 0, 0), sections=32)
    y, far = r - 0.08, r + rng.uniform(0.4, 0.5)
    loop = [(y, h * 0.82), (far - 0.14, h * 0.84), (far, h * 0.64), (far - 0.04, h * 0.36), (y - 0.02, h * 0.2)]
    sweep(b, [(0, u, v, 0.13, 0.1) for u, v in loop], body * 0.97, "handle", (1, 0, 0))


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "mushroom",
        {
            "cap": ("red", "brown", "orange", "purple", "blue", "green", "pink"),
            "spots": ("white", "white", "yellow", "cyan", "pink"),
        },
        "{cap} mushroom",
        "{cap} mushroom with {spots} spots",
        ("toadstool", "spotted mushroom"),
        ("fungus", "fly agaric"),
        False,
        mushroom,
    ),
    Subject(
        "cactus",
        {
            "body": ("green", "green", "cyan", "yellow", "purple", "blue"),
            "pot": ("brown", "red", "white", "orange", "blue", "yellow"),
        },
        "{body} cactus",
        "{body} cactus in a {pot} pot",
        ("saguaro", "saguaro cactus"),
        ("succulent", "prickly desert plant"),
        False,
        cactus,
    ),
    Subject(
        "lamp",
        {
            "shade": ("white", "yellow", "red", "green", "blue", "orange", "pink"),
            "base": ("brown", "black", "grey", "blue", "purple", "white"),
        },
        "{shade} lamp",
        "{shade} lamp with a {base} base",
        ("table lamp", "bedside lamp"),
        ("reading light", "nightstand light"),
        False,
        lamp,
    ),
    Subject(
        "cake",
        {
            "sponge": ("brown", "pink", "yellow", "white", "tan", "cyan", "orange"),
            "icing": ("white", "pink", "brown", "cyan", "purple"),
        },
        "{sponge} cake",
        "{sponge} cake with {icing} icing",
        ("birthday cake", "layer cake"),
        ("gateau", "torte"),
        False,
        cake,
    ),
    Subject(
        "mug",
        {
            "body": ("white", "red", "blue", "green", "yellow", "black", "orange", "pink"),
            "band": ("white", "blue", "red", "yellow", "black"),
        },
        "{body} mug",
        "{body} mug with a {band} band",
        ("coffee mug", "cup"),
        ("teacup", "drinking vessel"),
        False,
        mug,
    ),
)
