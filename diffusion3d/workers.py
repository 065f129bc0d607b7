"""Processes that a launcher starts on this machine."""

from __future__ import annotations

import ctypes
import signal
import sys

ON_PARENTS_DEATH = 1
"""PR_SET_PDEATHSIG of prctl(2)."""


def end_with_parent() -> None:
    """From now on let this process be killed when the one that started it ends, however that ends, so that no job goes on alone
    and holds its directory. Linux alone can do this; elsewhere a job that has lost its sweep goes on to its end."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(ON_PARENTS_DEATH, signal.SIGKILL)
