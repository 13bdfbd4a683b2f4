"""A history from a CSV file: one row a request, with its label and, if they are told, its times."""

from __future__ import annotations

import csv
import heapq
import math
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from streams.task import Ask, Source, Task, TaskError, Truth

TIME, LABEL, LABEL_TIME, ID = "time", "label", "label_time", "event_id"


def csv_source(task: Task, path: Path) -> Source:
    """A source of the file's rows, which are in the order of `time` (ms, or ISO 8601; UTC if it says none).

    Columns: `time`, `label` (0, 1, or empty: it never comes) and the given features of the task; `label_time`
    (else the label delay after the request) and `event_id` (else the line) if there are such. Raises
    TaskError for a file that does not fit, as soon as that shows.
    """
    with path.open(newline="", encoding="utf-8") as file:
        header = next(csv.reader(file), [])
    for name in (TIME, LABEL, *task.given):
        if name not in header:
            raise TaskError(f"{path}: no column {name!r}; it has {', '.join(header) or 'none'}")
    return lambda: _moments(task, path)


def _moments(task: Task, path: Path) -> Iterator[Ask | Truth]:
    waiting: list[tuple[int, str, int]] = []
    last = -1
    with path.open(newline="", encoding="utf-8") as file:
        for line, row in enumerate(csv.DictReader(file), 2):
            where = f"{path}, line {line}"
            time = _time(row[TIME], where)
            if time < last:
                raise TaskError(
                    f"{where}: its time is before that of the line above: sort the file"
                )
            last = time
            while waiting and waiting[0][0] <= time:
                yield Truth(*heapq.heappop(waiting))
            id_ = row.get(ID) or f"{task.name}-{line}"
            instance = {
                name: _value(row[name], task.vector[name], f"{where}: {name}")
                for name in task.given
            }
            yield Ask(time, id_, instance)
            label = row[LABEL].strip()
            if not label:
                continue
            if label not in ("0", "1"):
                raise TaskError(f"{where}: label {label!r} is neither 0 nor 1")
            told = row.get(LABEL_TIME)
            known = _time(told, where) if told else time + task.label_delay_ms - 1
            heapq.heappush(waiting, (max(known, time + 1), id_, int(label)))
    while waiting:
        yield Truth(*heapq.heappop(waiting))


def _time(text: str, where: str) -> int:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise TaskError(f"{where}: {text!r} is no time: write ms or ISO 8601") from None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)


def _value(text: str, kind: str, where: str) -> Any:
    if not text:
        return None
    if kind == "string":
        return text
    try:
        number = float(text)
    except ValueError:
        raise TaskError(f"{where}: {text!r} is no number") from None
    return None if math.isnan(number) else number
