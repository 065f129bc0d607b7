"""The study that compares guidance schemes: how runs become figures."""

from pathlib import Path

import pytest
import torch

from choices import choices, composed

FOLDER = Path(__file__).resolve().parents[2] / "experiments" / "guidance"


@pytest.fixture(scope="module")
def compare(study):
    return study("compare")


def test_every_scheme_that_needs_no_source_is_a_row_and_every_row_composes(compare):
    assert {*choices("guidance")} - {*compare.SCHEMES} == {"dds", "pds", "perp_neg"}, (
        "the first two have a study of their own, the third is for priors that see no camera"
    )
    for name in compare.SCHEMES:
        composed(*compare.chosen(name), "prompt=a castle")


def test_steps_fit_the_budget(compare):
    eight = [8 * n for n in compare.PROBES]
    assert compare.fitting(eight) == compare.BUDGET / 8
    assert compare.fitting([100, 100]) is None


def test_prompts_weigh_alike_however_many_seeds_they_have(compare):
    runs = {"sds | castle | 0": {"subject": 1.0}, **{f"sds | dog | {seed}": {"subject": 0.0} for seed in range(5)}}
    assert compare.mean(runs, "subject") == 0.5
    assert compare.mean({"sds | dog | 0": {"subject": 1.0, "janus": None}}, "janus") is None


def test_what_shows_something_else_has_neither_colour_nor_front(compare):
    runs = {
        "sds | castle | 0": {"subject": 1.0, "colour": 1.0, "janus": 0.5, "saturation": 0.2},
        "sds | dog | 0": {"subject": 0.4, "colour": 1.0, "janus": 0.0, "saturation": 0.4},
    }
    found = {name: compare.mean(runs, name) for name in ("colour", "janus", "saturation")}
    assert found == {"colour": 0.5, "janus": 0.5, "saturation": pytest.approx(0.3)}


def test_saturations_are_compared_as_distributions(compare):
    x = torch.rand(5000, generator=torch.Generator().manual_seed(0))
    assert compare.wasserstein(x, x[torch.randperm(5000)]) == 0
    assert compare.wasserstein(x, x + 0.25) == pytest.approx(0.25, abs=1e-6)
    assert compare.wasserstein(x, x[:0]) is None


def test_failures_are_not_diversity(study, compare):
    common = study("common")
    good = {"subject": 1.0, "features": [0.0, 0.0]}
    runs = {}
    for subject in common.TWELVE[: compare.REPEATED]:
        for i in range(compare.OBJECTS):
            runs[f"toybox | {subject} | {i}"] = {"subject": 1.0, "features": [float(i), 0.0]}
        for seed in range(compare.SEEDS):
            runs[f"sds | {subject} | {seed}"] = good
    assert compare.diversity(runs, "toybox") == 1
    assert compare.diversity(runs, "sds") == 0
    failed = {"subject": 0.2, "features": [50.0, -50.0]}
    first = common.TWELVE[0]
    assert compare.diversity({**runs, f"sds | {first} | 3": failed}, "sds") == 0
    moved = {"subject": 0.9, "features": [1.0, 1.0]}
    assert compare.diversity({**runs, f"sds | {first} | 3": moved}, "sds") > 0
    assert compare.diversity({f"sds | {first} | 0": good}, "sds") is None


def test_edits_ask_for_what_the_prior_has_seen(study):
    from diffusion3d.data.toybox import heldout
    from diffusion3d.data.toybox.subjects import SUBJECTS

    edit = study("edit")
    for asked in edit.EDITS:
        [subject] = [subject for subject in SUBJECTS if subject.name == asked.subject]
        part, options = next(iter(subject.parts.items()))
        assert asked.colour in heldout.allowed(asked.subject, part, options), asked
