"""Things on wheels."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.parts import COLOURS, Subject

C = {name: np.array(rgb) for name, rgb in COLOURS.items()}
GLASS = np.array([0.22, 0.33, 0.45])
TYRE = np.array([0.12, 0.12, 0.13])
LAMP = np.array([1.0, 0.95, 0.7])
SIDE = (90, 0, 0)
"""Turns a prism's outline (x, y) into a side view (x, z) that is extruded along y."""


def wheel(b, at, radius, width, hub=C["grey"] * 1.45):
    """A wheel whose axle is along y."""
    b.cylinder(radius, width, TYRE, "wheel", at, SIDE, sections=24)
    b.cylinder(radius * 0.52, width + 0.05, hub, "wheel", at, SIDE, sections=16)


def wheels(b, xs, y, radius, width, **kwargs):
    for x in xs:
        for side in (-1, 1):
            wheel(b, (x, side * y, radius), radius, width, **kwargs)


def ring(x, half_width, low, high, power=0.6, n=20):
    """A rounded (y, z) outline at x; power 1 is an ellipse, less is boxier."""
    a = np.linspace(0, 2 * np.pi, n, endpoint=False)
    c, s = np.cos(a), np.sin(a)
    y = np.sign(c) * np.abs(c) ** power * half_width
    z = np.sign(s) * np.abs(s) ** power * (high - low) / 2 + (high + low) / 2
    return np.c_[np.full(n, x), y, z]


def race_car(b, colour, rng):
    """A formula car: pointed nose, open cockpit with a driver, four fat open wheels, front and rear wings."""
    body, wing = colour["body"], colour["wings"]
    nose, tail, r, w = rng.uniform(1.25, 1.42), rng.uniform(1.08, 1.2), rng.uniform(0.31, 0.35), rng.uniform(0.3, 0.36)
    y = rng.uniform(0.62, 0.68)
    rings = [
        ring(nose, 0.1, 0.2, 0.34),
        ring(nose - 0.25, 0.16, 0.16, 0.42),
        ring(0.45, 0.26, 0.14, 0.58),
        ring(0.0, 0.32, 0.14, 0.64),
        ring(-0.6, 0.3, 0.14, 0.62),
        ring(-tail, 0.18, 0.2, 0.5),
    ]
    b.loft(rings, body, "body", smooth=True)
    for side in (-1, 1):
        pod = [
            ring(x, q, 0.14, h)
            for x, q, h in ((0.28, 0.12, 0.46), (0.15, 0.17, 0.52), (-0.4, 0.17, 0.48), (-0.72, 0.08, 0.34))
        ]
        b.loft(pod, body, "body", (0, side * 0.4, 0), smooth=True)
        b.cylinder(0.15, 0.08, C["white"], "number", (-0.15, side * 0.56, 0.33), SIDE)
    hood = [
        ring(x, q, 0.4, h)
        for x, q, h in ((-0.3, 0.2, 0.98), (-0.42, 0.21, 1.0), (-0.7, 0.15, 0.86), (-tail + 0.1, 0.08, 0.56))
    ]
    b.loft(hood, body, "body", smooth=True)
    b.ellipsoid((0.34, 0.21, 0.1), TYRE, "cockpit", (0.1, 0, 0.62))
    helmet = C["white"]
    b.ellipsoid((0.19, 0.18, 0.2), helmet, "driver", (-0.05, 0, 0.8))
    b.ellipsoid((0.1, 0.155, 0.08), TYRE, "driver", (0.07, 0, 0.82))
    b.box((0.36, 1.56, 0.1), wing, "wing", (nose - 0.08, 0, 0.16))
    b.box((0.3, 1.3, 0.1), wing, "wing", (-tail - 0.05, 0, rng.uniform(0.86, 0.96)), (0, -8, 0))
    for side in (-1, 1):
        b.box((0.4, 0.09, 0.26), wing, "wing", (nose - 0.08, side * 0.76, 0.22))
        b.box((0.42, 0.1, 0.5), wing, "wing", (-tail - 0.05, side * 0.62, 0.82))
        b.box((0.16, 0.1, 0.5), wing * 0.9, "wing", (-tail - 0.02, side * 0.14, 0.66))
    b.box((0.1, 2 * y, 0.1), TYRE * 2, "axle", (0.78, 0, r))
    b.box((0.1, 2 * y, 0.1), TYRE * 2, "axle", (-0.78, 0, r))
    wheels(b, (0.78,), y, r, w)
    wheels(b, (-0.78,), y - 0.01, r * 1.1, w * 1.12)


def car(b, colour, rng):
    """A rounded family car with a two-tone roof."""
    body, roof = colour["body"], colour["roof"]
    k, r, w = rng.uniform(1.12, 1.28), rng.uniform(0.27, 0.31), 0.56
    h = rng.uniform(0.72, 0.8)
    outline = [(-k, 0.22), (k, 0.22), (k + 0.04, 0.4), (k - 0.06, h - 0.12), (0.55, h), (-k + 0.1, h), (-k - 0.04, 0.5)]
    b.prism(outline, 2 * w, body, "body", (0, 0, 0), SIDE)
    top, back = rng.uniform(1.18, 1.28), rng.uniform(0.82, 0.98)
    low = [
        (0.62, -w * 0.92, h - 0.02),
        (0.62, w * 0.92, h - 0.02),
        (-back, w * 0.92, h - 0.02),
        (-back, -w * 0.92, h - 0.02),
    ]
    high = [(0.2, -w * 0.78, top), (0.2, w * 0.78, top), (-back + 0.2, w * 0.78, top), (-back + 0.2, -w * 0.78, top)]
    b.loft([low, high], GLASS, "window")
    b.box((0.5 + back - 0.16, w * 1.66, 0.12), roof, "roof", (0.1 - back / 2, 0, top + 0.04))
    for side in (-1, 1):
        b.box((0.12, 0.1, top - h), roof, "roof", (-0.28, side * w * 0.83, (top + h) / 2), (side * 9, 0, 0))
        b.cylinder(0.13, 0.12, LAMP, "headlight", (k, side * 0.37, 0.5), (0, 90, 0))
        b.box((0.1, 0.2, 0.14), C["red"], "taillight", (-k, side * 0.4, 0.52))
    b.box((0.14, 2 * w + 0.04, 0.14), C["grey"], "bumper", (k + 0.02, 0, 0.26))
    b.box((0.14, 2 * w + 0.04, 0.14), C["grey"], "bumper", (-k - 0.02, 0, 0.26))
    b.box((0.08, 0.4, 0.14), TYRE, "grille", (k + 0.01, 0, 0.48))
    wheels(b, (0.68, -0.7), w - 0.02, r, 0.24)


def bus(b, colour, rng):
    """A tall box with rows of windows, a door at its right side, a stripe."""
    body, stripe = colour["body"], colour["stripe"]
    k, w, top, r = rng.uniform(1.2, 1.38), rng.uniform(0.5, 0.56), rng.uniform(1.3, 1.45), 0.26
    low = 0.2
    b.prism(
        [(-k, low), (k, low), (k, top - 0.16), (k - 0.12, top), (-k + 0.08, top), (-k, top - 0.08)],
        2 * w,
        body,
        "body",
        (0, 0, 0),
        SIDE,
    )
    b.box((2 * k + 0.04, 2 * w + 0.05, 0.17), stripe, "stripe", (0, 0, low + 0.36))
    z, h, n = top - 0.4, 0.38, 4
    pitch = (2 * k - 0.3) / n
    for i in range(n):
        for side in (-1, 1):
            b.box((pitch * 0.78, 0.08, h), GLASS, "window", (-k + 0.15 + (i + 0.5) * pitch, side * w, z))
    b.box((0.08, 1.74 * w, 0.5), GLASS, "window", (k, 0, z - 0.05))
    b.box((0.08, 1.3 * w, 0.32), GLASS, "window", (-k, 0, z + 0.02))
    b.box((0.36, 0.09, 0.82), TYRE * 2.2, "door", (k - 0.3, -w, low + 0.47))
    for side in (-1, 1):
        b.cylinder(0.11, 0.12, LAMP, "headlight", (k, side * w * 0.68, low + 0.17), (0, 90, 0))
        b.box((0.09, 0.16, 0.18), C["red"], "taillight", (-k, side * w * 0.72, low + 0.18))
    b.box((0.12, 2 * w, 0.12), C["grey"], "bumper", (k + 0.02, 0, low + 0.02))
    b.box((0.12, 2 * w, 0.12), C["grey"], "bumper", (-k - 0.02, 0, low + 0.02))
    wheels(b, (k * 0.52, -k * 0.56), w - 0.04, r, 0.2)


def truck(b, colour, rng):
    """A cab in front of a larger cargo box."""
    cab, cargo = colour["cab"], colour["cargo"]
    k, w, r = rng.uniform(1.25, 1.4), rng.uniform(0.52, 0.58), rng.uniform(0.26, 0.3)
    front, back, top = k, k - rng.uniform(0.74, 0.82), rng.uniform(1.1, 1.2)
    outline = [(back, 0.26), (front, 0.26), (front, 0.66), (front - 0.2, top), (back, top)]
    b.prism(outline, 1.88 * w, cab, "cab", (0, 0, 0), SIDE)
    b.prism(
        [(front + 0.05, 0.7), (front - 0.13, top - 0.06), (front - 0.2, top - 0.06), (front - 0.1, 0.7)],
        1.6 * w,
        GLASS,
        "window",
        (0, 0, 0),
        SIDE,
    )
    for side in (-1, 1):
        b.prism(
            [(back + 0.2, 0.68), (front - 0.1, 0.68), (front - 0.24, top - 0.1), (back + 0.2, top - 0.1)],
            0.08,
            GLASS,
            "window",
            (0, side * 0.94 * w, 0),
            SIDE,
        )
        b.cylinder(0.11, 0.12, LAMP, "headlight", (front, side * 0.36, 0.44), (0, 90, 0))
        b.box((0.08, 0.18, 0.14), C["red"], "taillight", (-k, side * 0.4, 0.34))
    b.box((0.08, 0.34, 0.18), TYRE * 2, "grille", (front, 0, 0.46))
    b.box((0.14, 2 * w, 0.14), C["grey"], "bumper", (front + 0.02, 0, 0.26))
    b.box((2 * k - 0.1, 1.5 * w, 0.18), TYRE * 2, "chassis", (0, 0, 0.3))
    length, height = k + back - 0.14, rng.uniform(1.1, 1.25)
    b.box((length, 2 * w + 0.08, height), cargo, "cargo", (-k + length / 2, 0, 0.42 + height / 2))
    b.box((0.06, 0.07, height * 0.9), cargo * 0.6, "cargo", (-k, 0, 0.42 + height / 2))
    for z in (0.5, 0.34 + height):
        b.box((length + 0.05, 2 * w + 0.13, 0.1), cargo * 0.75, "cargo", (-k + length / 2, 0, z))
    wheels(b, (back + 0.4, -k + 0.36, -k + 1.0), w - 0.06, r, 0.24)


def train(b, colour, rng):
    """A steam locomotive: boiler, chimney, dome, cab at the rear, cowcatcher."""
    body, cab = colour["body"], colour["cab"]
    k, r, w = rng.uniform(1.08, 1.2), rng.uniform(0.4, 0.45), 0.56
    z = 0.5 + r
    b.box((2 * k, 2 * w - 0.2, 0.2), TYRE * 2.2, "chassis", (0, 0, 0.42))
    length = 2 * k - 0.72
    b.cylinder(r, length, body, "boiler", (k - length / 2 - 0.02, 0, z), (0, 90, 0), sections=24)
    b.cylinder(r * 1.04, 0.16, C["yellow"] * 0.95, "band", (k - 0.7, 0, z), (0, 90, 0), sections=24)
    b.cylinder(r * 0.86, 0.1, TYRE * 2.2, "boiler", (k, 0, z), (0, 90, 0), sections=24)
    b.cylinder(0.15, 0.16, LAMP, "headlight", (k + 0.06, 0, z + 0.06), (0, 90, 0))
    h = rng.uniform(0.5, 0.62)
    x = k - 0.32
    b.lathe([(0, 0), (0.15, 0), (0.16, h * 0.6), (0.28, h), (0, h)], TYRE * 1.4, "chimney", (x, 0, z + r - 0.06))
    b.ellipsoid((0.2, 0.2, 0.22), C["yellow"] * 0.95, "dome", (x - 0.55, 0, z + r), subdivisions=2)
    top, depth = z + r + rng.uniform(0.3, 0.42), 0.72
    c = -k + depth / 2 - 0.04
    b.box((depth, 2 * w, top - 0.46), cab, "cab", (c, 0, (top + 0.46) / 2))
    b.box((depth + 0.2, 2 * w + 0.2, 0.13), body * 0.75, "roof", (c, 0, top + 0.04))
    for side in (-1, 1):
        b.box((0.42, 0.08, 0.4), GLASS, "window", (c, side * w, top - 0.36))
        b.box((0.08, 0.22, 0.28), GLASS, "window", (c + depth / 2, side * 0.36, top - 0.22))
    b.box((0.08, 0.6, 0.4), GLASS, "window", (c - depth / 2, 0, top - 0.36))
    low = [(k - 0.05, -0.5, 0.08), (k - 0.05, 0.5, 0.08), (k - 0.05, 0.5, 0.46), (k - 0.05, -0.5, 0.46)]
    tip = [(k + 0.34, -0.18, 0.08), (k + 0.34, 0.18, 0.08), (k + 0.1, 0.18, 0.44), (k + 0.1, -0.18, 0.44)]
    b.loft([low, tip], C["red"] * 0.95, "cowcatcher")
    big = rng.uniform(0.34, 0.38)
    for side in (-1, 1):
        for x in (-k + 0.36, -k + 1.12):
            wheel(b, (x, side * 0.5, big), big, 0.2, C["red"])
        for x in (k - 0.72, k - 0.2):
            wheel(b, (x, side * 0.5, 0.22), 0.22, 0.2, C["red"])
        b.box((0.86, 0.1, 0.11), C["grey"] * 1.4, "rod", (-k + 0.74, side * 0.63, big))


BODY = ("red", "blue", "green", "yellow", "orange", "white", "purple")

VEHICLES: tuple[Subject, ...] = (
    Subject(
        "race car",
        {"body": BODY, "wings": ("black", "white", "yellow", "blue", "red")},
        "{body} race car",
        "{body} race car with {wings} wings",
        ("racing car", "formula one car"),
        ("Grand Prix car", "open-wheel racer"),
        True,
        race_car,
        2.0,
    ),
    Subject(
        "car",
        {"body": (*BODY, "cyan"), "roof": ("white", "black", "grey", "red")},
        "{body} car",
        "{body} car with a {roof} roof",
        ("family car", "hatchback"),
        ("automobile", "sedan"),
        True,
        car,
    ),
    Subject(
        "bus",
        {"body": ("yellow", "red", "blue", "green", "orange", "cyan"), "stripe": ("white", "black", "purple", "red")},
        "{body} bus",
        "{body} bus with a {stripe} stripe",
        ("city bus", "school bus"),
        ("coach", "omnibus"),
        True,
        bus,
    ),
    Subject(
        "truck",
        {
            "cab": ("red", "blue", "green", "yellow", "orange", "purple"),
            "cargo": ("white", "grey", "tan", "cyan", "pink"),
        },
        "{cab} truck",
        "{cab} truck with a {cargo} cargo box",
        ("lorry", "delivery truck"),
        ("freight hauler", "box van"),
        True,
        truck,
    ),
    Subject(
        "train",
        {
            "body": ("blue", "green", "black", "red", "purple", "orange"),
            "cab": ("red", "yellow", "white", "green", "cyan"),
        },
        "{body} train",
        "{body} train with a {cab} cab",
        ("steam train", "locomotive"),
        ("railway engine", "choo-choo"),
        True,
        train,
    ),
)
