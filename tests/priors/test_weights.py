"""Weights files, whole and half."""

import sys

import pytest
import torch

from diffusion3d.priors.weights import read_weights, write_weights


@pytest.mark.skipif(sys.platform != "linux", reason="sets a limit to the size of files")
def test_weights_that_are_written_half_are_readable(tmp_path):
    """The second writer is stopped between the weights, which are new, and the JSON beside them."""
    import resource

    path, before = tmp_path / "w.safetensors", resource.getrlimit(resource.RLIMIT_FSIZE)
    write_weights(path, torch.nn.Linear(3, 2), {"steps": 7})
    module = torch.nn.Linear(3, 2)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2000, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_weights(path, module, {"steps": "8" * 2000})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    state, facts = read_weights(path, module)
    torch.testing.assert_close(state["weight"], module.weight.detach(), atol=1e-3, rtol=1e-3)
    assert facts.keys() == {"sha256"} and [*tmp_path.iterdir()] == [path]
