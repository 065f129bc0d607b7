"""Every file under conf/ can be chosen; what it names exists and takes its keys. The suites of the roles make the objects."""

import inspect
from collections.abc import Mapping

import pytest
from hydra.core.plugins import Plugins
from hydra.types import HydraContext
from hydra.utils import get_object
from omegaconf import OmegaConf

from diffusion3d.config import CONF_DIR, compose, hydra_app
from diffusion3d.tasks.build import RESERVED

FILES = sorted(path.relative_to(CONF_DIR).with_suffix("") for path in CONF_DIR.rglob("*.yaml"))
PACKAGES = {"density": "representation.density"}
"""Groups whose choices stand elsewhere in the config."""
PARTS = ("field", "distillation")
"""Groups that other groups' files take in."""


def targets(node):
    if isinstance(node, Mapping):
        if "_target_" in node:
            yield node
        for value in node.values():
            yield from targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from targets(value)


def composed(*overrides):
    with hydra_app() as app:
        multirun = any(override.startswith("hydra/") for override in overrides)
        return app, compose(app, ["prompt=a castle", *overrides], multirun=multirun)


@pytest.mark.parametrize("file", [file for file in FILES if file.parts[0] not in ("hydra", *PARTS)], ids=str)
def test_what_a_file_names_exists_and_takes_its_keys(file):
    group, choice = str(file.parent), file.name
    if group == ".":
        _, config = composed()
    elif group == "debug/task":
        _, config = composed("debug=fast", f"task={choice.removeprefix('fast_')}")
    else:
        key = f"{group}@{PACKAGES[group]}" if group in PACKAGES else group
        _, config = composed(f"{key}={choice}")
    content = OmegaConf.to_container(config, resolve=False)
    content.pop("hydra", None)
    for node in targets(content):
        found = get_object(node["_target_"])
        if node is not content["task"]:  # a task gets the whole config
            keys = [key for key in node if not key.startswith("_") and key not in RESERVED]
            inspect.signature(found).bind_partial(**dict.fromkeys(keys))


@pytest.mark.parametrize("file", [file for file in FILES if file.parts[0] == "hydra"], ids=str)
def test_launchers_and_sweepers_can_be_made(file):
    node = OmegaConf.load(CONF_DIR / file.with_suffix(".yaml"))
    pytest.importorskip(node._target_.rpartition(".")[0])
    app, config = composed(f"{file.parent}={file.name}")
    context = HydraContext(app.config_loader, None)
    made = Plugins.instance().instantiate_sweeper(config=config, hydra_context=context, task_function=print)
    assert type(made).__module__.startswith("hydra")
