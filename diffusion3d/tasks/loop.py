"""The loop shared by all tasks that optimise: losses, backward, update, log, preview, checkpoint, stop, resume."""

from __future__ import annotations

import logging
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from diffusion3d import processes
from diffusion3d.errors import Interrupted, RunError
from diffusion3d.tasks.checkpoint import nonfinite
from diffusion3d.tasks.rng import rng_state, set_rng_state
from diffusion3d.tasks.run_dir import Run

log = logging.getLogger(__name__)

QUIET_SECONDS = 10.0
STEPS_PER_FETCH = 10
LATE = 1
"""Stands for the end of the minutes where numbers of signals say why to stop."""

Watch = Callable[[int, float], bool]
"""Called with the number of steps done and the last known loss, and again for as long as it returns True: a pause, which a
signal ends and which does not count as minutes."""


def loop(
    run: Run,
    losses: Callable[[int], dict[str, Tensor]],
    update: Callable[[int], dict[str, float] | None],
    *,
    steps: int,
    state: Callable[[], dict[str, Any]],
    load_state: Callable[[dict[str, Any]], None],
    minutes: float | None = None,
    checkpoint_every: int = 1000,
    preview: Callable[[int], None] | None = None,
    preview_every: int = 100,
    watch: AbstractContextManager[Watch | None] | None = None,
) -> int:
    """Run steps 0 to `steps` - 1, from the run's last checkpoint where it has one.

    A step is `terms = losses(step)`, a finite check, `sum(terms.values()).backward()`, `update(step)`. Several processes
    take the same steps and stop after the same one.

    Args:
        run: gets the terms (and "loss", "seconds", and what `update` returns) of every step, and the checkpoints.
        losses: the named scalar loss terms of a step, weights included; their sum is minimised. Of several processes each
            gives its share, and their sum is the term.
        update: the optimiser step, gradients cleared, and whatever follows it; may return more figures to log.
        steps: how many in all, those before a resume included.
        state: everything a step depends on besides the random number generators, which are kept here.
        load_state: puts such a state back.
        minutes: stop after these, counted from now; None is no limit.
        checkpoint_every: in steps; one is also written at the end and on a signal.
        preview: called with the number of steps done, every `preview_every` of them and at the end, unless a signal has
            come; random numbers that it draws change nothing. A checkpoint is of before the preview of its step, which a
            resumed run makes again.
        watch: gives what is called after each step, see `Watch`. Random numbers that it draws change nothing.

    Returns:
        The number of steps done in all: fewer than `steps` when the minutes ran out.

    Raises:
        RunError: a term is NaN or Inf; nothing of that step reaches a checkpoint, the last good one stays.
        Interrupted: SIGINT or SIGTERM came; the step was finished and its state saved.
    """
    saved = processes.from_first(run.load)
    start, shown = 0, 0
    if saved is not None:
        start, content = saved
        load_state(content["task"])
        set_rng_state(content["rng"])
        log.info("continuing at step %d of %d", start, steps)
    fetched = _Fetched(run)
    last_saved = start

    def finite_state(done: int) -> dict[str, Any]:
        fetched.drain()
        content = state()
        bad = nonfinite(content)
        if bad is not None:
            raise RunError(f"{bad} is not finite after step {done - 1}; {run.last_good()}")
        return content

    def save(done: int) -> None:
        nonlocal last_saved
        run.save(done, {"task": finite_state(done), "rng": rng_state()})
        last_saved = done

    def show(done: int) -> None:
        nonlocal shown
        shown = done
        if last_saved < done:
            finite_state(done)
        if preview is not None and processes.rank() == 0:
            before = rng_state()
            preview(done)
            set_rng_state(before)

    def halted() -> bool:
        reason = processes.largest(stop[0] if stop else LATE if time.monotonic() >= deadline else 0)
        if reason > LATE and not stop:
            stop.append(reason)
        return reason > 0

    done = start
    deadline = math.inf if minutes is None else time.monotonic() + 60 * minutes
    with _signals() as stop, _Progress(start, steps) as progress, watch or nullcontext() as watching:
        if start and start % preview_every == 0:
            show(start)
        while not halted() and done < steps:
            begin = time.perf_counter()
            terms = losses(done)
            total = torch.stack([term.float() for term in terms.values()]).sum()
            values = torch.stack([*(t.detach().float() for t in terms.values()), total.detach()])
            fetched.add(done, [*terms, "loss"], processes.total(values))
            total.backward()
            extra = update(done)
            fetched.complete(time.perf_counter() - begin, extra)
            done += 1
            progress.advance(fetched.loss)
            if watching is not None:
                begin, before = time.monotonic(), rng_state()
                while watching(done, fetched.loss) and not stop:
                    pass
                set_rng_state(before)
                deadline += time.monotonic() - begin
            if done % checkpoint_every == 0 or done == steps:
                save(done)
            if done % preview_every == 0 and not stop:
                show(done)
        if done > last_saved:
            save(done)
        if done > shown and not stop:
            show(done)
    if stop:
        raise Interrupted(f"stopped at step {done} of {steps}; {run.how_to_resume()}", stop[0])
    return done


class _Fetched:
    """Figures on their way from the device to the log: at once on CPU, in batches elsewhere (no host sync per step)."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.loss = math.nan
        self._pending: list[tuple[int, list[str], Tensor | list[float], dict[str, float]]] = []

    def add(self, step: int, names: list[str], values: Tensor) -> None:
        """Take a step's values; on the CPU a value that is not finite raises here, before backward."""
        on_cpu = values.device.type == "cpu"
        self._pending.append((step, names, self._finite(step, names, values.tolist()) if on_cpu else values, {}))

    def complete(self, seconds: float, extra: dict[str, float] | None) -> None:
        """Add what became known after the values of the last step; log when it is time to."""
        self._pending[-1][3].update({**(extra or {}), "seconds": seconds})
        if isinstance(self._pending[-1][2], list) or len(self._pending) >= STEPS_PER_FETCH:
            self.drain()

    def drain(self) -> None:
        for step, names, values, extra in self._pending:
            numbers = values if isinstance(values, list) else self._finite(step, names, values.tolist())
            self.loss = numbers[-1]
            self.run.log(step, dict(zip(names, numbers, strict=True)) | extra)
        self._pending.clear()

    def _finite(self, step: int, names: list[str], numbers: list[float]) -> list[float]:
        for name, number in zip(names, numbers, strict=True):
            if not math.isfinite(number):
                raise RunError(f"loss term {name!r} is {number} at step {step}; {self.run.last_good()}")
        return numbers


class _Progress:
    """A bar with loss, rate and remaining time on a terminal; elsewhere a line every ten seconds."""

    def __init__(self, start: int, steps: int) -> None:
        quiet = not sys.stderr.isatty()
        self.bar = tqdm(total=steps, initial=start, disable=quiet, unit="step", dynamic_ncols=True, mininterval=0.25)
        self.quiet, self.start, self.done, self.steps = quiet, start, start, steps
        self.begin = self.last = time.monotonic()

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        self.bar.close()

    def advance(self, loss: float) -> None:
        self.done += 1
        if not self.quiet:
            self.bar.set_postfix_str(f"loss {loss:.4g}", refresh=False)
            self.bar.update()
            return
        now = time.monotonic()
        if now - self.last >= QUIET_SECONDS:
            self.last = now
            rate = (self.done - self.start) / (now - self.begin)
            left = (self.steps - self.done) / rate
            log.info("step %d/%d  loss %.4g  %.3g steps/s  %.0f s left", self.done, self.steps, loss, rate, left)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Yields a list that the first SIGINT or SIGTERM appends its number to. A second one kills as usual.

    Only the main thread of a process can catch signals; in any other the list stays empty.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, frame: FrameType | None) -> None:
        received.append(number)
        restore()
        log.info("%s: finishing this step; once more to stop at once", signal.Signals(number).name)

    for number in before:
        signal.signal(number, catch)
    try:
        yield received
    finally:
        restore()
