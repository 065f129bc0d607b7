"""What the tests run under torchrun: trainings one after the other, and what every process says of them.

    torchrun tests/several.py JOBS.json: [{"typed": [overrides], "fault": null | "error" | "nan", "said": file}, ...]

Rank r writes to `said` + str(r): the class and message of what ended the run there, or its metrics.
"""

import json
import os
import sys
from pathlib import Path

import diffusion3d
from diffusion3d.data.base import InMemory

RANK = int(os.environ["RANK"])
BATCH = InMemory.batch


def spoiled(fault):
    """`InMemory.batch`, at fault from the second batch on in rank 1 alone."""
    count = 0

    def batch(self, indices, views, rng):
        nonlocal count
        made = BATCH(self, indices, views, rng)
        count += len(indices) > 0 and views.shape[1] > 0
        if fault and RANK == 1 and count == 2:
            if fault == "error":
                raise ValueError("the disk is on fire")
            made.images.fill_(float("nan"))
        return made

    return batch


for job in json.loads(Path(sys.argv[1]).read_text()):
    InMemory.batch = spoiled(job["fault"])
    try:
        said = {"metrics": diffusion3d.run(job["typed"])}
    except BaseException as error:
        said = {"kind": type(error).__name__, "message": str(error)}
    Path(f"{job['said']}{RANK}").write_text(json.dumps(said))
