"""Several processes that train together, as torchrun starts them; all of this is nothing to a process alone.

Every process draws the random numbers of the whole batch and computes a share of its scenes, so that a training depends on
their number by rounding alone. Rank 0 writes. Whenever processes meet they first tell each other whether one of them has
failed: an error anywhere ends all of them, and none is left waiting.
"""

from __future__ import annotations

import atexit
import os
import signal
import traceback
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from diffusion3d.errors import RunError, UserError, one_line, summary, user_error

if TYPE_CHECKING:
    import torch

T = TypeVar("T")

PATIENCE = timedelta(days=1)
"""How long processes wait for one that validates or exports; one that has died ends the others at once."""

_last: Any = None
"""The group in which all wait for one another at the end."""
_ended = False
"""Whether the processes know of an error that ends them."""
_lost = False
"""Whether one of them has gone without a word."""


def count() -> int:
    """How many there are."""
    return int(os.environ.get("WORLD_SIZE", "1")) if "RANK" in os.environ else 1


def rank() -> int:
    """Which one this is, from 0."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def join() -> None:
    """Find the others. At its end this process waits for them, so that torchrun stops none that is still writing."""
    global _last
    if count() == 1:
        return
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        cuda = torch.cuda.is_available() and dist.is_nccl_available()
        dist.init_process_group("cpu:gloo,cuda:nccl" if cuda else "gloo", timeout=PATIENCE)
        _last = dist.new_group(backend="gloo", timeout=PATIENCE)
        atexit.register(_leave)


def _leave() -> None:
    import torch.distributed as dist

    if not _lost:
        with suppress(RuntimeError):
            dist.barrier(_last)  # holds no tensor, which gloo's thread might let go of when the interpreter has ended
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    dist.destroy_process_group()


@contextmanager
def together() -> Iterator[None]:
    """What all processes do: an error that ends it in one of them ends it in all."""
    global _ended
    if count() == 1:
        yield
        return
    join()
    _ended = False
    try:
        yield
    except BaseException as error:
        if not _ended:
            with suppress(RunError):
                _meet(error=error)
        raise
    meet()


def meet() -> None:
    """Wait for the others.

    Raises:
        UserError, KeyboardInterrupt: what ended one of them.
    """
    _meet()


def largest(number: int) -> int:
    """The largest of the numbers that they bring."""
    return _meet(number)[0]


def own_device(device: torch.device) -> torch.device:
    """The device of this process, of the kind that the run uses.

    Raises:
        UserError: there is none for it.
    """
    import torch

    if count() == 1 or device.type == "cpu":
        return device
    number = int(os.environ.get("LOCAL_RANK", rank()))
    if device.type != "cuda" or number >= torch.cuda.device_count():
        raise UserError(
            f"device={device.type}: there is none for process {number + 1} of this machine; start one for each CUDA device "
            "(torchrun --nproc_per_node=N), or set device=cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def from_first(compute: Callable[[], T]) -> T:
    """What rank 0 computes, in all of them."""
    if count() == 1:
        return compute()
    import torch.distributed as dist

    found: list[Any] = [compute() if rank() == 0 else None]
    meet()
    with _others():
        dist.broadcast_object_list(found, src=0)
    return found[0]


@contextmanager
def in_turn() -> Iterator[None]:
    """Let one after the other do it, in the order of their ranks."""
    for _ in range(rank()):
        meet()
    yield
    for _ in range(rank(), count()):
        meet()


def total(values: torch.Tensor) -> torch.Tensor:
    """The sum over all processes."""
    if count() == 1:
        return values
    import torch.distributed as dist

    meet()
    with _others():
        dist.all_reduce(values)
    return values


def total_gradients(parameters: Sequence[torch.nn.Parameter]) -> None:
    """Put the sum over all processes in the place of every gradient.

    Raises:
        RunError: the processes have drawn different random numbers.
    """
    if count() == 1:
        return
    import torch

    drawn = zlib.crc32(torch.get_rng_state().numpy().tobytes())
    high, low = _meet(drawn)
    if high != low:
        raise RunError(
            "the processes drew different random numbers: an objective must draw for the whole batch (Share.own), and a "
            "network with dropout can only be trained by one process"
        )
    gradients = [p.new_zeros(p.shape) if p.grad is None else p.grad for p in parameters]
    given = torch.tensor([float(p.grad is not None) for p in parameters], device=gradients[0].device)
    flat = total(torch.cat([given, *(gradient.reshape(-1) for gradient in gradients)]))
    anywhere, *sums = flat.split([len(parameters), *(p.numel() for p in parameters)])
    for parameter, gradient, found, there in zip(parameters, gradients, sums, anywhere.tolist(), strict=True):
        if there:
            parameter.grad = gradient.copy_(found.view(gradient.shape))


def _meet(number: int = 0, error: BaseException | None = None) -> tuple[int, int]:
    """Tell the others of an error, or hear of theirs; the largest and the smallest number that they bring."""
    global _ended
    if count() == 1:
        return number, number
    import torch
    import torch.distributed as dist

    status = torch.tensor([int(error is not None), number, -number])
    with _others():
        dist.all_reduce(status, dist.ReduceOp.MAX)
        failed, high, low = status.tolist()
        if failed:
            _ended = True
            told: list[Any] = [None] * count()
            dist.all_gather_object(told, None if error is None else _portable(error))
    if failed and error is None:
        reason, trace = next(item for item in told if item is not None)
        raise reason from RuntimeError(trace)
    return high, -low


def _portable(error: BaseException) -> tuple[BaseException, str]:
    """An error as another process can raise it, and its traceback."""
    known = user_error(error) if isinstance(error, Exception) else error
    if not isinstance(known, UserError | KeyboardInterrupt):
        known = RunError(f"in process {rank()}: {summary(known)}" if isinstance(known, Exception) else repr(known))
    return known, "".join(traceback.format_exception(error))


@contextmanager
def _others() -> Iterator[None]:
    """Where a process is waited for that may have gone."""
    global _ended, _lost
    try:
        yield
    except RuntimeError as error:
        _ended = _lost = True
        raise RunError(
            f"another process has gone ({one_line(error)[:200]}); go on from the last checkpoint with run.resume=DIR"
        ) from error
