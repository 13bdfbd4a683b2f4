"""The interpreter's garbage collector, for processes that run for long."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

SELDOM = 100_000
"""New containers before a collection, where much is made and little of it in cycles (usually 700)."""


def keep_what_lives() -> None:
    """To be called when all is loaded: no collection looks through what is there by now again.

    One that did stopped every thread for 0.1 to 0.2 s, in the control plane and in serving alike (there once
    a second under load).
    """
    gc.collect()
    gc.freeze()


@contextmanager
def seldom_collected() -> Iterator[None]:
    """For reading many events: collections look through all that waits, and hardly anything is a cycle."""
    before = gc.get_threshold()
    gc.set_threshold(max(SELDOM, before[0]), *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
