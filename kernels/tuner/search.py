"""A search for the fastest launch parameters, remembered by device, kernel and size.

The cache is a JSON file, {"DEVICE": {"KERNEL SHAPE": {"parameters": ..., "seconds": ..., "source": HASH}}},
written whole. A result counts only while the kernel's source is what it was.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from infra.files import write_whole
from kernels.gpu import tuned
from kernels.gpu.runtime import DeviceFailed, Runtime, source_text

RUNS = 5
LAUNCHES = 10
"""In a row: the time of a launch hides behind the one before."""


@dataclass(frozen=True)
class Tunable:
    """A kernel and what may be tried."""

    name: str
    source: str
    candidates: Sequence[tuned.Parameters]
    prepare: Callable[[Runtime, int], Callable[[tuned.Parameters], object]]
    """Buffers for n elements; then a launch with given parameters."""


class Cache:
    """The file; a damaged one is begun anew."""

    def __init__(self, file: Path) -> None:
        self._file = file

    def load(self, runtime: Runtime, tunables: Iterable[Tunable]) -> int:
        """Let launchers use what was found on this device; how many results that was."""
        device = runtime.properties.name
        by_name = {tunable.name: tunable for tunable in tunables}
        count = 0
        for key, entry in self._read().get(device, {}).items():
            kernel, _, shape = key.partition(" ")
            if kernel in by_name and entry.get("source") == _hash(by_name[kernel].source):
                tuned.remember(device, kernel, shape, entry["parameters"])
                count += 1
        return count

    def store(
        self, runtime: Runtime, tunable: Tunable, n: int, best: tuned.Parameters, seconds: float
    ) -> None:
        """Keep a result, beside what others wrote meanwhile."""
        everything = self._read()
        found = everything.setdefault(runtime.properties.name, {})
        found[f"{tunable.name} {tuned.shape(n)}"] = {
            "parameters": dict(best),
            "seconds": seconds,
            "source": _hash(tunable.source),
        }
        self._file.parent.mkdir(parents=True, exist_ok=True)
        write_whole(self._file, json.dumps(everything, indent=1, sort_keys=True) + "\n")

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            found = json.loads(self._file.read_text("utf-8"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}


def tune(runtime: Runtime, tunable: Tunable, n: int, cache: Cache) -> tuned.Parameters:
    """The fastest of the candidates for n elements: measured, stored, and used from now on.

    Candidates that the device refuses are left out; raises DeviceFailed if it refuses all.
    """
    launch = tunable.prepare(runtime, n)
    times = []
    refused: DeviceFailed | None = None
    for place, candidate in enumerate(tunable.candidates):
        try:
            times.append((_seconds(runtime, launch, candidate), place))
        except DeviceFailed as error:
            refused = error
    if not times:
        raise DeviceFailed(f"{tunable.name}: no parameters can be launched: {refused}")
    seconds, place = min(times)
    best = tunable.candidates[place]
    cache.store(runtime, tunable, n, best, seconds)
    tuned.remember(runtime.properties.name, tunable.name, tuned.shape(n), best)
    return best


def _seconds(
    runtime: Runtime, launch: Callable[[tuned.Parameters], object], candidate: tuned.Parameters
) -> float:
    """The shortest of some runs, after one that compiles."""

    def often() -> None:
        for _ in range(LAUNCHES):
            launch(candidate)

    launch(candidate)
    runtime.synchronize()
    return min(runtime.timed(often) for _ in range(RUNS)) / LAUNCHES


def _hash(source: str) -> str:
    return hashlib.sha256(source_text(source).encode()).hexdigest()[:16]
