"""The scripts of the text-to-3D study: what they ask for, and what they write when nothing is measured."""

import importlib
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch

from diffusion3d.data.toybox import heldout

FOLDER = Path(__file__).parent.parent.parent / "experiments" / "text_to_3d"
MODULES = tuple(path.stem for path in FOLDER.glob("*.py"))


@pytest.fixture
def study(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


def test_what_is_drawn(study):
    module = study("evaluate_prior")
    found = module.items(module.chosen_subjects(None), samples=20, unseen=1, synonyms=1)
    assert Counter(item.group for item in found) == {"subjects": 640, "unseen": len(heldout.triples()), "synonyms": 30}
    seeds = [item.seed for item in found]
    assert len(set(seeds)) == len(seeds)
    for item in found:
        assert all(colour in item.prompt for colour in item.colours.values())
        held = {(item.subject, *pair) for pair in item.colours.items()} & heldout.triples()
        assert bool(held) == (item.group == "unseen"), item.prompt


@pytest.mark.parametrize("kind", ["a", "b"])
def test_recognisers_read_pictures_of_any_size(study, kind):
    reading = study("networks").Recogniser(kind).read(torch.rand(3, 3, 128, 128))
    assert reading.subject.shape == (3, 33) and reading.colour.shape == (3, 2, 13) and reading.azimuth.shape == (3,)


def test_pictures_of_something_and_of_nothing(study):
    torch.manual_seed(0)
    module = study("pictures")
    rgba = module.to_float(module.render_subject(0, 0, 1, 8, plain=True).rgba[0]).repeat(4, 1, 1, 1)
    for made in (module.vary(rgba), module.nothing(rgba)):
        assert made.shape == (32, 3, 64, 64) and 0 <= float(made.min()) <= float(made.max()) <= 1


def test_commands_are_shown_without_places(study):
    argv = ["/x/evaluate_prior.py", "--state", "/y/z", "--judges", "ab", "prior.weights=/y/w.safetensors"]
    shown = "python experiments/text_to_3d/evaluate_prior.py --judges ab prior.weights=w.safetensors"
    assert study("common").command(argv) == shown


def test_table_says_what_is_missing(study, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["table.py", "--results", str(tmp_path), "--out", str(tmp_path / "README.md")])
    study("table").main()
    assert (tmp_path / "README.md").read_text(encoding="utf-8").count("not yet measured") > 40


@pytest.mark.parametrize("name", MODULES)
def test_every_script_can_be_imported(study, name):
    assert study(name)
