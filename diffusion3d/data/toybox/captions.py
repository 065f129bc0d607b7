"""Captions that name what is really there: phrases without article, put into templates."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from diffusion3d.data.toybox.parts import Subject

KINDS = {"bare": 0.2, "main": 0.2, "full": 0.4, "reworded": 0.2}
"""Kind of phrase -> its share. bare: the noun; main: with the main colour; full: with the colours of all parts that
have a choice; reworded: the same in another order."""

TEMPLATES = {
    "{a}": 10,
    "{phrase}": 4,
    "the {phrase}": 1,
    "a small {phrase}": 1,
    "a toy {phrase}": 1,
    "a photo of {a}": 1,
    "a picture of {a}": 1,
    "a rendering of {a}": 1,
    "a 3D model of {a}": 1,
    "{phrase}, toy style": 1,
    "{a} on a plain background": 1,
    "one {phrase}": 1,
}
"""Template of training captions -> its weight."""

EVALUATION_TEMPLATES = (
    "an image showing {a}",
    "{a} as a toy figurine",
    "a sculpture of {a}",
    "here we see {a}",
    "{a}, isometric game asset",
    "a low-poly {phrase}",
)
"""Templates that no training caption uses."""

_KIND_LIMITS = np.cumsum(list(KINDS.values()))
_TEMPLATE_NAMES = tuple(TEMPLATES)
_TEMPLATE_LIMITS = np.cumsum(list(TEMPLATES.values())) / sum(TEMPLATES.values())
_UNCOUNTED = frozenset({"icing", "foliage", "fur", "trim", "hair", "cream", "frosting"})

Phrases = Mapping[str, Sequence[str]]


def with_article(phrase: str) -> str:
    """The phrase with "a" or "an"."""
    return f"{'an' if phrase[0].lower() in 'aeiou' else 'a'} {phrase}"


def fill(template: str, phrase: str) -> str:
    """A template around a phrase."""
    return template.format(phrase=phrase, a=with_article(phrase))


def phrases(subject: Subject, colours: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
    """All phrases of every kind for a subject with these colours, under all its training names."""
    names = (subject.name, *subject.words)
    chosen = [
        (part.replace("_", " "), colours[part]) for part, options in subject.parts.items() if len(set(options)) > 1
    ]
    found = {"bare": names}
    for kind, form in (("main", subject.main), ("full", subject.full)):
        phrase = re.sub(r"\b(a|an) (?=\{(\w+)\})", lambda m: with_article(colours[m[2]]).split(" ")[0] + " ", form)
        phrase = phrase.format(**colours)
        found[kind] = tuple(dict.fromkeys(phrase.replace(subject.name, name) for name in names))
    plain = [f"{colour} {part}" for part, colour in chosen]
    counted = [p if p.endswith("s") or p.split(" ")[-1] in _UNCOUNTED else with_article(p) for p in plain]
    joined = counted[0] if len(counted) < 2 else ", ".join(counted[:-1]) + " and " + counted[-1]
    found["reworded"] = tuple(text for name in names for text in (f"{name} with {joined}", ", ".join([name, *plain])))
    return found


def compose(found: Phrases, rng: np.random.Generator) -> str:
    """A random training caption from phrases; half of those that have a choice use the subject's own name."""
    draws = rng.random(4)
    kinds = tuple(KINDS)
    pool = found[kinds[min(int(np.searchsorted(_KIND_LIMITS, draws[0], side="right")), len(kinds) - 1)]]
    phrase = pool[0] if draws[1] < 0.4 else pool[int(draws[2] * len(pool))]
    template = _TEMPLATE_NAMES[min(int(np.searchsorted(_TEMPLATE_LIMITS, draws[3], side="right")), len(TEMPLATES) - 1)]
    return fill(template, phrase)


def evaluation_prompts(subjects: Iterable[Subject]) -> tuple[tuple[str, str], ...]:
    """(subject, prompt) in wordings that no training caption uses: other names, and other templates."""
    return tuple(
        (subject.name, prompt)
        for subject in subjects
        for prompt in (
            *(with_article(name) for name in subject.evaluation),
            *(fill(template, subject.name) for template in EVALUATION_TEMPLATES),
        )
    )
