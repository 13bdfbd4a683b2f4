"""Compiled loops: numba, with the machine code kept beside the source so that only the first run waits."""

from __future__ import annotations

import glob
import hashlib
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile
from numba.core.dispatcher import Dispatcher

F = TypeVar("F", bound=Callable[..., Any])


def compiled(function: F) -> F:
    """Compile on first call, cache on disk, release the interpreter lock while it runs.

    Strict floating point (no reordering): the same inputs give the same bits on any run. Where no folder
    can be written to, each process compiles anew.
    """
    if function.__closure__:
        _name_apart(function)
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "boundscheck": False}
    try:
        made: F = numba.njit(cache=True, **options)(function)
    except RuntimeError:
        made = numba.njit(**options)(function)
    else:
        if isinstance(made, Dispatcher):  # not where NUMBA_DISABLE_JIT is set
            made._cache._cache_file = _Files(function, made._cache)  # type: ignore[attr-defined]
    return made


class _Files(IndexDataCacheFile):
    """One file for each signature, named by all that its machine code follows from.

    Numba numbers the files and keeps the numbers in an index: of two processes that compile at once, one may
    find the other's code under the number of its own signature, and run it on what it was not made for. Nor
    does numba see that a function which was compiled in with the caller has changed in another file.
    """

    def __init__(self, function: Callable[..., Any], cache: Any) -> None:
        stamp = cache._impl.locator.get_source_stamp()
        super().__init__(cache.cache_path, cache._impl.filename_base, stamp)  # type: ignore[no-untyped-call]
        self._function = function
        self._base = f"{cache._impl.filename_base}."
        self._current = f"{self._base}{_hash(numba.__version__, stamp)}."

    @cached_property
    def _made_of(self) -> tuple[Any, ...]:
        """All sources and constants that the code is made of."""
        sources: set[str] = set()
        constants: set[str] = set()
        _collect(self._function, sources, constants)
        stats = [(path, Path(path).stat()) for path in sorted(sources)]
        stamps = [(path, stat.st_mtime_ns, stat.st_size) for path, stat in stats]
        return *stamps, *sorted(constants)

    def save(self, key: Any, data: Any) -> None:
        self._save_data(self._name(key), (key, data))  # type: ignore[no-untyped-call]
        for path in Path(self._cache_path).glob(f"{glob.escape(self._base)}*.nbc"):
            if not path.name.startswith(self._current):  # the function's file has changed since
                path.unlink(missing_ok=True)

    def load(self, key: Any) -> Any:
        try:
            stored, data = self._load_data(self._name(key))  # type: ignore[no-untyped-call]
        except OSError:
            return None
        return data if stored == key else None

    def _name(self, key: Any) -> str:
        return f"{self._current}{_hash(key, self._made_of)}.nbc"


def _name_apart(function: Callable[..., Any]) -> None:
    """Closures of one function get names by what they hold.

    Numba tells them apart by the order in which a process compiles them. One that was loaded from disk and
    one that was compiled here may so get the same symbol, and whoever calls both calls one of them twice.
    """
    held: list[Any] = []
    for cell in function.__closure__ or ():
        value = cell.cell_contents
        held.append(value.py_func.__qualname__ if isinstance(value, Dispatcher) else _plain(value))
    function.__qualname__ += f"_{_hash(held)}"


def _collect(function: Callable[..., Any], sources: set[str], constants: set[str]) -> None:
    """Files and constants that a function and all it calls are made of."""
    code = function.__code__
    if (mark := f"{code.co_filename}:{code.co_firstlineno}") in constants:
        return
    constants.add(mark)
    if Path(code.co_filename).exists():
        sources.add(code.co_filename)
    else:  # made by exec
        constants.add(_hash(code.co_code, code.co_consts))
    known = function.__globals__ | dict(
        zip(
            code.co_freevars,
            (cell.cell_contents for cell in function.__closure__ or ()),
            strict=True,
        )
    )
    met = [(name, known[name]) for name in code.co_names + code.co_freevars if name in known]
    for module in [value for _, value in met if isinstance(value, ModuleType)]:
        met += [(name, vars(module)[name]) for name in code.co_names if name in vars(module)]
    for name, value in met:
        if isinstance(value, Dispatcher):
            _collect(value.py_func, sources, constants)
        elif hasattr(value, "_defn"):  # an intrinsic
            sources.add(value._defn.__code__.co_filename)
        elif isinstance(value, bool | int | float | str | bytes | tuple | np.ndarray):
            constants.add(f"{name}={_hash(_plain(value))}")


def _plain(value: Any) -> Any:
    """What a constant is, with nothing of an array left out as its repr does."""
    if isinstance(value, np.ndarray):
        return value.dtype, value.shape, value.tobytes()
    return value


def _hash(*parts: Any) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]
