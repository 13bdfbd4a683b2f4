"""The same task as `serving_task` with three rates more, which serving reads from the online store."""

from __future__ import annotations

from benchmarks.serving_task import GIVEN
from driftlog import Rate, Task

task = Task(
    name="bench_online",
    label="y",
    features=(
        *GIVEN,
        Rate("carrier_6h", by=("carrier",), hours=6),
        Rate("carrier_24h", by=("carrier",), hours=24),
        Rate("origin_24h", by=("origin",), hours=24),
    ),
)
