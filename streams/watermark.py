"""Stream time per partition, and the low watermark over them."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Watermark:
    """The largest event time seen in each partition (ms)."""

    times: dict[int, int] = field(default_factory=dict)

    def see(self, partition: int, time: int) -> None:
        if time > self.times.get(partition, -1):
            self.times[partition] = time

    def high(self) -> int:
        return max(self.times.values()) if self.times else -1

    def low(self, partitions: int, idle_ms: int) -> int:
        """Event time that every one of `partitions` partitions has reached.

        A partition that lags the furthest one by more than `idle_ms` counts as idle and holds nobody up.
        """
        if not self.times:
            return -1
        # Asked for with every event: without a generator it costs a third.
        slowest = min([self.times.get(p, -1) for p in range(partitions)])
        return max(slowest, self.high() - idle_ms)
