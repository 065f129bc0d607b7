"""Captions name what is there, and never use what is kept for evaluation."""

import re

import numpy as np

from diffusion3d.data.toybox import captions, heldout
from diffusion3d.data.toybox.generate import draw
from diffusion3d.data.toybox.parts import COLOURS
from diffusion3d.data.toybox.subjects import SUBJECTS, subject_named


def test_phrases_of_a_castle_on_a_hill():
    found = draw(0, 0, subject="castle on a hill", colours={"walls": "grey", "roofs": "red", "hill": "green"}).phrases
    assert found["bare"][0] == "castle on a hill"
    assert found["main"][0] == "grey castle on a hill"
    assert found["full"] == ("grey castle with red roofs on a green hill",)
    assert "castle on a hill with grey walls, red roofs and a green hill" in found["reworded"]
    assert "castle on a hill, grey walls, red roofs, green hill" in found["reworded"]


def test_articles():
    assert captions.fill("{a}", "orange car") == "an orange car"
    assert captions.fill("the {phrase}", "orange car") == "the orange car"
    found = draw(0, 0, subject="car", colours={"body": "red", "roof": "orange"}).phrases
    assert "red car with an orange roof" in found["full"]
    assert "car with a red body and an orange roof" in found["reworded"]


def test_training_captions_avoid_evaluation_wordings_and_heldout_colours():
    rng = np.random.default_rng(0)
    words = re.compile(r"\b(" + "|".join(re.escape(w) for s in SUBJECTS for w in s.evaluation) + r")\b", re.IGNORECASE)
    fixed = [
        re.compile(".*".join(re.escape(piece) for piece in re.split(r"\{a\}|\{phrase\}", template) if piece.strip()))
        for template in captions.EVALUATION_TEMPLATES
    ]
    colours = re.compile(r"\b(" + "|".join(COLOURS) + r")\b")
    for i in range(50000):
        obj = draw(0, i)
        text = obj.caption(rng)
        assert not words.search(text), text
        assert not any(pattern.search(text) for pattern in fixed), text
        fixed_words = " ".join((subject_named(obj.subject).main, subject_named(obj.subject).full))
        assert set(colours.findall(text)) <= set(obj.colours.values()) | set(colours.findall(fixed_words)), text
        assert not re.search(r"\ba [aeiou]|\ban [^aeiou]|  |[{}_]", text), text


def test_evaluation_prompts_are_new_wordings_of_every_subject():
    prompts = captions.evaluation_prompts(SUBJECTS)
    assert {subject for subject, _ in prompts} == {subject.name for subject in SUBJECTS}
    assert ("castle", "a fortress") in prompts and ("castle", "an image showing a castle") in prompts
    seen = {draw(0, i).caption(np.random.default_rng(i)) for i in range(5000)}
    assert not seen & {prompt for _, prompt in prompts}


def test_shares_of_the_kinds():
    rng = np.random.default_rng(0)
    marked = {kind: (kind,) for kind in captions.KINDS}
    texts = [captions.compose(marked, rng) for _ in range(4000)]
    for kind, share in captions.KINDS.items():
        assert abs(np.mean([kind in text for text in texts]) - share) < 0.04
    assert sum(captions.KINDS.values()) == 1


def test_same_generator_same_caption():
    obj = draw(0, 7)
    assert obj.caption(np.random.default_rng(5)) == obj.caption(np.random.default_rng(5))
    assert heldout.triples()
