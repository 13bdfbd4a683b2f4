"""What time it is in the domain: wall clock for live traffic, last year for a replay of last year."""

from __future__ import annotations

from collections.abc import Iterable

from schemas.catalogue import predictions_topic
from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.task import Task

LAST_RECORDS = 8
"""So many from the end of each partition: the newest of them is the newest event there."""


def event_time_now(newest: Iterable[Event], now_ms: int) -> int:
    """Event time (ms) at wall clock `now_ms`: the lag of the most recently recorded event goes on.

    A prediction of now, recorded now, leaves the wall clock as it is; one of a year ago, recorded ten
    seconds ago, makes it a year ago and ten seconds. Without any event it is the wall clock.
    """
    last = max(newest, key=lambda event: (event.recorded_ms, event.time), default=None)
    if last is None:
        return now_ms
    return last.time + max(0, now_ms - last.recorded_ms)


def newest_predictions(bootstrap: str, codec: Codec, task: Task) -> list[Event]:
    """The last events of each partition of `<task>.predictions`; raises LogUnavailable."""
    return log.newest(bootstrap, codec, predictions_topic(task.name), LAST_RECORDS)
