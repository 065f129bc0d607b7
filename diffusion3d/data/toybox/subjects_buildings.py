"""Buildings, a tree and furniture."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.parts import COLOURS, Subject

C = {name: np.array(rgb) for name, rgb in COLOURS.items()}
GLASS = np.array([0.42, 0.68, 0.88])
DARK = np.array([0.16, 0.13, 0.12])
UPRIGHT = (90, 0, 90)
"""Turns a prism's outline (x, y) into a front view (y, z) that is extruded along x."""


def arch(width, height):
    """Outline of a gate with a round top that stands on the origin."""
    angle = np.linspace(0, np.pi, 9)
    r = width / 2
    return np.r_[[[-r, 0], [r, 0]], np.c_[r * np.cos(angle), height - r + r * np.sin(angle)]]


def window(b, at, size, glass, depth=0.06):
    """A framed window in a wall that faces x; `size` is (width, height)."""
    w, h = size
    b.box((depth, w, h), C["white"], "window", at)
    b.box((depth + 0.03, w * 0.68, h * 0.7), glass, "window", at)


def castle_at(b, colour, rng, s, base=0.0, sink=0.0):
    """A castle with half-side s whose ground is z = base; its walls reach down `sink` further."""
    wall, roof = colour["walls"], colour["roofs"]
    h, t = s * rng.uniform(0.66, 0.82), s * 0.24
    for k in range(4):
        c, n = np.cos(np.pi / 2 * k), np.sin(np.pi / 2 * k)
        b.box((t, 2 * s, h + sink), wall, "wall", (c * s, n * s, base + (h - sink) / 2), (0, 0, 90 * k))
        for w in (-0.5 * s, 0.0, 0.5 * s):
            b.box(
                (t, s * 0.25, s * 0.3),
                wall,
                "wall",
                (c * s - n * w, n * s + c * w, base + h + s * 0.03),
                (0, 0, 90 * k),
            )
    r, th, rh = s * rng.uniform(0.3, 0.36), h + s * rng.uniform(0.3, 0.5), s * rng.uniform(0.65, 0.85)
    for x in (-s, s):
        for y in (-s, s):
            b.cylinder(r, th + sink, wall, "tower", (x, y, base + (th - sink) / 2))
            b.cone(r * 1.3, rh, roof, "roof", (x, y, base + th + rh / 2))
            b.box(
                (0.2 * s, 0.16 * s, 0.3 * s),
                DARK,
                "window",
                (x * (1 + 0.9 * r / s) if x > 0 else x - 0.9 * r, y, base + th * 0.72),
            )
    k, kh, ph = s * rng.uniform(0.46, 0.54), h + s * rng.uniform(0.95, 1.25), s * rng.uniform(0.85, 1.05)
    b.box((2 * k, 2 * k, kh), wall * 0.93, "keep", (0, 0, base + kh / 2))
    b.cone(k * 1.68, ph, roof, "roof", (0, 0, base + kh + ph / 2), sections=4)
    for y in (-0.45 * k, 0.45 * k):
        b.box((0.1 * s, 0.22 * s, 0.36 * s), DARK, "window", (k, y, base + kh - 0.36 * s))
    b.box((0.1 * s, 0.26 * s, 0.36 * s), DARK, "window", (-k, 0, base + kh - 0.36 * s))
    for y in (-k, k):
        b.box((0.26 * s, 0.1 * s, 0.36 * s), DARK, "window", (0, y, base + kh - 0.36 * s))
    gh, front = h * 1.12, s * 1.2
    b.box((s * 0.5, s * 0.84, gh + sink), wall * 1.04, "gatehouse", (front - s * 0.25, 0, base + (gh - sink) / 2))
    for y in (-0.32 * s, 0, 0.32 * s):
        b.box((s * 0.2, s * 0.18, s * 0.2), wall * 1.04, "gatehouse", (front - s * 0.1, y, base + gh + s * 0.06))
    b.prism(arch(0.58 * s, 0.8 * gh), 0.1 * s, C["brown"] * 0.5, "gate", (front, 0, base), UPRIGHT)


def castle(b, colour, rng):
    """Crenellated walls, four round towers with pointed roofs, a tall keep, a gate at the front."""
    castle_at(b, colour, rng, 1.0)


def castle_on_a_hill(b, colour, rng):
    """A castle on a broad dome with a path up to its gate."""
    r, z, flat = rng.uniform(2.0, 2.2), rng.uniform(0.85, 1.05), 1.1
    hill = colour["hill"]
    u = np.linspace(1, 0, 8)
    x, top = flat + (r - flat) * u, 0.12 + (z - 0.12) * (1 - u**2)
    b.lathe([(0, 0), (r, 0), *zip(x, top, strict=True), (0, z)], hill, "hill", (0, 0, 0), sections=32)
    castle_at(b, colour, rng, rng.uniform(0.88, 0.96), z - 0.03, 0.4)
    x, top = np.r_[x, 0.8], np.r_[top, z]
    rings = [
        [(u, -0.26, max(v - 0.2, 0)), (u, 0.26, max(v - 0.2, 0)), (u, 0.26, v + 0.04), (u, -0.26, v + 0.04)]
        for u, v in zip(x, top, strict=True)
    ]
    b.loft(rings, C["tan"] * 1.1, "path")
    for a in rng.uniform(50, 310, 3):
        d, q = flat + (r - flat) * 0.8, rng.uniform(0.17, 0.24)
        at = (d * np.cos(np.deg2rad(a)), d * np.sin(np.deg2rad(a)), 0.12 + (z - 0.12) * 0.36 + q * 0.5)
        b.ellipsoid((q, q, q * 1.1), C["green"] * 0.62, "bush", at, subdivisions=2)


def house(b, colour, rng):
    """A gable with door and windows at the front, a chimney."""
    wall, roof = colour["walls"], colour["roof"]
    x, y, h, rh = rng.uniform(0.8, 0.95), rng.uniform(0.72, 0.85), rng.uniform(0.8, 0.95), rng.uniform(0.75, 0.95)
    b.box((2 * x, 2 * y, h), wall, "wall", (0, 0, h / 2))
    b.prism([(-y, h), (y, h), (0, h + rh)], 2 * x, wall, "wall", (0, 0, 0), UPRIGHT)
    k, t = 1.2, 0.15
    slope = rh / y
    for side in (-1, 1):
        outline = [
            (side * k * y, h - (k - 1) * y * slope),
            (0, h + rh),
            (0, h + rh + t),
            (side * k * y, h - (k - 1) * y * slope + t),
        ]
        b.prism(outline[::side], 2 * x + 0.3, roof, "roof", (0, 0, 0), UPRIGHT)
    b.box((0.3, 0.3, 0.75), C["brown"] * 1.15, "chimney", (-0.35 * x, 0.5 * y, h + rh * 0.75))
    b.box((0.12, 0.4, 0.62), C["brown"] * 0.7, "door", (x, 0, 0.31))
    b.ellipsoid((0.05, 0.045, 0.045), C["yellow"], "door", (x + 0.06, 0.12, 0.3), subdivisions=1)
    for s in (-1, 1):
        window(b, (x, s * 0.64 * y, h * 0.55), (0.34, 0.38), GLASS, 0.1)
        window(b, (-x, s * 0.45 * y, h * 0.55), (0.4, 0.38), GLASS, 0.1)
        for u in (-0.45, 0.45):
            b.box((0.46, 0.1, 0.4), C["white"], "window", (u * x, s * y, h * 0.55))
            b.box((0.32, 0.13, 0.28), GLASS, "window", (u * x, s * y, h * 0.55))
    b.cylinder(0.19, 0.1, C["white"], "window", (x, 0, h + rh * 0.36), (0, 90, 0))
    b.cylinder(0.12, 0.13, GLASS, "window", (x, 0, h + rh * 0.36), (0, 90, 0))


def windmill(b, colour, rng):
    """A tapering tower with a cap and four large sails at the front."""
    tower, cap, blade = colour["tower"], colour["cap"], colour["blades"]
    r, top, h = rng.uniform(0.56, 0.66), rng.uniform(0.36, 0.42), rng.uniform(1.55, 1.75)
    b.cone(r, h, tower, "tower", (0, 0, h / 2), top=top)
    angle = np.linspace(0, 0.5, 5) * np.pi
    b.lathe([(0, h - 0.04)] + [(top * 1.18 * np.cos(a), h + 0.5 * np.sin(a)) for a in angle], cap, "cap", (0, 0, 0))
    hub = (0.78, 0, h + 0.08)
    b.cylinder(0.1, 0.8, C["brown"] * 0.7, "axle", (0.42, 0, hub[2]), (0, 90, 0))
    b.ellipsoid((0.12, 0.15, 0.15), C["brown"] * 0.7, "axle", (0.84, 0, hub[2]), subdivisions=2)
    length, width, turn = rng.uniform(1.12, 1.28), rng.uniform(0.34, 0.42), rng.uniform(25, 65)
    for k in range(4):
        a = np.deg2rad(turn + 90 * k)
        for d, size, c in (
            (length * 0.5, (0.1, 0.12, length), C["brown"] * 0.7),
            (length * 0.62, (0.08, width, length * 0.76), blade),
        ):
            at = (hub[0] - (0.04 if c is not blade else 0), d * np.sin(a), hub[2] + d * np.cos(a))
            b.box(size, c, "blade", at, (-np.rad2deg(a), 0, 0))
    b.prism(arch(0.36, 0.55), 0.3, C["brown"] * 0.6, "door", (r - 0.1, 0, 0), UPRIGHT)
    for x in (-1, 1):
        b.box((0.22, 0.26, 0.28), DARK, "window", (x * (r * 0.45 + top * 0.55 - 0.08), 0, h * 0.58))


def lighthouse(b, colour, rng):
    """A striped tower on a rock with a lit lantern room and a pointed roof."""
    stripe, roof = colour["stripes"], colour["roof"]
    r, top, h, n = rng.uniform(0.5, 0.58), rng.uniform(0.32, 0.36), rng.uniform(1.75, 1.95), 5
    b.lathe(
        [(0, -0.35), (1.0, -0.35), (0.92, -0.1), (0.7, 0.06), (0, 0.08)],
        C["grey"] * 0.85,
        "rock",
        (0, 0, 0),
        sections=11,
    )
    for k in range(n):
        low, high = r + (top - r) * k / n, r + (top - r) * (k + 1) / n
        z = h * (k + 0.5) / n
        b.cone(low, h / n, stripe if k % 2 == 0 else C["white"], "tower", (0, 0, z), top=high, sections=24)
    b.cylinder(top * 1.5, 0.13, C["black"] * 1.8, "gallery", (0, 0, h + 0.04), sections=24)
    b.cylinder(top * 0.86, 0.4, C["yellow"] * np.array([1.05, 1.1, 2.6]), "lantern", (0, 0, h + 0.3))
    for k in range(4):
        a = np.pi / 4 + k * np.pi / 2
        b.cylinder(
            0.06,
            0.4,
            C["black"] * 1.8,
            "lantern",
            (top * 0.85 * np.cos(a), top * 0.85 * np.sin(a), h + 0.3),
            sections=8,
        )
    b.cone(top * 1.3, 0.46, roof, "roof", (0, 0, h + 0.7))
    b.prism(arch(0.34, 0.5), 0.3, C["brown"] * 0.6, "door", (r - 0.08, 0, 0.03), UPRIGHT)
    for z in (0.5, 0.75):
        b.box((0.2, 0.2, 0.24), DARK, "window", (r + (top - r) * z - 0.06, 0, h * z))


def tree(b, colour, rng):
    """A trunk with two boughs below a round crown of leaves."""
    trunk, leaves = C["brown"], colour["leaves"]
    h, r = rng.uniform(0.85, 1.05), rng.uniform(0.16, 0.2)
    b.lathe([(0, 0), (r * 1.9, 0), (r * 1.15, 0.16), (r * 0.85, h + 0.3), (0, h + 0.3)], trunk, "trunk", (0, 0, 0))
    start, z, size = rng.uniform(0, 360), h + 0.48, rng.uniform(0.92, 1.06)
    for s in (0, 180):
        a = np.deg2rad(start + s)
        b.cone(
            r * 0.62, 0.6, trunk, "trunk", (0.2 * np.cos(a), 0.2 * np.sin(a), h * 0.82), (0, 45, start + s), top=r * 0.4
        )
    b.ellipsoid((0.62 * size, 0.62 * size, 0.55), leaves, "leaves", (0, 0, z + 0.25))
    for k in range(6):
        a, q = np.deg2rad(start + 60 * k), rng.uniform(0.4, 0.47) * size
        at = (0.5 * size * np.cos(a), 0.5 * size * np.sin(a), z + rng.uniform(-0.06, 0.16))
        b.ellipsoid((q, q, q * 0.9), leaves * rng.uniform(0.86, 1.04), "leaves", at)
    q = rng.uniform(0.4, 0.46) * size
    b.ellipsoid((q, q, q), leaves * 1.04, "leaves", (rng.uniform(-0.12, 0.12), rng.uniform(-0.12, 0.12), z + 0.62))


def table(b, colour, rng):
    """A thick top on four legs; the top is rectangular or round."""
    top, leg = colour["top"], colour["legs"]
    x, y, h, t = rng.uniform(0.72, 0.82), rng.uniform(0.95, 1.15), rng.uniform(0.8, 1.0), 0.16
    round_top = rng.random() < 0.3
    if round_top:
        x = y = 0.98
        b.cylinder(x, t, top, "top", (0, 0, h + t / 2), sections=32)
        x = y = 0.98 * 0.76
    else:
        b.box((2 * x, 2 * y, t), top, "top", (0, 0, h + t / 2))
    w = rng.uniform(0.17, 0.21)
    p, q = x - w / 2 - 0.05, y - w / 2 - 0.05
    for sx in (-1, 1):
        for sy in (-1, 1):
            b.cone(w * 0.5, h, leg, "leg", (sx * p, sy * q, h / 2), (180, 0, 45), sections=4, top=w * 0.72)
    for s in (-1, 1):
        b.box((0.1, 2 * q, 0.18), leg * 0.92, "leg", (s * p, 0, h - 0.09))
        b.box((2 * p, 0.1, 0.18), leg * 0.92, "leg", (0, s * q, h - 0.09))


def chair(b, colour, rng):
    """Four legs, a cushion, a tall back at the rear."""
    frame, seat = colour["frame"], colour["seat"]
    s, h, back, w = rng.uniform(0.5, 0.56), rng.uniform(0.62, 0.74), rng.uniform(0.85, 1.0), 0.15
    e = s - w / 2
    for y in (-e, e):
        b.box((w, w, h), frame, "leg", (e, y, h / 2))
        b.box((w, w, h + back), frame, "leg", (-e, y, (h + back) / 2))
        b.box((2 * e, 0.1, 0.12), frame * 0.92, "leg", (0, y, h * 0.35))
    b.box((2 * s, 2 * s, 0.13), frame, "seat", (0, 0, h))
    b.box((1.86 * s, 1.92 * s, 0.14), seat, "seat", (0.03, 0, h + 0.11))
    b.box((0.13, 2 * s, 0.2), frame, "back", (-e, 0, h + back))
    if rng.random() < 0.5:
        b.box((0.12, 2 * e, back * 0.56), frame * 0.96, "back", (-e, 0, h + back * 0.62))
    else:
        for y in (-0.36 * s, 0, 0.36 * s):
            b.box((0.1, 0.2 * s, back), frame * 0.96, "back", (-e, y, h + back * 0.5))


BUILDINGS: tuple[Subject, ...] = (
    Subject(
        "castle",
        {
            "walls": ("grey", "white", "tan", "pink", "yellow", "blue"),
            "roofs": ("red", "blue", "green", "purple", "orange"),
        },
        "{walls} castle",
        "{walls} castle with {roofs} roofs",
        ("citadel", "medieval castle"),
        ("fortress", "stronghold"),
        True,
        castle,
        2.0,
    ),
    Subject(
        "castle on a hill",
        {
            "walls": ("grey", "white", "tan", "pink", "yellow", "blue"),
            "roofs": ("red", "blue", "green", "purple", "orange"),
            "hill": ("green", "green", "green", "brown", "white"),
        },
        "{walls} castle on a hill",
        "{walls} castle with {roofs} roofs on a {hill} hill",
        ("citadel on a hill", "medieval castle on a hill", "castle on top of a hill"),
        ("hilltop fortress", "stronghold on a hill"),
        True,
        castle_on_a_hill,
        2.0,
    ),
    Subject(
        "house",
        {
            "walls": ("white", "yellow", "pink", "cyan", "tan", "grey"),
            "roof": ("red", "blue", "green", "brown", "black"),
        },
        "{walls} house",
        "{walls} house with a {roof} roof",
        ("cottage", "family house"),
        ("home", "bungalow"),
        True,
        house,
    ),
    Subject(
        "windmill",
        {
            "tower": ("white", "tan", "grey", "pink", "brown", "yellow"),
            "blades": ("white", "red", "blue", "orange"),
            "cap": ("red", "blue", "green", "purple"),
        },
        "{tower} windmill",
        "{tower} windmill with {blades} blades and a {cap} cap",
        ("Dutch windmill", "old windmill"),
        ("mill with sails", "wind-powered mill"),
        True,
        windmill,
    ),
    Subject(
        "lighthouse",
        {"stripes": ("red", "blue", "green", "black", "orange", "purple"), "roof": ("red", "blue", "green", "black")},
        "{stripes} striped lighthouse",
        "{stripes} and white striped lighthouse with a {roof} roof",
        ("light tower", "coastal lighthouse"),
        ("beacon", "seaside light station"),
        False,
        lighthouse,
    ),
)

FIXTURES: tuple[Subject, ...] = (
    Subject(
        "tree",
        {"leaves": ("green", "orange", "yellow", "red", "pink", "purple")},
        "{leaves} tree",
        "tree with {leaves} leaves",
        ("leafy tree", "broad tree"),
        ("oak", "maple"),
        False,
        tree,
    ),
    Subject(
        "table",
        {
            "top": ("brown", "white", "red", "blue", "green", "yellow", "tan"),
            "legs": ("brown", "white", "black", "grey", "orange"),
        },
        "{top} table",
        "{top} table with {legs} legs",
        ("dining table", "wooden table"),
        ("desk", "kitchen table"),
        False,
        table,
    ),
    Subject(
        "chair",
        {
            "frame": ("brown", "white", "red", "blue", "green", "yellow", "black"),
            "seat": ("red", "blue", "yellow", "pink", "cyan", "purple"),
        },
        "{frame} chair",
        "{frame} chair with a {seat} seat",
        ("dining chair", "wooden chair"),
        ("seat with a backrest", "kitchen chair"),
        True,
        chair,
    ),
)
