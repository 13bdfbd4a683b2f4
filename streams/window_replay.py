"""Replay of the input windows: partitions side by side, payloads to sketches without an event object."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from schemas.catalogue import MODEL_VERSIONS, predictions_topic
from schemas.codec import Codec
from schemas.columnar import Columns
from schemas.event import Event
from streams import log
from streams.canonical import fingerprint
from streams.reader import read_records
from streams.references import Reference, References
from streams.replay import Progress, Until, Verdict, stated_offsets
from streams.task import Task
from streams.window_hashes import fold_name
from streams.window_partition import WindowPartition

THREADS = 2
MAX_RECORDS = 20_000
OnSaid = Callable[[Sequence[Event]], None]


ALL = Until()


def replay_windows(
    bootstrap: str,
    codec: Codec,
    task: Task,
    to: log.Offsets,
    references: Mapping[str, Reference],
    on_progress: Progress = lambda done, total: None,
    on_said: OnSaid = lambda said: None,
    until: Until = ALL,
    threads: int = THREADS,
) -> dict[int, WindowPartition]:
    """Each partition that `to` names, up to its offset there; `on_said` gets what was due on the way.

    It is called from several threads, one after the other. Raises LogUnavailable.
    """
    done = dict.fromkeys(to, 0)
    total = sum(to.values())
    lock = Lock()

    def one(key: log.Partition) -> WindowPartition:
        keep = partial(_counts, until) if until else None
        run = WindowPartition(task, codec, key[1], references, keep=keep)

        def on_read(read: int, _: int) -> None:
            with lock:
                done[key] = read
                on_progress(sum(done.values()), total)

        for records in read_records(bootstrap, {}, {key: to[key]}, MAX_RECORDS, on_read):
            said, _ = run.take(records)
            if said:
                with lock:
                    on_said(said)
        run.pass_over(to[key])
        return run

    with ThreadPoolExecutor(threads) as pool:
        runs = list(pool.map(one, sorted(to)))
    return {run.partition: run for run in runs}


def _counts(until: Until, columns: Columns) -> NDArray[np.bool_]:
    """`until` of each row."""
    counts = np.ones(len(columns), np.bool_)
    if until.event_time is not None:
        counts &= columns.data["event_time"] <= until.event_time
    if until.recorded is not None:
        counts &= columns.recorded <= until.recorded
    return counts


def verify_windows(
    bootstrap: str,
    codec: Codec,
    tasks: Sequence[Task],
    stated: Mapping[str, Event],
    on_progress: Progress = lambda done, total: None,
    on_said: OnSaid = lambda said: None,
) -> list[Verdict]:
    """Each partition's windows at the offsets of its newest StateHashed, beside what was stated."""
    verdicts = []
    for task in tasks:
        mine = {
            name: event
            for name, event in stated.items()
            if name.startswith(fold_name(task.name, 0)[:-1])
        }
        for models_offset, names in _by_models(mine).items():
            references = References(bootstrap, codec)
            references.refresh({(MODEL_VERSIONS, 0): models_offset})
            offsets = {name: stated_offsets(mine[name]) for name in names}
            topic = predictions_topic(task.name)
            to = {k: v for found in offsets.values() for k, v in found.items() if k[0] == topic}
            known = references.by_version
            runs = replay_windows(bootstrap, codec, task, to, known, on_progress, on_said)
            for name in names:
                run = runs[int(name.rpartition("/")[2])]
                live, replayed = mine[name].data["sha256"], fingerprint(run.state)
                verdicts.append(Verdict(name, live, replayed, offsets[name], run.events))
    return verdicts


def _by_models(stated: Mapping[str, Event]) -> dict[int, list[str]]:
    """Names by how far the models had been read when they were stated."""
    groups: dict[int, list[str]] = {}
    for name in sorted(stated):
        groups.setdefault(stated_offsets(stated[name]).get((MODEL_VERSIONS, 0), 0), []).append(name)
    return groups
