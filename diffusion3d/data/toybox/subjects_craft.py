"""Things that fly or float."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.parts import COLOURS, Subject
from diffusion3d.data.toybox.subjects_vehicles import GLASS, SIDE, TYRE, ring

C = {name: np.array(rgb) for name, rgb in COLOURS.items()}


def airplane(b, colour, rng):
    """A stout airliner with swept wings, two engines and a tall fin."""
    body, wing = colour["body"], colour["wings"]
    k, r = rng.uniform(1.2, 1.32), rng.uniform(0.3, 0.35)
    stations = [
        (k, 0.06, -0.1),
        (k - 0.06, 0.42, -0.07),
        (k - 0.22, 0.74, -0.04),
        (k - 0.5, 0.97, 0),
        (-0.3, 1, 0),
        (-0.75, 0.78, 0.06),
        (-k, 0.3, 0.16),
    ]
    b.loft([ring(x, r * q, c - r * q, c + r * q, 1.0) for x, q, c in stations], body, "body", smooth=True)
    b.loft(
        [
            ring(x, r * q, 0.1 - s, 0.1 + s, 0.8)
            for x, q, s in ((k - 0.12, 0.42, 0.04), (k - 0.24, 0.66, 0.09), (k - 0.38, 0.78, 0.1))
        ],
        GLASS,
        "window",
    )
    for x in np.linspace(-0.5, 0.55, 5):
        b.box((0.13, 2 * r + 0.02, 0.14), GLASS, "window", (x, 0, 0.09))
    span, sweep = rng.uniform(1.18, 1.32), rng.uniform(0.35, 0.55)
    for side in (-1, 1):
        b.loft(
            [
                [(x, side * y, z - t), (x - c, side * y, z - t), (x - c, side * y, z + t), (x, side * y, z + t)]
                for x, y, z, c, t in ((0.42, 0.1, -0.12, 0.72, 0.07), (0.42 - sweep, span, 0.02, 0.4, 0.045))
            ],
            wing,
            "wing",
        )
        b.loft(
            [
                [(x, side * y, z - t), (x - c, side * y, z - t), (x - c, side * y, z + t), (x, side * y, z + t)]
                for x, y, z, c, t in ((-k + 0.42, 0.05, 0.18, 0.42, 0.05), (-k + 0.14, 0.56, 0.22, 0.28, 0.04))
            ],
            wing,
            "tail",
        )
        b.cylinder(0.15, 0.42, C["grey"] * 1.3, "engine", (0.28 - sweep * 0.2, side * span * 0.48, -0.24), (0, 90, 0))
        b.cylinder(0.11, 0.45, TYRE, "engine", (0.28 - sweep * 0.2, side * span * 0.48, -0.24), (0, 90, 0))
    b.prism(
        [(-k + 0.56, 0.16), (-k - 0.1, 0.86), (-k - 0.34, 0.86), (-k - 0.02, 0.16)][::-1],
        0.11,
        wing,
        "tail",
        (0, 0, 0),
        SIDE,
    )


def helicopter(b, colour, rng):
    """A round cabin with a glass nose, a tail boom, a four-bladed rotor, skids."""
    body, blade = colour["body"], colour["blades"]
    h, w = rng.uniform(0.5, 0.56), rng.uniform(0.46, 0.52)
    b.ellipsoid((0.78, w, h), body, "body", (0.2, 0, 0))
    b.ellipsoid((0.5, w * 0.86, h * 0.78), GLASS * 1.1, "window", (0.54, 0, 0.06))
    for side in (-1, 1):
        b.box((0.34, 0.12, 0.36), GLASS * 1.1, "window", (0.08, side * (w - 0.07), 0.12))
    tail = rng.uniform(1.2, 1.35)
    b.loft(
        [ring(x, q, c - q, c + q, 1.0) for x, q, c in ((-0.3, 0.3, 0.1), (-0.7, 0.17, 0.16), (-tail, 0.11, 0.2))],
        body,
        "tail",
        smooth=True,
    )
    b.prism(
        [(-tail + 0.2, 0.18), (-tail - 0.05, 0.68), (-tail - 0.3, 0.68), (-tail - 0.1, 0.1)][::-1],
        0.11,
        body,
        "tail",
        (0, 0, 0),
        SIDE,
    )
    b.box((0.26, 0.8, 0.09), body, "tail", (-tail + 0.2, 0, 0.2))
    turn = rng.uniform(0, 90)
    for k in (0, 1):
        b.box((0.64, 0.07, 0.14), blade, "rotor", (-tail - 0.1, 0.11, 0.42), (0, turn + 90 * k, 0))
    b.cylinder(0.12, 0.34, TYRE * 2, "rotor", (0.15, 0, h + 0.08))
    length = rng.uniform(1.1, 1.22)
    turn = rng.uniform(15, 75)
    for k in (0, 1):
        b.box((2 * length, 0.22, 0.09), blade, "rotor", (0.15, 0, h + 0.25), (0, 0, turn + 90 * k))
    b.ellipsoid((0.16, 0.16, 0.1), TYRE * 2, "rotor", (0.15, 0, h + 0.29), subdivisions=2)
    for side in (-1, 1):
        b.box((1.3, 0.11, 0.1), TYRE * 2, "skid", (0.25, side * 0.42, -h - 0.24))
        b.box((0.3, 0.11, 0.1), TYRE * 2, "skid", (0.98, side * 0.42, -h - 0.16), (0, -35, 0))
        for x in (-0.1, 0.55):
            b.box((0.1, 0.1, 0.44), TYRE * 2, "skid", (x, side * 0.37, -h - 0.04), (side * 14, 0, 0))


def boat(b, colour, rng):
    """A small steamer: pointed hull, cabin with a wheelhouse, funnel."""
    hull, funnel = colour["hull"], colour["funnel"]
    k, w, h = rng.uniform(1.15, 1.3), rng.uniform(0.54, 0.6), rng.uniform(0.55, 0.62)

    stations = (
        (-k, 0.8, 0.06, h),
        (-0.5, 1, 0, h - 0.02),
        (0.3, 0.98, 0, h + 0.02),
        (0.8, 0.64, 0.03, h + 0.1),
        (k + 0.15, 0.08, 0.25, h + 0.26),
    )
    rings = [
        [(x, -w * q, z), (x, -w * q * 0.72, low + 0.06), (x, w * q * 0.72, low + 0.06), (x, w * q, z)]
        for x, q, low, z in stations
    ]
    b.loft(rings, hull, "hull")

    def plank(inner, outer, low, high):
        """A ring of the deck or of the rail at every station."""
        return [
            [(x, w * q * y, z + u) for y, u in ((inner, low), (outer, low), (outer, high), (inner, high))]
            for x, q, _, z in stations
        ]

    b.loft(plank(-0.9, 0.9, -0.1, 0.03), C["tan"] * 1.1, "deck")
    for side in (-1, 1):
        b.loft(plank(side * 0.88, side * 1.06, -0.1, 0.1), C["white"], "rail")
    b.box((0.12, w * 1.68, 0.2), C["white"], "rail", (-k, 0, h))
    b.box((1.2, w * 1.3, 0.46), C["white"], "cabin", (-0.3, 0, h + 0.2))
    b.box((1.32, w * 1.45, 0.09), C["tan"] * 0.85, "cabin", (-0.3, 0, h + 0.46))
    b.box((0.56, w * 1.05, 0.46), C["white"], "cabin", (0.02, 0, h + 0.7))
    b.box((0.7, w * 1.25, 0.1), C["tan"] * 0.85, "cabin", (0.02, 0, h + 0.96))
    for side in (-1, 1):
        for x in (-0.68, -0.3, 0.08):
            b.cylinder(0.11, 0.08, GLASS, "window", (x, side * w * 0.65, h + 0.22), SIDE)
        b.box((0.34, 0.08, 0.24), GLASS, "window", (0.04, side * w * 0.525, h + 0.74))
    b.box((0.08, w * 0.86, 0.24), GLASS, "window", (0.3, 0, h + 0.74))
    fh = rng.uniform(0.68, 0.82)
    b.cylinder(0.21, fh, funnel, "funnel", (-0.58, 0, h + 0.46 + fh / 2), (0, -6, 0))
    b.cylinder(0.23, 0.16, TYRE, "funnel", (-0.585 - fh * 0.05, 0, h + 0.46 + fh), (0, -6, 0))


def rocket(b, colour, rng):
    """A spindle with a pointed nose, four big fins, a porthole, a nozzle with a flame."""
    body, fin = colour["body"], colour["fins"]
    r, h = rng.uniform(0.4, 0.46), rng.uniform(1.1, 1.25)
    b.lathe(
        [(0, 0), (r * 0.72, 0), (r * 0.95, 0.3), (r, 0.65), (r * 0.94, h), (r * 0.8, h + 0.22), (0, h + 0.22)],
        body,
        "body",
        (0, 0, 0),
    )
    b.lathe([(0, 0), (r * 0.82, 0), (r * 0.6, 0.26), (r * 0.32, 0.5), (0, 0.72)], fin, "nose", (0, 0, h + 0.2))
    b.cylinder(r * 1.0, 0.12, fin, "band", (0, 0, h * 0.42))
    for k in range(4):
        a = np.deg2rad(45 + 90 * k)
        outline = [(r * 0.6, 0.62), (r * 0.6, 0.08), (r + 0.42, -0.3), (r + 0.42, 0.12)]
        c, s = np.cos(a), np.sin(a)
        rings = [[(x * c - t * s, x * s + t * c, z) for x, z in outline] for t in (-0.07, 0.07)]
        b.loft(rings, fin, "fin")
    b.cone(0.2, 0.22, C["grey"] * 0.7, "nozzle", (0, 0, -0.08), (180, 0, 0), top=0.3)
    b.cone(0.25, 0.5, C["orange"], "flame", (0, 0, -0.42), (180, 0, 0))
    z = h * 0.8
    b.cylinder(0.21, 0.14, C["grey"] * 1.3, "window", (r * 0.94, 0, z), (0, 90, 0))
    b.cylinder(0.14, 0.18, GLASS * 1.4, "window", (r * 0.94, 0, z), (0, 90, 0))


CRAFT: tuple[Subject, ...] = (
    Subject(
        "airplane",
        {
            "body": ("white", "red", "blue", "yellow", "grey", "green"),
            "wings": ("red", "blue", "orange", "white", "purple", "green"),
        },
        "{body} airplane",
        "{body} airplane with {wings} wings",
        ("plane", "aeroplane"),
        ("airliner", "passenger jet"),
        True,
        airplane,
    ),
    Subject(
        "helicopter",
        {
            "body": ("red", "blue", "yellow", "green", "orange", "white"),
            "blades": ("black", "white", "red", "grey"),
        },
        "{body} helicopter",
        "{body} helicopter with {blades} blades",
        ("chopper", "rescue helicopter"),
        ("rotorcraft", "whirlybird"),
        True,
        helicopter,
    ),
    Subject(
        "boat",
        {
            "hull": ("red", "blue", "green", "black", "orange", "brown"),
            "funnel": ("red", "yellow", "blue", "orange", "purple"),
        },
        "{hull} boat",
        "{hull} boat with a {funnel} funnel",
        ("tugboat", "steamboat"),
        ("ship", "vessel"),
        True,
        boat,
    ),
    Subject(
        "rocket",
        {
            "body": ("white", "grey", "yellow", "cyan", "blue", "pink"),
            "fins": ("red", "blue", "orange", "green", "purple"),
        },
        "{body} rocket",
        "{body} rocket with {fins} fins",
        ("space rocket", "moon rocket"),
        ("spacecraft", "launch vehicle"),
        False,
        rocket,
    ),
)
