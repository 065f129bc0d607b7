"""Errors that a user sees as one line."""

from __future__ import annotations

import errno
import re

HINT = " (traceback in run.log)"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
OUT_OF_MEMORY = re.compile(r"DefaultCPUAllocator|out of memory", re.IGNORECASE)
"""What torch's plain RuntimeErrors say."""


class UserError(Exception):
    """Bad input; the message says in one line what is wrong and what would work."""

    exit_code = 2


class RunError(UserError):
    """A run that had to stop, with the reason in one line."""

    exit_code = 1


class Interrupted(KeyboardInterrupt):
    """A run stopped by a signal after it saved its state; the message says how to continue."""

    def __init__(self, message: str, signum: int) -> None:
        super().__init__(message, signum)  # both, so that it can be pickled
        self.exit_code = 128 + signum

    def __str__(self) -> str:
        return str(self.args[0])


def one_line(text: object) -> str:
    """The text with all its white space, newlines included, folded into single blanks."""
    return " ".join(str(text).split())


def unwritable(error: OSError, path: object) -> UserError:
    """The error for an output directory that cannot be written."""
    return UserError(
        f"cannot write {error.filename or path}: {error.strerror}; choose another place, such as paths.output=outputs"
    )


def exhausted(error: BaseException) -> RunError | None:
    """The RunError for an error that says that a disk is full or memory is out; None for any other."""
    if isinstance(error, OSError) and error.errno in FULL:
        place = f" to {error.filename}" if error.filename else ""
        return RunError(
            f"cannot write{place}: {error.strerror}; make room and go on with run.resume=DIR, from the last checkpoint if "
            "there was one"
        )
    said_so = isinstance(error, RuntimeError) and OUT_OF_MEMORY.search(str(error))
    if said_so or isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno == errno.ENOMEM):
        size = re.search(r"to allocate ([\d.]+ \w+)", str(error))
        return RunError(
            f"out of memory{f' for {size[1]}' if size else ''}; lower what is held at once: camera.size, camera.views or "
            "representation.count of a distillation, task.views, task.pixels or data.size of a fit, task.batches of a "
            "training, task.views of samples, task.size of videos, task.size, task.views or task.resolution of an export; "
            "checkpoints are kept"
        )
    return None


def user_error(error: Exception) -> Exception:
    """The UserError that caused an error (Hydra wraps what constructors raise), that for what the machine is out of, or the
    error itself."""
    cause: BaseException | None = error
    while cause is not None:
        found = cause if isinstance(cause, UserError) else exhausted(cause)
        if found is not None:
            return found
        cause = cause.__cause__
    return error


def summary(error: Exception) -> str:
    """An error in one line."""
    return one_line(error) if isinstance(error, UserError) else f"{type(error).__name__}: {one_line(error)}"


def describe(error: Exception) -> str:
    """An error in one line, and where more is to be found of one that is nobody's wrong input."""
    return summary(error) + ("" if isinstance(error, UserError) else HINT)


def unexpected(line: str) -> bool:
    """Whether `describe` made this line of an error that is nobody's wrong input."""
    return line.endswith(HINT)
