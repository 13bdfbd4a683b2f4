"""Compiled loops: numba, with the machine code kept beside the source so that only the first run waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile on first call, cache on disk, release the interpreter lock while it runs.

    Strict floating point (no reordering): the same inputs give the same bits on any run.
    """
    made: F = numba.njit(cache=True, nogil=True, error_model="numpy", boundscheck=False)(function)
    return made
