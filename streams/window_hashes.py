"""The fingerprint of one partition's windows, as live workers state it and replay repeats it."""

from __future__ import annotations

from schemas.event import Event
from streams.canonical import fingerprint
from streams.log import Offsets
from streams.recovery import state_hashed
from streams.window_partition import WindowPartition


def fold_name(task: str, partition: int) -> str:
    """Each partition's windows are a fold of their own: workers share partitions."""
    return f"{task}.windows/{partition}"


def state_hash(run: WindowPartition, models_offsets: Offsets) -> Event:
    """StateHashed of the partition at its position, models read up to `models_offsets`."""
    offsets = {**models_offsets, (run.topic, run.partition): run.position}
    name = fold_name(run.fold.task.name, run.partition)
    return state_hashed(name, fingerprint(run.state), offsets, run.position)
