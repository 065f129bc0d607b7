"""The walk-through's files, as they stand in it."""

import importlib
import re
from pathlib import Path

from diffusion3d.config import check, compose, hydra_app
from diffusion3d.overrides import to_hydra
from diffusion3d.tasks.build import build
from particles import make_prior

PAGE = (Path(__file__).parent.parent.parent / "experiments" / "add_a_guidance.md").read_text()


def test_the_scheme_is_as_short_as_promised_is_found_and_keeps_its_closed_form(tmp_path, monkeypatch):
    scheme, closed_form = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    node = re.search(r"```yaml\n(# .*?)```", PAGE, re.DOTALL)[1]
    assert scheme.count("\n") <= 60 and node.count("\n") <= 15
    (tmp_path / "asd.py").write_text(scheme)
    (tmp_path / "closed_form.py").write_text(closed_form)
    (tmp_path / "guidance").mkdir()
    (tmp_path / "guidance" / "asd.yaml").write_text(node)
    monkeypatch.syspath_prepend(tmp_path)
    with hydra_app() as app:
        config = compose(app, to_hydra([f"hydra.searchpath=[{tmp_path}]", "guidance=asd", "prompt=a castle"]))
        check(app, config, config.hydra)
    assert build(config.guidance, prior=make_prior()).eta == 0.1
    tests = importlib.import_module("closed_form")
    tests.test_it_rests_at_the_mean(0.3)
    tests.test_without_a_shift_only_the_guidance_is_left()
    tests.test_it_moves_towards_the_mean()
