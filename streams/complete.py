"""When a drift window is complete: each partition stated it or a later one, or the furthest is far ahead."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

AHEAD_WINDOWS = 2
"""A window that the furthest partition has left so far behind is complete without the others."""
KEPT_WINDOWS = 32
"""A window is forgotten once every partition is this many windows past it."""
IDLE_WINDOWS = 1024
"""A partition that is so many windows behind the furthest one counts as idle and keeps no window."""


class Window(Protocol):
    """What is known of one window of one version so far."""

    @property
    def complete(self) -> bool:
        """Whether it was complete before."""

    @property
    def parts(self) -> Collection[int]:
        """The partitions that have stated it."""


@dataclass(frozen=True, slots=True)
class Completion:
    """The rule for `partitions` partitions and windows of `width_ms`.

    `progress` is, throughout: partition -> start (ms) of the furthest window that it has stated.
    """

    partitions: int
    width_ms: int

    def horizon(self, progress: Mapping[int, int]) -> int:
        """Start of the oldest window that can still be restated."""
        furthest = max(progress.values(), default=0)
        slowest = min(progress.get(partition, 0) for partition in range(self.partitions))
        limit = furthest - IDLE_WINDOWS * self.width_ms
        return max(slowest, limit) - KEPT_WINDOWS * self.width_ms

    def newly(
        self, progress: Mapping[int, int], windows: Mapping[str, Mapping[int, Window]]
    ) -> Iterator[tuple[int, str]]:
        """(start, version) of the windows (version -> start -> window) that are complete now and were not."""
        furthest = max(progress.values())
        for version, open_ in windows.items():
            for start, window in open_.items():
                if not window.complete and self._done(progress, furthest, start, window):
                    yield start, version

    def _done(self, progress: Mapping[int, int], furthest: int, start: int, window: Window) -> bool:
        return furthest >= start + AHEAD_WINDOWS * self.width_ms or all(
            partition in window.parts or progress.get(partition, -1) > start
            for partition in range(self.partitions)
        )
