"""Four-legged animals."""

from __future__ import annotations

import numpy as np

from diffusion3d.data.toybox.organic import DARK, SIDES, C, ear, eyes, limb, sweep
from diffusion3d.data.toybox.parts import Subject

PINK = np.array([0.95, 0.62, 0.64])


def corgi(b, colour, rng):
    """A long low body on short legs, white chest, neck and socks, a fox-like head with big upright ears."""
    fur, white = colour["fur"] * (1.0, 0.94, 0.82), C["white"]
    e, h, r, a = rng.uniform(0.5, 0.62), rng.uniform(0.3, 0.38), rng.uniform(0.35, 0.4), rng.uniform(0.36, 0.46)
    z = h + 0.28
    spine = [
        (-e, z + 0.02, r - 0.03),
        (-0.45 * e, z + 0.02, r),
        (0.1 * e, z, r - 0.01),
        (0.6 * e, z + 0.03, r),
        (e, z + 0.08, r - 0.04),
    ]
    sweep(b, [(u, 0, v, q) for u, v, q in spine], fur, "body")
    b.ellipsoid((e + 0.05, r * 0.86, r * 0.8), white, "belly", (0, 0, z - 0.12))
    b.ellipsoid((0.3, r * 0.94, 0.38), white, "chest", (e + 0.1, 0, z + 0.05))
    x, top = e + 0.24, z + 0.6
    sweep(b, [(e - 0.08, 0, z + 0.1, 0.34), (x - 0.1, 0, top - 0.32, 0.31), (x, 0, top - 0.05, 0.26)], white, "chest")
    b.torus(0.325, 0.07, colour["collar"], "collar", (x - 0.11, 0, top - 0.28), (0, 22, 0))
    b.ellipsoid((0.07, 0.09, 0.09), C["yellow"], "collar", (x + 0.26, 0, top - 0.46), subdivisions=2)
    for s in SIDES:
        y = s * (r - 0.12)
        for u, thigh in ((e - 0.02, 0.17), (-e + 0.02, 0.22)):
            b.ellipsoid((thigh + 0.02, 0.15, 0.26), fur, "leg", (u - 0.03, y, z - 0.06))
            limb(b, (u, y, z - 0.2), (u, y, 0.12), 0.14, 0.13, white, "leg")
            b.ellipsoid((0.19, 0.15, 0.11), white, "leg", (u + 0.06, y, 0.11), subdivisions=2)
        b.ellipsoid((0.15, 0.18, 0.24), white, "rump", (-e - 0.2, s * 0.15, z - 0.05), subdivisions=2)
    limb(b, (-e - 0.22, 0, z + 0.2), (-e - 0.34, 0, z + 0.32), 0.13, 0.11, fur, "tail")
    b.ellipsoid((0.1, 0.1, 0.1), white, "tail", (-e - 0.39, 0, z + 0.38), subdivisions=2)
    b.ellipsoid((0.35, 0.42, 0.35), fur, "head", (x + 0.04, 0, top + 0.08))
    for s in SIDES:
        b.ellipsoid((0.23, 0.22, 0.19), white, "face", (x + 0.14, s * 0.21, top - 0.08))
        ear(b, (x, s * 0.25, top + 0.24), (x - 0.02, s * 0.44, top + 0.32 + a), 0.46, 0.19, fur, PINK)
    snout = [
        (x + 0.18, top - 0.05, 0.24, 0.2),
        (x + 0.42, top - 0.09, 0.165, 0.145),
        (x + 0.56, top - 0.1, 0.12, 0.105),
    ]
    sweep(b, [(u, 0, v, p, q) for u, v, p, q in snout], white, "face")
    blaze = [
        (x + 0.33, top + 0.04, 0.1, 0.06),
        (x + 0.31, top + 0.22, 0.085, 0.07),
        (x + 0.17, top + 0.38, 0.055, 0.05),
    ]
    sweep(b, [(u, 0, v, p, q) for u, v, p, q in blaze], white, "face")
    b.ellipsoid((0.09, 0.115, 0.09), DARK, "nose", (x + 0.66, 0, top - 0.04), subdivisions=2)
    eyes(b, x + 0.31, 0.2, top + 0.13, 0.08)
    if rng.random() < 0.6:
        b.ellipsoid((0.15, 0.09, 0.04), PINK * (1, 0.75, 0.8), "tongue", (x + 0.5, 0, top - 0.23), (0, 35, 0), 2)


def cat(b, colour, rng):
    """A sitting cat with pointed ears, bright eyes and its tail raised beside it."""
    fur, light = colour["fur"], C["white"]
    k, w, t = rng.uniform(0.9, 1.1), rng.uniform(0.92, 1.08), rng.uniform(0.85, 1.15)
    iris = C[("green", "yellow")[int(rng.integers(2))]] * 1.1
    top = 1.02 * k + 0.36
    sweep(
        b,
        [
            (-0.12, 0, 0.33, 0.4 * w),
            (-0.04, 0, 0.55 * k, 0.37 * w),
            (0.06, 0, 0.85 * k, 0.28 * w),
            (0.12, 0, 1.1 * k, 0.22),
        ],
        fur,
        "body",
    )
    b.ellipsoid((0.16, 0.19, 0.3), light, "chest", (0.27, 0, 0.76 * k), (0, -12, 0))
    b.ellipsoid((0.36, 0.43, 0.35), fur, "head", (0.2, 0, top))
    for s in SIDES:
        b.ellipsoid((0.34, 0.18, 0.3), fur, "leg", (-0.02, s * 0.3 * w, 0.3))
        b.ellipsoid((0.19, 0.12, 0.1), light, "leg", (0.3, s * 0.34 * w, 0.1), subdivisions=2)
        limb(b, (0.24, s * 0.14, 0.75 * k), (0.38, s * 0.14, 0.16), 0.12, 0.1, fur, "leg")
        b.ellipsoid((0.15, 0.115, 0.1), light, "leg", (0.44, s * 0.135, 0.1), subdivisions=2)
        ear(b, (0.14, s * 0.24, top + 0.2), (0.1, s * 0.38, top + 0.56), 0.36, 0.13, fur, PINK)
        b.ellipsoid((0.12, 0.13, 0.1), light, "face", (0.48, s * 0.09, top - 0.13), subdivisions=2)
    b.ellipsoid((0.06, 0.07, 0.05), PINK * 0.9, "nose", (0.59, 0, top - 0.06), subdivisions=2)
    eyes(b, 0.47, 0.18, top + 0.06, 0.115, iris)
    b.torus(0.25, 0.065, colour["collar"], "collar", (0.12, 0, top - 0.3), (0, 8, 0))
    b.ellipsoid((0.09, 0.09, 0.09), C["yellow"], "collar", (0.4, 0, top - 0.38), subdivisions=2)
    side = SIDES[int(rng.integers(2))]
    tail = [
        (-0.35, 0, 0.14),
        (-0.6, side * 0.22, 0.13),
        (-0.66, side * 0.52, 0.32 * t),
        (-0.58, side * 0.6, 0.72 * t),
        (-0.62, side * 0.66, 1.0 * t),
    ]
    sweep(b, [(*p, 0.105) for p in tail], fur, "tail", (0.3, 0.8, 0.5))
    limb(b, tail[-1], np.add(tail[-1], (-0.03, side * 0.03, 0.12)), 0.115, 0.08, light, "tail")
    if rng.random() < 0.6:
        for z, x, r in ((0.45, -0.47, 0.25), (0.68, -0.33, 0.22), (0.9, -0.2, 0.17)):
            b.ellipsoid((0.07, r * w, 0.055), fur * 0.55, "body", (x * w, 0, z * k), (0, 25, 0), 2)
        for y in (-0.13, 0, 0.13):
            b.ellipsoid((0.13, 0.035, 0.06), fur * 0.55, "head", (0.32, y, top + 0.29 - abs(y) * 0.2), (0, 35, 0), 2)


def horse(b, colour, rng):
    """A standing horse with an arched neck, a mane, a long tail and dark hooves."""
    coat, mane = colour["coat"], colour["mane"]
    h, e, r = rng.uniform(0.62, 0.76), rng.uniform(0.4, 0.48), rng.uniform(0.34, 0.39)
    z = h + 0.2
    sweep(b, [(-e, 0, z + 0.06, r, r), (0, 0, z, r * 0.95, r), (e, 0, z + 0.06, r * 0.95, r)], coat, "body")
    x, top = e + 0.5, z + rng.uniform(0.8, 0.92)
    sweep(
        b,
        [
            (e + 0.02, 0, z + 0.15, 0.24, 0.32),
            (e + 0.26, 0, z + 0.45, 0.18, 0.24),
            (x - 0.08, 0, top - 0.05, 0.17, 0.2),
        ],
        coat,
        "neck",
    )
    sweep(
        b,
        [(x - 0.06, 0, top, 0.22, 0.22), (x + 0.22, 0, top - 0.16, 0.17, 0.17), (x + 0.4, 0, top - 0.32, 0.15, 0.13)],
        coat,
        "head",
    )
    b.ellipsoid((0.17, 0.18, 0.155), coat * 0.55 + 0.12, "muzzle", (x + 0.43, 0, top - 0.34), (0, 40, 0))
    sweep(
        b,
        [(x + 0.12, 0, top + 0.08, 0.05), (x + 0.24, 0, top - 0.01, 0.075), (x + 0.4, 0, top - 0.17, 0.055)],
        C["white"],
        "blaze",
    )
    for s in SIDES:
        for u in (e + 0.04, -e - 0.08):
            b.ellipsoid((0.19, 0.15, 0.3), coat, "leg", (u, s * (r - 0.12), z - 0.12))
            limb(b, (u, s * (r - 0.11), z - 0.2), (u, s * (r - 0.11), 0.2), 0.145, 0.11, coat, "leg")
            b.cone(0.17, 0.2, C["black"] * 1.5, "hoof", (u + 0.02, s * (r - 0.11), 0.1), top=0.13)
        limb(b, (x - 0.08, s * 0.13, top + 0.14), (x - 0.1, s * 0.17, top + 0.36), 0.085, 0.035, coat, "ear")
        b.ellipsoid((0.085, 0.06, 0.09), DARK, "eye", (x + 0.1, s * 0.18, top + 0.02), subdivisions=2)
    crest = [
        (x + 0.04, top + 0.2),
        (x - 0.16, top + 0.18),
        (x - 0.3, top - 0.1),
        (e + 0.06, z + 0.5),
        (e - 0.16, z + 0.36),
    ]
    sweep(
        b, [(u, 0, v, 0.085, q) for (u, v), q in zip(crest, (0.06, 0.12, 0.15, 0.15, 0.08), strict=True)], mane, "mane"
    )
    tail = [
        (-e - 0.24, z + 0.26, 0.09),
        (-e - 0.44, z + 0.2, 0.11),
        (-e - 0.52, z - 0.15, 0.15),
        (-e - 0.5, z - 0.5, 0.07),
    ]
    sweep(b, [(u, 0, v, q) for u, v, q in tail], mane, "tail")


def elephant(b, colour, rng):
    """A heavy grey-like animal with a trunk, tusks, huge ears and a blanket on its back."""
    skin, cloth = colour["body"], colour["blanket"]
    h, r, e = rng.uniform(0.5, 0.6), rng.uniform(0.56, 0.62), rng.uniform(0.3, 0.4)
    z = h + 0.42
    sweep(b, [(-e, 0, z, r), (0, 0, z + 0.02, r), (e, 0, z + 0.02, r)], skin, "body", n=20)
    angle = np.deg2rad(np.linspace(-12, 192, 15))
    for grow, half, c in ((1.05, e * 0.98, C["yellow"]), (1.075, e * 0.7, cloth)):
        u = r * grow
        b.loft([[(x, u * np.cos(a), z + 0.015 + u * np.sin(a)) for a in angle] for x in (-half, half)], c, "blanket")
    x, top = e + r + 0.14, z + 0.36
    b.ellipsoid((0.42, 0.42, 0.44), skin, "head", (x, 0, top))
    w = rng.uniform(0.42, 0.5)
    for s in SIDES:
        for u in (e + 0.1, -e - 0.14):
            b.cylinder(0.215, z, skin, "leg", (u, s * 0.33, z / 2))
            for v in (-0.12, 0, 0.12):
                b.ellipsoid(
                    (0.06, 0.06, 0.065), C["white"], "toe", (u + 0.19 - abs(v) * 0.3, s * 0.33 + v, 0.06), (0, 0, 0), 1
                )
        b.ellipsoid((0.09, w, w * 1.1), skin, "ear", (x - 0.14, s * (0.3 + w * 0.85), top + 0.02), (0, 0, s * 22))
        b.ellipsoid(
            (0.07, w * 0.72, w * 0.8),
            PINK * 0.6 + skin * 0.4,
            "ear",
            (x - 0.08, s * (0.3 + w * 0.87), top),
            (0, 0, s * 22),
        )
        limb(b, (x + 0.28, s * 0.22, top - 0.24), (x + 0.66, s * 0.3, top - 0.3), 0.1, 0.055, C["white"], "tusk")
    eyes(b, x + 0.32, 0.25, top + 0.12, 0.075)
    g = rng.uniform(-0.05, 0.12)
    trunk = [
        (x + 0.28, top - 0.05, 0.22),
        (x + 0.52, top - 0.22, 0.17),
        (x + 0.6, top - 0.52, 0.14),
        (x + 0.68, 0.44, 0.125),
        (x + 0.92, 0.36 + g, 0.11),
    ]
    sweep(b, [(u, 0, v, q) for u, v, q in trunk], skin, "trunk")
    sweep(
        b,
        [(-e - r + 0.04, 0, z + 0.15, 0.07), (-e - r - 0.12, 0, z - 0.1, 0.06), (-e - r - 0.12, 0, z - 0.35, 0.055)],
        skin,
        "tail",
    )
    b.ellipsoid((0.09, 0.09, 0.13), DARK + 0.1, "tail", (-e - r - 0.12, 0, z - 0.42), subdivisions=2)


def rabbit(b, colour, rng):
    """A crouching rabbit with long upright ears, big hind feet and a round white tail."""
    fur, light = colour["fur"], C["white"]
    k, a, w = rng.uniform(0.92, 1.08), rng.uniform(0.72, 0.95), rng.uniform(0.92, 1.08)
    sweep(b, [(-0.32, 0, 0.5, 0.43 * w, 0.45), (0, 0, 0.56, 0.4 * w, 0.43), (0.3, 0, 0.68, 0.29, 0.33)], fur, "body")
    b.ellipsoid((0.2, 0.25, 0.28), light, "chest", (0.46, 0, 0.62))
    x, top = 0.46, 0.82 + 0.32 * k
    b.ellipsoid((0.34, 0.33, 0.32), fur, "head", (x, 0, top))
    b.torus(0.25, 0.07, colour["ribbon"], "ribbon", (x - 0.08, 0, top - 0.27), (0, 14, 0))
    for s in SIDES:
        b.ellipsoid((0.09, 0.16, 0.12), colour["ribbon"], "ribbon", (x + 0.26, s * 0.14, top - 0.34), (s * 15, 0, 0), 2)
        ear(b, (x - 0.08, s * 0.14, top + 0.2), (x - 0.22, s * 0.27, top + 0.24 + a), 0.25, 0.13, fur, PINK)
        b.ellipsoid((0.13, 0.13, 0.11), light, "face", (x + 0.26, s * 0.1, top - 0.1), subdivisions=2)
        b.ellipsoid((0.38, 0.17, 0.34), fur, "leg", (-0.24, s * 0.34 * w, 0.38))
        b.ellipsoid((0.3, 0.13, 0.1), light, "leg", (0.06, s * 0.38 * w, 0.1))
        limb(b, (0.36, s * 0.15, 0.55), (0.48, s * 0.15, 0.12), 0.12, 0.1, fur, "leg")
        b.ellipsoid((0.15, 0.11, 0.09), light, "leg", (0.54, s * 0.15, 0.09), subdivisions=2)
    b.ellipsoid((0.07, 0.075, 0.055), PINK * 0.9, "nose", (x + 0.36, 0, top - 0.01), subdivisions=2)
    b.box((0.06, 0.11, 0.12), light, "face", (x + 0.33, 0, top - 0.2))
    eyes(b, x + 0.21, 0.22, top + 0.09, 0.085)
    b.ellipsoid((0.21, 0.21, 0.21), light, "tail", (-0.8, 0, 0.5))


SUBJECTS: tuple[Subject, ...] = (
    Subject(
        "standing corgi dog",
        {"fur": ("tan",), "collar": ("red", "blue", "green", "purple", "cyan", "pink")},
        "{fur} standing corgi dog",
        "standing corgi dog with a {collar} collar",
        ("corgi", "welsh corgi", "dog"),
        ("puppy", "hound"),
        True,
        corgi,
        2.0,
    ),
    Subject(
        "cat",
        {
            "fur": ("orange", "grey", "black", "white", "brown", "tan"),
            "collar": ("red", "blue", "green", "purple", "pink", "cyan"),
        },
        "{fur} cat",
        "{fur} cat with a {collar} collar",
        ("sitting cat", "house cat", "kitty"),
        ("kitten", "feline"),
        True,
        cat,
    ),
    Subject(
        "horse",
        {
            "coat": ("brown", "white", "black", "grey", "tan", "orange"),
            "mane": ("black", "white", "brown", "yellow", "pink"),
        },
        "{coat} horse",
        "{coat} horse with a {mane} mane",
        ("pony", "standing horse"),
        ("stallion", "mare"),
        True,
        horse,
    ),
    Subject(
        "elephant",
        {
            "body": ("grey", "grey", "blue", "pink", "purple", "brown", "cyan"),
            "blanket": ("red", "blue", "green", "orange", "purple"),
        },
        "{body} elephant",
        "{body} elephant with a {blanket} blanket",
        ("big elephant", "circus elephant"),
        ("pachyderm", "animal with a trunk and tusks"),
        True,
        elephant,
    ),
    Subject(
        "rabbit",
        {
            "fur": ("white", "grey", "brown", "pink", "tan", "black"),
            "ribbon": ("red", "blue", "green", "purple", "yellow"),
        },
        "{fur} rabbit",
        "{fur} rabbit with a {ribbon} ribbon",
        ("bunny", "bunny rabbit"),
        ("hare", "cottontail"),
        True,
        rabbit,
    ),
)
