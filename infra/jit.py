"""Compiled loops: numba, with the machine code kept beside the source so that only the first run waits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import numba

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile on first call, cache on disk, release the interpreter lock while it runs.

    Strict floating point (no reordering): the same inputs give the same bits on any run. Where no folder
    can be written to, each process compiles anew.
    """
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        made: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        made = numba.njit(**options)(function)
    return made
