"""Birds, a turtle, a robot and a snowman."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.organic import DARK, SIDES, STEEL, C, eyes, limb, sweep
from diffusion3d.data.toybox.parts import Subject


def duck(b, colour, rng):
    """A plump duck with an upturned tail, folded wings, a flat bill and webbed feet."""
    body, beak = colour["body"], colour["beak"]
    e, w, k, z = rng.uniform(0.85, 1.0), rng.uniform(0.45, 0.53), rng.uniform(0.36, 0.41), 0.6
    line = [
        (-0.8 * e, z + 0.32, 0.1, 0.06),
        (-0.5 * e, z + 0.1, 0.3, 0.22),
        (-0.1, z, w, 0.38),
        (0.3 * e, z + 0.04, w * 0.86, 0.37),
    ]
    sweep(b, [(x, 0, v, p, q) for x, v, p, q in line], body, "body", n=20)
    x, top = 0.42 * e, z + rng.uniform(0.66, 0.75)
    sweep(b, [(x - 0.14, 0, z + 0.2, 0.3), (x - 0.02, 0, top - 0.28, 0.22), (x, 0, top, 0.2)], body, "neck")
    b.ellipsoid((k, k * 0.95, k * 0.95), body, "head", (x + 0.02, 0, top + 0.04))
    b.ellipsoid((0.29, 0.25, 0.075), beak, "beak", (x + k + 0.12, 0, top + 0.0), (0, 4, 0))
    b.ellipsoid((0.22, 0.2, 0.06), beak * 0.85, "beak", (x + k + 0.06, 0, top - 0.08), (0, 14, 0))
    eyes(b, x + 0.27, 0.2, top + 0.18, 0.08)
    for s in SIDES:
        b.ellipsoid((0.4 * e, 0.1, 0.23), body * 0.84, "wing", (-0.14, s * (w - 0.03), z + 0.1), (0, 12, s * 6))
        b.ellipsoid((0.2, 0.08, 0.1), body * 0.7, "wing", (-0.42 * e, s * (w - 0.05), z + 0.16), (0, 24, s * 10), 2)
        limb(b, (0.02, s * 0.2, z - 0.3), (0.04, s * 0.2, 0.1), 0.075, 0.07, beak, "foot")
        foot = [(-0.12, -0.07), (0.28, -0.19), (0.34, 0), (0.28, 0.19), (-0.12, 0.07)]
        b.prism(foot, 0.1, beak, "foot", (0.04, s * 0.22, 0.05), (0, 0, s * 10))


def turtle(b, colour, rng):
    """A domed shell with hexagonal plates, four stumpy legs, a raised head and a short tail."""
    shell, skin = colour["shell"], colour["body"]
    r, h = rng.uniform(0.76, 0.86), rng.uniform(0.62, 0.76)
    a = np.deg2rad(np.linspace(0, 90, 9))
    b.lathe(
        [(0, 0.26), (r * 0.8, 0.26), *zip(r * np.cos(a), 0.34 + h * np.sin(a), strict=True)],
        shell,
        "shell",
        (0, 0, 0),
        sections=28,
    )
    b.lathe(
        [(0, 0.2), (r * 0.9, 0.2), (r * 1.1, 0.3), (r * 1.1, 0.38), (r * 0.9, 0.44), (0, 0.44)],
        shell * 0.62,
        "shell",
        (0, 0, 0),
        sections=28,
    )
    for n, up, size in ((1, 90, 0.27), (6, 38, 0.24)):
        for i in range(n):
            t, f = np.deg2rad(up), 2 * np.pi * (i + 0.5) / n
            normal = np.array([np.cos(t) / r, np.sin(t) / h])
            tilt = np.rad2deg(np.arctan2(normal[0], normal[1]))
            at = (r * np.cos(t) * np.cos(f), r * np.cos(t) * np.sin(f), 0.34 + h * np.sin(t))
            b.cone(size * r / 0.83, 0.07, shell * 0.62, "plate", at, (0, tilt, np.rad2deg(f)), 6, top=size * 0.8)
    x, top = r + 0.32, 0.36 + h * rng.uniform(0.6, 0.8)
    sweep(b, [(r - 0.2, 0, 0.36, 0.2), (r + 0.08, 0, 0.42, 0.17), (x - 0.04, 0, top - 0.06, 0.17)], skin, "head")
    b.ellipsoid((0.31, 0.29, 0.26), skin, "head", (x, 0, top))
    eyes(b, x + 0.17, 0.18, top + 0.12, 0.09)
    b.ellipsoid((0.06, 0.15, 0.035), skin * 0.45, "mouth", (x + 0.265, 0, top - 0.08), subdivisions=2)
    for s in SIDES:
        for u in SIDES:
            limb(b, (u * r * 0.6, s * r * 0.55, 0.36), (u * r * 0.84, s * r * 0.74, 0.18), 0.23, 0.2, skin, "leg")
    limb(b, (-r * 0.95, 0, 0.3), (-r - 0.3, 0, 0.24), 0.12, 0.04, skin, "tail")


def penguin(b, colour, rng):
    """An upright bird with a white front, flippers, orange beak and feet, and a scarf."""
    coat, white, orange = colour["body"], C["white"], C["orange"]
    w, h = rng.uniform(0.5, 0.58), rng.uniform(0.95, 1.1)
    line = [(0.02, 0.3, w * 0.9), (0, 0.62, w), (-0.02, h, w * 0.82), (0.02, h + 0.3, w * 0.7)]
    sweep(b, [(x, 0, z, r) for x, z, r in line], coat, "body", n=20)
    b.ellipsoid((w * 0.72, w * 0.78, h * 0.5), white, "belly", (w * 0.36, 0, h * 0.58))
    top = h + 0.42
    b.ellipsoid((0.4, 0.42, 0.38), coat, "head", (0.03, 0, top))
    for s in SIDES:
        b.ellipsoid((0.16, 0.16, 0.18), white, "face", (0.27, s * 0.14, top + 0.02))
        b.ellipsoid((0.19, 0.075, 0.44), coat * 0.85, "flipper", (-0.02, s * (w + 0.14), h * 0.74), (s * 20, 0, 0))
        b.ellipsoid((0.28, 0.2, 0.09), orange, "foot", (0.24, s * 0.25, 0.08), (0, 0, s * 14))
    b.cone(0.13, 0.34, orange, "beak", (0.54, 0, top - 0.05), (0, 92, 0))
    eyes(b, 0.38, 0.17, top + 0.09, 0.075)
    limb(b, (-w * 0.75, 0, 0.24), (-w - 0.1, 0, 0.12), 0.17, 0.1, coat, "tail")
    b.torus(w * 0.76, 0.1, colour["scarf"], "scarf", (0.02, 0, h + 0.12), (0, 5, 0))
    b.box((0.12, 0.2, 0.42), colour["scarf"] * 0.93, "scarf", (w * 0.9, 0.2, h - 0.12), (8, -6, 15))


def robot(b, colour, rng):
    """A box-shaped robot with a lit face, an antenna, buttons on its chest and two tanks on its back."""
    body, arms = colour["body"], colour["arms"]
    w, d, h = rng.uniform(0.44, 0.54), rng.uniform(0.3, 0.38), rng.uniform(0.72, 0.86)
    leg, hw, hh = rng.uniform(0.42, 0.56), rng.uniform(0.36, 0.44), rng.uniform(0.46, 0.56)
    glow = C[("yellow", "cyan", "green")[int(rng.integers(3))]] * (1.25, 1.2, 1.25)
    z, top = leg + h, leg + h + 0.1 + hh
    b.box((2 * d, 2 * w, h), body, "body", (0, 0, leg + h / 2))
    b.box((0.1, 1.5 * w, h * 0.62), C["white"] * 0.92, "panel", (d, 0, leg + h * 0.54))
    for y, c in ((-0.42, "red"), (0, "yellow"), (0.42, "green")):
        b.ellipsoid((0.07, 0.085, 0.085), C[c], "button", (d + 0.05, y * w, leg + h * 0.68), subdivisions=2)
    b.box((0.06, w * 1.1, 0.13), STEEL * 0.6, "panel", (d + 0.05, 0, leg + h * 0.38))
    b.cylinder(0.2, 0.14, STEEL, "neck", (0, 0, z + 0.05))
    b.box((2 * d * 0.95, 2 * hw, hh), body, "head", (0, 0, top - hh / 2))
    b.box((0.1, 1.66 * hw, hh * 0.7), DARK * 1.6, "face", (d * 0.95, 0, top - hh * 0.48))
    for s in SIDES:
        b.cylinder(0.115, 0.1, glow, "eye", (d * 0.95 + 0.05, s * hw * 0.42, top - hh * 0.38), (0, 90, 0))
        b.cylinder(0.13, 0.13, arms, "ear", (0, s * (hw + 0.06), top - hh * 0.5), (90, 0, 0))
        b.ellipsoid((0.19, 0.19, 0.19), STEEL, "shoulder", (0, s * (w + 0.1), z - 0.17), subdivisions=2)
        limb(b, (0, s * (w + 0.17), z - 0.2), (0.06, s * (w + 0.24), leg + 0.12), 0.125, 0.125, arms, "arm")
        hand = (0.14, s * (w + 0.25), leg - 0.04)
        b.box((0.24, 0.26, 0.14), STEEL, "hand", hand)
        for x in (-0.08, 0.12):
            b.box((0.1, 0.2, 0.2), STEEL, "hand", (0.12 + x, s * (w + 0.25), leg - 0.14))
        b.cylinder(0.14, leg, arms, "leg", (0, s * w * 0.52, leg / 2))
        b.box((0.52, 0.36, 0.17), STEEL, "foot", (0.07, s * w * 0.52, 0.085))
        b.cylinder(0.16, h * 0.66, STEEL, "tank", (-d - 0.12, s * 0.19, leg + h * 0.52))
        b.ellipsoid((0.16, 0.16, 0.12), C["red"], "tank", (-d - 0.12, s * 0.19, leg + h * 0.85), subdivisions=2)
    for y in (-0.2, 0, 0.2):
        b.box((0.06, 0.1, 0.1), C["white"], "mouth", (d * 0.95 + 0.05, y * 0.8, top - hh * 0.7))
    b.cylinder(0.045, 0.26, STEEL, "antenna", (0, 0, top + 0.12))
    b.ellipsoid((0.12, 0.12, 0.12), C["red"], "antenna", (0, 0, top + 0.3), subdivisions=2)


def snowman(b, colour, rng):
    """Three snowballs with a top hat, a scarf, a carrot nose, coal buttons and stick arms."""
    white, hat, scarf = colour["body"], colour["hat"], colour["scarf"]
    p, q, r = rng.uniform(0.54, 0.62), rng.uniform(0.4, 0.46), rng.uniform(0.31, 0.35)
    mid = 0.86 * p + 0.78 * (p * 0.55 + q)
    top = mid + 0.72 * q + 0.78 * r
    b.ellipsoid((p, p, p * 0.9), white, "body", (0, 0, p * 0.86))
    b.ellipsoid((q, q, q * 0.95), white, "body", (0, 0, mid))
    b.ellipsoid((r, r, r), white, "head", (0, 0, top))
    b.cone(0.1, 0.42, C["orange"], "nose", (r + 0.15, 0, top - 0.01), (0, 93, 0))
    for s in SIDES:
        b.ellipsoid((0.06, 0.07, 0.07), DARK, "eye", (r * 0.87, s * 0.135, top + 0.1), subdivisions=2)
        a = rng.uniform(0.1, 0.4)
        elbow, end = (0.02, s * (q + 0.3), mid + 0.12 + a * 0.5), (0.06, s * (q + 0.5), mid + 0.15 + a)
        limb(b, (0, s * q * 0.8, mid + 0.06), elbow, 0.055, 0.05, C["brown"] * 0.8, "arm")
        limb(b, elbow, end, 0.05, 0.045, C["brown"] * 0.8, "arm")
        limb(b, elbow, (0.08, s * (q + 0.56), mid + 0.02 + a * 0.5), 0.05, 0.04, C["brown"] * 0.8, "arm")
    for k, y in enumerate((-0.13, -0.045, 0.045, 0.13)):
        b.ellipsoid(
            (0.035, 0.036, 0.036), DARK, "mouth", (r * 0.88, y, top - (0.15 if k in (1, 2) else 0.12)), subdivisions=1
        )
    for z, x in ((mid + 0.12, 0.93 * q), (mid - 0.13, 0.93 * q), (p * 1.02, 0.97 * p)):
        b.ellipsoid((0.06, 0.07, 0.07), DARK, "button", (x, 0, z), subdivisions=2)
    neck = (mid + 0.9 * q + top - 0.9 * r) / 2
    b.torus(r * 0.86, 0.1, scarf, "scarf", (0, 0, neck))
    b.box((0.11, 0.19, 0.42), scarf * 0.92, "scarf", (q * 0.92, 0.17, neck - 0.23), (8, -14, 14))
    brim, crown = top + r * 0.72, rng.uniform(0.34, 0.46)
    b.cylinder(r * 1.25, 0.09, hat, "hat", (0, 0, brim))
    b.cone(r * 0.8, crown, hat, "hat", (0, 0, brim + crown / 2), top=r * 0.86)
    b.cylinder(r * 0.85, 0.11, scarf, "hat", (0, 0, brim + 0.1))


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "duck",
        {
            "body": ("yellow", "white", "brown", "green", "blue", "grey"),
            "beak": ("orange", "orange", "red", "yellow", "tan"),
        },
        "{body} duck",
        "{body} duck with a {beak} beak",
        ("duckling", "standing duck"),
        ("drake", "mallard"),
        True,
        duck,
    ),
    Subject(
        "turtle",
        {
            "shell": ("green", "brown", "red", "blue", "purple", "orange"),
            "body": ("green", "yellow", "tan", "grey", "cyan"),
        },
        "turtle with a {shell} shell",
        "{body} turtle with a {shell} shell",
        ("tortoise", "walking turtle"),
        ("terrapin", "shelled reptile"),
        True,
        turtle,
    ),
    Subject(
        "penguin",
        {
            "body": ("black", "black", "blue", "grey", "purple", "cyan"),
            "scarf": ("red", "yellow", "green", "pink", "orange"),
        },
        "{body} penguin",
        "{body} penguin with a {scarf} scarf",
        ("emperor penguin", "baby penguin"),
        ("antarctic bird", "flightless polar bird"),
        True,
        penguin,
    ),
    Subject(
        "robot",
        {
            "body": ("grey", "blue", "red", "yellow", "green", "orange", "purple", "white"),
            "arms": ("grey", "white", "black", "orange", "blue", "yellow"),
        },
        "{body} robot",
        "{body} robot with {arms} arms",
        ("android", "humanoid robot"),
        ("droid", "mechanical man"),
        True,
        robot,
    ),
    Subject(
        "snowman",
        {
            "body": ("white",),
            "hat": ("black", "black", "red", "blue", "purple", "brown"),
            "scarf": ("red", "blue", "green", "yellow", "orange"),
        },
        "{body} snowman",
        "snowman with a {hat} hat and a {scarf} scarf",
        ("frosty snowman", "snow man"),
        ("man made of snow", "snow figure"),
        True,
        snowman,
    ),
)
