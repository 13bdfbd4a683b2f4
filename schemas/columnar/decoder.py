"""Avro payloads of one event type -> columns, with the verdicts and the values of the row codec."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Codec
from schemas.columnar import machine
from schemas.columnar.cells import Cells
from schemas.columnar.columns import Columns, Kind
from schemas.columnar.dictionary import CAPACITY, Dictionary
from schemas.columnar.instructions import REFUSAL, Program, Unsupported
from schemas.columnar.program import compile_event
from schemas.columnar.projection import check_kinds, sinks
from schemas.columnar.records import Records
from schemas.errors import UndecodableEvent
from schemas.event import Position


@dataclass(frozen=True, slots=True)
class Bad:
    """A record that is no event: its index in the batch, and what the row codec says of it."""

    index: int
    error: UndecodableEvent


class ColumnDecoder:
    """Decodes one event type of a topic into the columns that `projection` names (path -> kind).

    Raises KeyError or ValueError if the catalogue's schema has no such field or its type does not fit.
    Threads may share a decoder; they then take turns. What it returns belongs to the caller.
    """

    def __init__(
        self,
        codec: Codec,
        topic: str,
        event_type: str,
        projection: Mapping[str, Kind],
        capacity: int = CAPACITY,
    ) -> None:
        self._codec, self._topic, self._type = codec, topic, event_type
        self._projection = dict(projection)
        self._tree = sinks(self._projection)
        if codec.knows(topic):
            check_kinds(codec.reader(topic, event_type), self._projection)
        self._lock = threading.RLock()
        self.dictionaries = {
            path: Dictionary(capacity, self._lock)
            for path, kind in projection.items()
            if kind == "code"
        }
        """The texts of each `code` column, by path; they grow with what is decoded."""
        self._programs: dict[int, Program] = {}
        self._linked = _Linked.of({})

    @property
    def texts(self) -> dict[str, Sequence[str]]:
        """The texts behind the codes of each `code` column, by path."""
        return {path: dictionary.values for path, dictionary in self.dictionaries.items()}

    def event_id(self, records: Records, offset: int) -> str:
        """The text of the id of the event at `offset`, which columns hold as 128 bits."""
        payload = records.payload(int(np.searchsorted(records.offset, offset)))
        return self._codec.decode(Position(self._topic, records.partition, offset), payload).id

    def decode(self, records: Records) -> tuple[Columns, list[Bad]]:
        """The batch's events as columns, and its unreadable records, both in offset order.

        The offsets of the columns, their `others` and the bad records are together those of `records`.
        Raises RegistryUnavailable; the same batch can then be decoded again. Dictionaries learn texts in
        the order of the log, whatever the batches, and none from an unreadable record.
        """
        assert records.topic == self._topic
        with self._lock:
            return self._decode(records)

    def _decode(self, records: Records) -> tuple[Columns, list[Bad]]:
        n = len(records)
        cells = Cells(self._projection, self.dictionaries, n)
        rows, others = np.empty(n, np.int64), np.empty(n, np.int64)
        progress, bad = np.zeros(3, np.int64), []
        while why := machine.run(
            self._linked.code,
            self._linked.schemas,
            self._linked.texts,
            records.address,
            records.length,
            cells.addresses,
            cells.dictionaries,
            rows,
            others,
            progress,
        ):
            index = int(progress[machine.RECORD])
            if why == machine.NO_ROOM:
                for dictionary in self.dictionaries.values():
                    dictionary.reserve()
            elif why == machine.REFUSED or not self._learn(records, index):
                error = self._by_row(records, index, cells, rows, others, progress)
                if error is not None:
                    bad.append(Bad(index, error))
                progress[machine.RECORD] += 1
        rows, others = rows[: progress[machine.ROW]], others[: progress[machine.OTHERS]]
        columns = Columns(
            records.topic,
            records.partition,
            records.offset[rows],
            records.recorded[rows],
            cells.columns(len(rows)),
            records.offset[others],
        )
        return columns, bad

    def _learn(self, records: Records, index: int) -> bool:
        """Compile the schema of a record; False if it cannot be had. Raises RegistryUnavailable."""
        payload = records.payload(index)
        assert payload is not None
        schema_id = int.from_bytes(payload[1 : machine.HEADER_BYTES], "big")
        try:
            branches = self._codec.written(schema_id)
        except UndecodableEvent:
            return False
        wanted = [
            name == self._type if self._codec.belongs(self._topic, name) else None
            for name, _, _ in branches
        ]
        try:
            program = compile_event(branches, wanted, self._tree)
        except Unsupported:
            program = REFUSAL
        self._programs[schema_id] = program
        self._linked = _Linked.of(self._programs)
        return True

    def _by_row(
        self,
        records: Records,
        index: int,
        cells: Cells,
        rows: NDArray[np.int64],
        others: NDArray[np.int64],
        progress: NDArray[np.int64],
    ) -> UndecodableEvent | None:
        """Decode one record by the row codec; what is wrong with it, or None if it has been filled in."""
        at = Position(records.topic, records.partition, int(records.offset[index]))
        try:
            event = self._codec.decode(at, records.payload(index))
            if event.type == self._type:
                cells.fill(int(progress[machine.ROW]), event.data)
        except UndecodableEvent as error:
            return error
        if event.type == self._type:
            rows[progress[machine.ROW]] = index
            progress[machine.ROW] += 1
        else:
            others[progress[machine.OTHERS]] = index
            progress[machine.OTHERS] += 1
        return None


@dataclass(frozen=True, slots=True)
class _Linked:
    """All programs one after the other, as `machine.run` wants them."""

    code: NDArray[np.int64]
    schemas: NDArray[np.int64]
    texts: NDArray[np.int64]

    @classmethod
    def of(cls, programs: Mapping[int, Program]) -> _Linked:
        code, schemas = [REFUSAL.code], []
        texts: list[tuple[int, int]] = []
        start = len(REFUSAL.code)
        for schema_id in sorted(programs):
            program = programs[schema_id]
            schemas.append((schema_id, start, len(texts)))
            start += len(program.code)
            code.append(program.code)
            texts += [(text.ctypes.data, len(text) - 1) for text in program.texts]
        return cls(
            np.concatenate(code),
            np.array(schemas, np.int64).reshape(-1, 3),
            np.array(texts, np.int64).reshape(-1, 2),
        )
