"""The contenders of `benchmarks.label_join`, each in a process of its own.

python -m benchmarks.label_join_arms NAME PREDICTIONS
"""

from __future__ import annotations

import ctypes
import gc
import json
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.store_arms import RocksStore, cpu_seconds
from schemas.catalogue import task_topics
from schemas.codec import Codec
from schemas.columnar import Columns, Records
from schemas.columnar.decoder import ColumnDecoder
from schemas.event import Event, Position
from schemas.registry.service import LocalRegistry
from streams.canonical import fingerprint
from streams.column_join import LABEL, ColumnJoin
from streams.fold import Seen
from streams.join import LabelJoin
from streams.outcome_columns import PREDICTION, OutcomeColumns
from streams.outcome_store import open_outcomes
from streams.outcomes import OutcomeWindows
from streams.repeats import Repeats
from streams.store import MemoryStore, Store, Tree
from streams.task import DriftPolicy, Numeric, Task

HOUR = 3_600_000
DAY = 24 * HOUR
DELAY = 20 * HOUR
BATCH = 2_000
"""Rows, in the middle."""
MEMORY_BYTES = 64 << 20
COMMIT_EVENTS = 50_000
"""Of the whole path: about a second's."""
TASK = Task(
    name="bench",
    label="late",
    label_delay_hours=DELAY // HOUR,
    features=(Numeric("x"),),
    drift=DriftPolicy(window_hours=1, grace_minutes=10),
)


@dataclass(frozen=True)
class Batch:
    """Rows of one topic: arrays of equal length; the offsets go on from batch to batch."""

    predicted: bool
    ids: np.ndarray
    offset: np.ndarray
    time: np.ndarray
    number: np.ndarray
    """Model version of a prediction, label of a label."""
    score: np.ndarray


def batches(count: int, seed: int = 1) -> list[Batch]:
    """A day of predictions, labels 6 to 18 hours later, out of order by up to a minute.

    3 % are never labelled, 1 % of predictions and labels come twice.
    """
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, 2**64, (count, 2), np.uint64)
    made = np.sort(rng.integers(0, DAY, count))
    known = np.flatnonzero(rng.random(count) < 0.97)
    told = made[known] + rng.integers(6 * HOUR, 18 * HOUR, len(known))
    version, score = rng.integers(0, 3, count), rng.random(count)
    span = DAY * BATCH // count
    predictions = _arrivals(rng, True, span, (ids, made, version, score))
    truth = (rng.random(len(known)) < score[known]).astype(np.int64)
    labels = _arrivals(rng, False, span, (ids[known], told, truth, np.zeros(len(known))))
    return [batch for _, _, batch in sorted([*predictions, *labels], key=lambda item: item[:2])]


def _arrivals(
    rng: np.random.Generator, predicted: bool, span: int, columns: tuple[np.ndarray, ...]
) -> Iterator[tuple[int, bool, Batch]]:
    """Batches of `span` ms of arrival each: their number, which topic comes first, and the rows."""
    twice = np.flatnonzero(rng.random(len(columns[1])) < 0.01)
    rows = np.concatenate((np.arange(len(columns[1])), twice))
    arrival = columns[1][rows] + rng.integers(0, 60_000, len(rows))
    order = np.argsort(arrival, kind="stable")
    slices = arrival[order] // span
    starts = np.flatnonzero(np.diff(slices, prepend=-1))
    for first, last in zip(starts, [*starts[1:], len(order)], strict=True):
        ids, time_, number, score = (column[rows[order[first:last]]] for column in columns)
        offset = np.arange(first, last)
        yield int(slices[first]), not predicted, Batch(predicted, ids, offset, time_, number, score)


class Tally:
    """Sums over all matches: equal if the matches are."""

    def __init__(self) -> None:
        self.count = self.times = self.label_times = self.labels = self.products = 0

    def add(self, made: np.ndarray, told: np.ndarray, label: np.ndarray) -> None:
        self.count += len(made)
        self.times += int(made.sum())
        self.label_times += int(told.sum())
        self.labels += int(label.sum())
        self.products += int((made // 1_000 * (told // 1_000)).sum())


class Memory:
    """What a process holds (anonymous pages) and what of files it has mapped, above the start; MB."""

    def __init__(self) -> None:
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)  # what the preparation has freed is nobody's
        self._start = self._now()
        self.held = self.mapped = 0.0

    def look(self) -> None:
        held, mapped = self._now()
        self.held = max(self.held, held - self._start[0])
        self.mapped = max(self.mapped, mapped - self._start[1])

    @staticmethod
    def _now() -> tuple[float, float]:
        lines = Path("/proc/self/status").read_text().splitlines()
        found = dict(line.split(":", 1) for line in lines)
        return tuple(int(found[name].split()[0]) / 1024 for name in ("RssAnon", "RssFile"))  # type: ignore[return-value]


def columnar(
    predictions: Store, labels: Store, commit: Callable[[], object]
) -> Callable[[list[Batch], Memory], tuple[Tally, int]]:
    def go(work: list[Batch], memory: Memory) -> tuple[Tally, int]:
        join, tally = ColumnJoin(DELAY, predictions, labels), Tally()
        repeats = {True: Repeats(), False: Repeats()}
        hour = 0
        for batch in work:
            fresh = repeats[batch.predicted].first(batch.ids, batch.offset)
            ids = batch.ids[fresh]
            if batch.predicted:
                values = np.empty(len(ids), PREDICTION)
                values["time"], values["version"] = batch.time[fresh], batch.number[fresh]
                values["score"] = batch.score[fresh]
                matches = join.predictions(ids, values)
            else:
                matches = join.labels(ids, batch.time[fresh], batch.number[fresh])
            tally.add(matches.prediction["time"], matches.label["time"], matches.label["label"])
            if batch.time[0] // HOUR > hour:
                hour = int(batch.time[0] // HOUR)
                join.expire((hour - 1) * HOUR, (hour - 1) * HOUR)
            commit()
            memory.look()
        left = join.counts.unmatched + len(join.waiting_predictions)
        return tally, left

    return go


def by_events(work: list[Batch], memory: Memory) -> tuple[Tally, int]:
    """Today's LabelJoin, fed with texts and numbers as a decoded event has them."""
    rows = [
        (
            batch.predicted,
            [str(uuid.UUID(bytes=raw.tobytes())) for raw in batch.ids.astype(">u8")],
            batch.time.tolist(),
            batch.number.tolist(),
            batch.score.tolist(),
        )
        for batch in work
    ]
    memory.__init__()  # type: ignore[misc]  # what it is fed with is not the join's
    began = time.perf_counter(), cpu_seconds()
    join: LabelJoin[tuple[int, float]] = LabelJoin(DELAY)
    tally, hour = Tally(), 0
    seen = {True: Seen(1 << 17), False: Seen(1 << 17)}
    for predicted, ids, times, numbers, scores in rows:
        mine = seen[predicted]
        met = []
        for id_, at, number, score in zip(ids, times, numbers, scores, strict=True):
            # A label event has an id of its own; here it is that of its prediction.
            if mine.add(id_):
                match = (
                    join.prediction(id_, at, (number, score))
                    if predicted
                    else join.label(id_, at, number)
                )
                if match:
                    met.append((match.time, match.label_time, match.label))
        tally.add(*np.array(met, np.int64).reshape(-1, 3).T)
        if times[0] // HOUR > hour:
            hour = times[0] // HOUR
            join.expire((hour - 1) * HOUR, (hour - 1) * HOUR)
        memory.look()
    by_events.began = began  # type: ignore[attr-defined]
    return tally, join.counts.unmatched + len(join.predictions)


def payloads(count: int) -> tuple[Codec, list[Records]]:
    """The same history as Avro payloads on one partition each."""
    codec = Codec(LocalRegistry(), list(task_topics(TASK.name, TASK.vector, TASK.label)))
    predictions, labels = OutcomeColumns(TASK, 1).topics
    found = []
    for batch in batches(count):
        topic = predictions if batch.predicted else labels
        encoded = []
        for raw, at, number, score in zip(
            batch.ids.astype(">u8"),
            batch.time.tolist(),
            batch.number.tolist(),
            batch.score.tolist(),
            strict=True,
        ):
            name = str(uuid.UUID(bytes=raw.tobytes()))
            head = {"event_id": name, "event_time": at, "caused_by": None}
            if batch.predicted:
                more = {
                    "model_version": f"bench-{number}",
                    "score": score,
                    "label": int(score > 0.5),
                }
                event = Event(topic, "PredictionMade", {**head, **more, "features": {"x": 1.0}})
            else:
                event = Event(
                    topic, "LabelObserved", {**head, "prediction_id": name, "label": number}
                )
            encoded.append(codec.encode(event))
        found.append(Records.of(topic, 0, encoded, batch.offset))
    return codec, found


def whole_columns(
    codec: Codec, work: list[Records], folder: Path, memory: Memory
) -> dict[str, Any]:
    """Avro to statements by columns, with the waiting rows on disk."""
    fold = OutcomeColumns(TASK, 1)
    store = open_outcomes(folder, fold, {}, MEMORY_BYTES)
    events = {fold.topics[0]: "PredictionMade", fold.topics[1]: "LabelObserved"}
    decoders = {t: ColumnDecoder(codec, t, e, fold.projection(t)) for t, e in events.items()}
    repeats = {topic: Repeats() for topic in events}
    versions = decoders[fold.topics[0]].dictionaries["model_version"]
    offsets, said, done = {}, 0, 0
    for records in work:
        columns, _ = decoders[records.topic].decode(records)
        fresh = repeats[records.topic].first(columns.data["event_id"], columns.offset)
        data = {path: values[fresh] for path, values in columns.data.items()}
        kept = Columns(records.topic, 0, columns.offset[fresh], columns.recorded[fresh], data)
        said += len(fold.absorb(store.state, kept, {"model_version": versions.values}, str))
        offsets[records.topic, 0] = int(records.offset[-1]) + 1
        done += len(records)
        if done >= COMMIT_EVENTS:
            store.commit(offsets)
            done = 0
        memory.look()
    store.commit(offsets)
    return {
        "print": fold.fingerprint(store.state),
        "said": said,
        "matched": store.state.join.counts.matched,
    }


def whole_events(codec: Codec, work: list[Records], _: Path, memory: Memory) -> dict[str, Any]:
    """The same event by event."""
    fold = OutcomeWindows(TASK, 1)
    state, said, seen = fold.initial(), 0, {topic: Seen(1 << 17) for topic in fold.topics}
    for records in work:
        for row, offset in enumerate(records.offset.tolist()):
            at = Position(records.topic, 0, offset)
            event = codec.decode(at, records.payload(row))
            if seen[records.topic].add(event.id):
                state = fold.apply(state, (event,))
                said += len(fold.react(state, event))
        memory.look()
    return {
        "print": fingerprint(fold.settle(state)),
        "said": said,
        "matched": state.join.counts.matched,
    }


def stores(name: str, folder: Path) -> tuple[Store, Store, Callable[[], object]]:
    if name == "columns in memory":
        return MemoryStore(PREDICTION, "time"), MemoryStore(LABEL, "time"), lambda: None
    if name == "columns on the LSM tree":
        trees = [
            Tree(folder / part, dtype, "time", memory_bytes=size, sync=False)
            for part, dtype, size in (
                ("predictions", PREDICTION, MEMORY_BYTES * 3 // 4),
                ("labels", LABEL, MEMORY_BYTES // 4),
            )
        ]
        return trees[0], trees[1], lambda: [tree.commit() for tree in trees]
    rocks = [
        RocksStore(folder / part, dtype, MEMORY_BYTES // 4)
        for part, dtype in (("predictions", PREDICTION), ("labels", LABEL))
    ]
    return rocks[0], rocks[1], lambda: None  # type: ignore[return-value]


WHOLE = {
    "Avro to statements by columns": whole_columns,
    "Avro to statements by events": whole_events,
}
JOINS = ("columns in memory", "columns on the LSM tree", "columns on RocksDB", "LabelJoin (dict)")


def run(name: str, count: int, folder: Path, ready: Callable[[], None]) -> dict[str, Any]:
    """Seconds, CPU seconds and memory of one contender, and what it found."""
    if name in WHOLE:
        codec, records = payloads(count)
        ready()
        memory, began, cpu = Memory(), time.perf_counter(), cpu_seconds()
        found = WHOLE[name](codec, records, folder, memory)
        events = sum(map(len, records))
    else:
        work = batches(count)
        go = by_events if name == "LabelJoin (dict)" else columnar(*stores(name, folder))
        ready()
        memory, began, cpu = Memory(), time.perf_counter(), cpu_seconds()
        tally, left = go(work, memory)
        if go is by_events:
            began, cpu = by_events.began  # type: ignore[attr-defined]
        found = {**vars(tally), "unmatched": left}
        events = sum(len(batch.time) for batch in work)
    seconds, cpu = time.perf_counter() - began, cpu_seconds() - cpu
    figures = {"events": events, "seconds": seconds, "cpu": cpu}
    return {**figures, "held_mb": memory.held, "mapped_mb": memory.mapped, "found": found}


def main() -> None:
    name, count = sys.argv[1], int(sys.argv[2])
    with tempfile.TemporaryDirectory() as folder:
        run(name, 5_000, Path(folder) / "warm", lambda: None)

        def ready() -> None:
            print("READY", flush=True)
            sys.stdin.readline()

        found = run(name, count, Path(folder) / "work", ready)
        print("RESULT " + json.dumps(found), flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main()
