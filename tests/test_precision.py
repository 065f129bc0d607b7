import pytest
import torch

from diffusion3d.errors import UserError
from diffusion3d.precision import compute_dtype


def test_a_precision_is_what_it_says():
    cpu = torch.device("cpu")
    assert compute_dtype(cpu, "fp32") == torch.float32 and compute_dtype(cpu, "bf16") == torch.bfloat16
    assert compute_dtype(cpu, "fp16") == torch.float16
    with pytest.raises(UserError, match="precision=fp8 is not one of auto, fp32, bf16, fp16"):
        compute_dtype(cpu, "fp8")
