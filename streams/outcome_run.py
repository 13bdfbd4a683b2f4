"""The outcome fold over all partitions of its two topics: payloads in, statements out.

Partitions take turns by the time of record, as `streams.merge` does event by event: while one of which more
is to come has nothing here, the rest waits for it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Codec
from schemas.columnar import Columns, Records
from schemas.columnar.decoder import Bad, ColumnDecoder
from schemas.event import Event
from streams.outcome_columns import OutcomeColumns, State
from streams.repeats import Repeats

SLACK_MS = 200
"""So far, in time of record, one partition may run ahead of another: rows taken together are taken faster."""
TYPES = "PredictionMade", "LabelObserved"

Partition = tuple[str, int]
Offsets = Mapping[Partition, int]


@dataclass(slots=True)
class Source:
    """One partition, and the batch of it that waits."""

    position: int
    """Everything before is in the state, or was none of its rows."""
    stated: int
    """Everything before had its say in the log before the restart."""
    repeats: Repeats = field(default_factory=Repeats)
    columns: Columns | None = None
    records: Records | None = None
    end: int = 0
    """The offset behind the batch that waits."""


class OutcomeRun:
    """`state` stands at `at`; what the log holds from there up to `stated` is folded without a word."""

    def __init__(
        self, fold: OutcomeColumns, codec: Codec, state: State, at: Offsets, stated: Offsets
    ) -> None:
        """`stated` names every partition to be read."""
        self.fold = fold
        self.state = state
        self.events = 0
        self._decoders = {
            topic: ColumnDecoder(codec, topic, type_, fold.projection(topic))
            for topic, type_ in zip(fold.topics, TYPES, strict=True)
        }
        self._sources = {key: Source(at.get(key, 0), until) for key, until in stated.items()}

    def begins(self) -> dict[Partition, int]:
        """Where to read from: early enough to know repeats."""
        return {key: one.repeats.warm_from(one.position) for key, one in self._sources.items()}

    def wanted(self) -> list[Partition]:
        """Partitions of which nothing waits here."""
        return [key for key, one in self._sources.items() if one.columns is None]

    def offsets(self) -> dict[Partition, int]:
        """How far each partition is in the state."""
        return {key: one.position for key, one in self._sources.items()}

    @property
    def silent(self) -> bool:
        """What had its say before the restart is not all folded yet."""
        return any(one.position < one.stated for one in self._sources.values())

    def offer(self, records: Records) -> list[Bad]:
        """Take the next batch of a wanted partition; raises RegistryUnavailable (nothing was taken)."""
        source = self._sources[records.topic, records.partition]
        columns, bad = self._decoders[records.topic].decode(records)
        fresh = source.repeats.first(columns.data["event_id"], columns.offset)
        columns = columns.rows(fresh & (columns.offset >= source.position))
        source.end = int(records.offset[-1]) + 1
        if len(columns):
            source.columns, source.records = columns, records
        else:
            source.position = max(source.position, source.end)
        return bad

    def pass_over(self, key: Partition, offset: int) -> None:
        """The partition ends at `offset`, and all before it was offered (the rest are control records)."""
        source = self._sources[key]
        if source.columns is None:
            source.position = max(source.position, offset)
            source.stated = min(source.stated, source.position)

    def advance(self, ended: Collection[Partition]) -> list[Event] | None:
        """Fold what may go next; None if nothing may. `ended`: partitions that have no more for now."""
        silent = self.silent
        heads = []
        for key, one in self._sources.items():
            if silent and one.position >= one.stated:
                continue  # the others first: what was said before was said of all of them together
            if one.columns is not None:
                heads.append((int(one.columns.recorded[0]), key))
            elif key not in ended:
                return None
        if not heads:
            return None
        heads.sort()
        source = self._sources[heads[0][1]]
        columns, records = source.columns, source.records
        assert columns is not None
        assert records is not None
        count = len(columns)
        if len(heads) > 1:
            count = _before(columns.recorded, heads[1][0] + SLACK_MS)
        if silent:
            count = min(count, int(np.searchsorted(columns.offset, source.stated)))
        if count == 0:  # the rest of the batch is new: nothing before `stated` was an event
            source.position = source.stated
            return []
        part = columns.rows(slice(0, count))
        decoder = self._decoders[part.topic]

        def name(row: int) -> str:
            return decoder.event_id(records, int(part.offset[row]))

        said = self.fold.absorb(self.state, part, decoder.texts, name)
        self.events += count
        if count < len(columns):
            source.columns = columns.rows(slice(count, None))
            source.position = int(columns.offset[count])
        else:
            source.columns = source.records = None
            source.position = source.end
        return [] if silent else said


def _before(recorded: NDArray[np.int64], limit: int) -> int:
    """Leading rows up to `limit`, at least one."""
    beyond = np.flatnonzero(recorded > limit)
    return max(1, int(beyond[0])) if len(beyond) else len(recorded)
