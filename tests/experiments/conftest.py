"""The scripts of a study as modules."""

import importlib
import sys

import pytest


@pytest.fixture(scope="module")
def study(request):
    """{module name -> module} of the folder that a test module names FOLDER, gone when its tests are done."""
    folder = request.module.FOLDER
    before, known = list(sys.path), set(sys.modules)
    sys.path.insert(0, str(folder))
    yield importlib.import_module
    sys.path[:] = before
    for name in set(sys.modules) - known:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(folder.parent)):
            del sys.modules[name]
