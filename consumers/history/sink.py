"""From a batch of records to stored rows, in the order that survives a crash between any two lines.

1. event rows   - written twice they are one under FINAL (same event_id),
2. `.dlq` topic - then `dead_letters` (same coordinates: one under FINAL),
3. positions    - only now is the batch done.

A crash before 3 repeats 1 and 2; nothing is ever skipped, because 3 comes last.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

import pyarrow as pa

from consumers.history.blocks import DeadLetter, EventBlocks, UnfitEvent
from consumers.history.by_column import LEAST, ColumnBlocks
from consumers.history.record import Part, Partition, Record
from consumers.history.tables import Table, event_table
from schemas.catalogue import Topic
from schemas.codec import Codec
from schemas.errors import RegistryUnavailable, UndecodableEvent
from schemas.event import Event, Position

_UNFIT = (UnfitEvent, pa.ArrowException, OverflowError, TypeError)


class Decoder(Protocol):
    """What the sink asks of the codec."""

    def decode(self, at: Position, value: bytes | None, recorded_ms: int = 0) -> Event: ...


class Rows(Protocol):
    """What the sink asks of the store; each call may raise StoreUnavailable and be made again."""

    def write_events(self, table: Table, rows: pa.Table) -> None: ...

    def write_dead_letters(self, letters: Sequence[DeadLetter]) -> None: ...

    def write_positions(
        self, positions: Iterable[tuple[str, int, int]], topic_ids: dict[str, str]
    ) -> None: ...


@dataclass(slots=True)
class Batch:
    """A decoded batch: what to write, how far it reaches, and where decoding has to wait."""

    tables: list[tuple[Table, pa.Table]] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    next_offsets: dict[Partition, int] = field(default_factory=dict)
    waiting: dict[Partition, int] = field(default_factory=dict)
    """Partition -> offset of the record whose schema the registry could not give just now."""
    waiting_for: str = ""

    @property
    def rows(self) -> int:
        return sum(rows.num_rows for _, rows in self.tables)

    def steps(
        self,
        store: Rows,
        publish: Callable[[Sequence[DeadLetter]], None],
        topic_ids: dict[str, str],
    ) -> Iterator[Callable[[], None]]:
        """The writes in their order; each may be made again until it succeeds."""
        for table, rows in self.tables:
            yield lambda table=table, rows=rows: store.write_events(table, rows)  # type: ignore[misc]
        if self.letters:
            yield lambda: publish(self.letters)
            yield lambda: store.write_dead_letters(self.letters)
        if self.next_offsets:
            places = [(*partition, next_) for partition, next_ in self.next_offsets.items()]
            yield lambda: store.write_positions(places, topic_ids)


class BatchDecoder:
    """Decodes records of the given topics into batches: by column where it can, else event by event."""

    def __init__(self, decoder: Decoder, topics: Sequence[Topic]) -> None:
        self._decoder = decoder
        self.tables = {topic.name: event_table(topic) for topic in topics}
        self._blocks = {topic.name: EventBlocks(topic) for topic in topics}
        self._by_column = {
            topic.name: ColumnBlocks.of(decoder, topic) if isinstance(decoder, Codec) else None
            for topic in topics
        }

    def decode(self, parts: Iterable[Part]) -> Batch:
        """One part a partition."""
        batch = Batch()
        tables: dict[str, list[pa.Table]] = {}
        events: dict[str, list[tuple[Record, Event]]] = {}
        with _no_garbage_collection():
            for part in parts:
                for record in self._columns(part, tables):
                    self._take(record, batch, events)
                partition = part.topic, part.partition
                done = batch.waiting.get(partition, part.offsets[-1] + 1)
                if done > part.offsets[0]:
                    batch.next_offsets[partition] = done
            for topic, pairs in events.items():
                tables.setdefault(topic, []).extend(self._rows(topic, pairs, batch))
        for topic, found in tables.items():
            rows = pa.concat_tables(found, promote_options="permissive")
            if rows.num_rows:
                batch.tables.append((self.tables[topic], rows))
        return batch

    def _columns(self, part: Part, tables: dict[str, list[pa.Table]]) -> Iterable[Record]:
        """Add a table of the records of a part; those that are to be taken one by one."""
        blocks = self._by_column[part.topic]
        if blocks is None or len(part) < LEAST:
            return part
        try:
            table, left = blocks.table(part)
        except (RegistryUnavailable, *_UNFIT):  # some record: one by one it is found out which
            return part
        tables.setdefault(part.topic, []).append(table)
        return map(part.__getitem__, left)

    def _take(
        self, record: Record, batch: Batch, events: dict[str, list[tuple[Record, Event]]]
    ) -> None:
        at = record.at
        partition = (at.topic, at.partition)
        if partition in batch.waiting:
            return
        try:
            event = self._decoder.decode(at, record.value, record.recorded_ms)
            if not self._blocks[at.topic].knows(event.type):
                raise UndecodableEvent(f"record type {event.type} does not belong on {at.topic}")
        except RegistryUnavailable as error:
            batch.waiting[partition] = at.offset
            batch.waiting_for = str(error)
            return
        except UndecodableEvent as error:
            batch.letters.append(_dead_letter(record, error))
        else:
            events.setdefault(at.topic, []).append((record, event))

    def _rows(
        self, topic: str, pairs: list[tuple[Record, Event]], batch: Batch
    ) -> Iterator[pa.Table]:
        blocks = self._blocks[topic]
        try:
            yield blocks.table([event for _, event in pairs])
            return
        except _UNFIT:
            pass  # some value does not fit its column: find which, keep the others
        good = []
        for record, event in pairs:
            try:
                blocks.table([event])
                good.append(event)
            except _UNFIT as error:
                batch.letters.append(_dead_letter(record, error))
        if good:
            yield blocks.table(good)


def _dead_letter(record: Record, error: Exception) -> DeadLetter:
    return DeadLetter(
        record.at,
        record.key,
        record.value,
        record.recorded_ms,
        type(error).__name__,
        " ".join(str(error).split())[:2000],
    )


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Decoded events hold no cycles; walking tens of thousands of them again and again doubles the time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
