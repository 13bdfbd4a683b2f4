"""Dynamic batching: requests that came while others were under way are scored and written together.

Nobody waits for company: with nothing under way, what has come in this turn of the event loop is a batch. While a
batch is on its way (its events not acknowledged), later requests gather, as they would before a busy partition; the
next batch starts when the last is done, when `rows` instances wait, or after `wait_s`, whichever comes first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

ROWS = 512
"""Instances that are scored together, at most (a larger request is a batch of its own)."""
import os
WAIT_S = float(os.environ.get('XWAIT','0.02'))
"""A partition that stalls holds up the requests of others for so long, at most."""


PATIENCE_S = float(os.environ.get('XPAT','0.005'))
PATIENCE = float(os.environ.get('XPAR','0.25'))


class Sized(Protocol):
    """A request: how many instances it has."""

    def __len__(self) -> int: ...


R = TypeVar("R", bound=Sized)
A = TypeVar("A")


@dataclass(slots=True)
class Batcher(Generic[R, A]):
    """`answer` gets requests in order and gives, for each, what it returns or the exception that it raises."""

    answer: Callable[[Sequence[R]], Awaitable[Sequence[A | Exception]]]
    rows: int = ROWS
    wait_s: float = WAIT_S
    _waiting: list[tuple[R, asyncio.Future[A]]] = field(default_factory=list)
    _instances: int = 0
    _under_way: int = 0
    """Requests that have been answered and are not finished, and batches that are being answered."""
    _expected: int = 1
    """How many requests the last batch had: about as many come again when it is answered."""
    _patience: float = 0.0
    _impatient: bool=False
    _began: float = 0.0
    _soon: asyncio.Handle | None = None
    _later: asyncio.TimerHandle | None = None
    _running: set[asyncio.Task[None]] = field(default_factory=set)

    async def join(self, request: R) -> A:
        """What `answer` has for it; call `finish` once that is dealt with (not if this raises)."""
        made: asyncio.Future[A] = asyncio.get_running_loop().create_future()
        self._waiting.append((request, made))
        self._instances += len(request)
        self._look()
        try:
            return await made
        except asyncio.CancelledError:
            if made.done() and not made.cancelled() and made.exception() is None:
                self.finish()  # it was answered in the same turn in which its caller went away
            raise

    def finish(self) -> None:
        """A request that `join` returned from is over."""
        self._under_way -= 1
        if not self._under_way:
            took = asyncio.get_running_loop().time() - self._began
            self._patience = min(PATIENCE_S, took * PATIENCE)
        if self._waiting:
            self._look()

    def _look(self) -> None:
        if self._soon is not None:
            return
        loop = asyncio.get_running_loop()
        if self._instances >= self.rows or (
            not self._under_way and len(self._waiting) >= self._expected
        ):
            self._soon = loop.call_soon(self._start)
        elif not self._under_way:
            if not self._impatient:
                if self._later: self._later.cancel()
                self._impatient=True
                self._later = loop.call_later(self._patience, self._start)
        elif self._later is None:
            self._later = loop.call_later(self.wait_s, self._start)

    def _start(self) -> None:
        for handle in (self._soon, self._later):
            if handle is not None:
                handle.cancel()
        self._soon = self._later = None
        self._impatient = False
        batch = self._take()
        if batch:
            self._expected = len(batch)
            self._began = asyncio.get_running_loop().time()
            running = asyncio.create_task(self._run(batch))
            self._running.add(running)
            running.add_done_callback(self._running.discard)
        if self._waiting:
            self._look()

    def _take(self) -> list[tuple[R, asyncio.Future[A]]]:
        """The oldest that wait, `rows` instances or one request; whose caller has gone is left out."""
        batch: list[tuple[R, asyncio.Future[A]]] = []
        size = taken = 0
        for request, made in self._waiting:
            if batch and size + len(request) > self.rows:
                break
            taken += 1
            self._instances -= len(request)
            if not made.cancelled():
                size += len(request)
                batch.append((request, made))
        del self._waiting[:taken]
        self._under_way += bool(batch)
        return batch

    async def _run(self, batch: list[tuple[R, asyncio.Future[A]]]) -> None:
        found: Sequence[A | Exception]
        try:
            found = await self.answer([request for request, _ in batch])
        except Exception as error:
            found = [error] * len(batch)
        for (_, made), one in zip(batch, found, strict=True):
            if made.done():
                continue
            if isinstance(one, Exception):
                made.set_exception(one)
            else:
                self._under_way += 1
                made.set_result(one)
        self.finish()
