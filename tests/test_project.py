"""The project's files agree with each other."""

import sys
from pathlib import Path

import pytest
import yaml

import diffusion3d

ROOT = Path(__file__).parent.parent
tomllib = pytest.importorskip("tomllib", reason="part of Python from 3.11 on") if sys.version_info < (3, 11) else None
if tomllib is None:
    import tomllib

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def test_environment_is_what_pyproject_says():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    [pip] = [item["pip"] for item in environment["dependencies"] if isinstance(item, dict)]
    project = PROJECT["project"]
    assert pip == project["dependencies"] + project["optional-dependencies"]["test"]
    assert f"python{project['requires-python']}" in environment["dependencies"]


def test_every_package_is_in_the_wheel():
    listed = PROJECT["tool"]["setuptools"]["packages"]
    files = [path.relative_to(ROOT).parent for path in (ROOT / "diffusion3d").rglob("*.py")]
    assert sorted({".".join(file.parts) for file in files} | {"diffusion3d.conf"}) == sorted(listed)


def test_version_is_the_same_everywhere():
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == diffusion3d.__version__


def test_dependencies_are_bounded_on_both_sides():
    for requirement in PROJECT["project"]["dependencies"]:
        assert "==" in requirement or ("<" in requirement and ">=" in requirement), requirement
