"""The fingerprint of one partition's windows, as live workers state it and replay repeats it."""

from __future__ import annotations

from schemas.catalogue import STATE_HASHES
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.window_partition import WindowPartition


def fold_name(task: str, partition: int) -> str:
    """Each partition's windows are a fold of their own: workers share partitions."""
    return f"{task}.windows/{partition}"


def state_hash(
    run: WindowPartition, models_offsets: dict[tuple[str, int], int], time_ms: int
) -> Event:
    """StateHashed of the partition at its position, models read up to `models_offsets`."""
    offsets = {**models_offsets, (run.topic, run.partition): run.position}
    sha256 = fingerprint(run.state)
    name = fold_name(run.fold.task.name, run.partition)
    listed = [
        {"topic": topic, "partition": partition, "offset": offset}
        for (topic, partition), offset in sorted(offsets.items())
    ]
    return derive(
        STATE_HASHES,
        "StateHashed",
        *(name, sha256, sorted(offsets.items())),
        time=time_ms,
        caused_by=None,
        fold=name,
        offsets=listed,
        sha256=sha256,
        events=run.position,
    )
