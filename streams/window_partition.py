"""One partition on its way through the window fold: payloads in, statements out."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from schemas.codec import Codec
from schemas.columnar import Columns, Records
from schemas.columnar.decoder import Bad, ColumnDecoder
from schemas.event import Event
from streams.references import Reference
from streams.repeats import Repeats
from streams.task import Task
from streams.window_bins import ModelBins
from streams.windows import START, Mark, PartitionWindows, WindowFold


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a partition has been stated, and where to read from to go on.

    Committed as offset and metadata of the group, in one step.
    """

    stated: int = 0
    """Everything before this offset has had its say in the log."""
    mark: Mark = START
    waited: bool = False
    """Rows waited for a model's bins: a later run may know these, and has more to say."""

    @property
    def metadata(self) -> str:
        mark = self.mark
        numbers = {"from": mark.offset, "time": mark.stream_time, "late": mark.too_late}
        return json.dumps({**numbers, "waited": self.waited})

    @classmethod
    def of(cls, offset: int, metadata: str) -> Progress:
        """Without metadata (a group that somebody reset): from the log's start, stated up to `offset`."""
        try:
            found = json.loads(metadata)
            mark = Mark(int(found["from"]), int(found["time"]), int(found["late"]))
            return cls(max(0, offset), mark, bool(found["waited"]))
        except (ValueError, KeyError, TypeError):
            return cls(max(0, offset))


UNSTATED = Progress()


class WindowPartition:
    """State of one partition; not shared between threads."""

    def __init__(
        self,
        task: Task,
        codec: Codec,
        partition: int,
        references: Mapping[str, Reference],
        progress: Progress = UNSTATED,
        keep: Callable[[Columns], NDArray[np.bool_]] | None = None,
    ) -> None:
        """`keep`: which rows of a batch count (a replay as of some time); all, unless given."""
        self.fold = WindowFold(task)
        self.topic = self.fold.topic
        self.partition = partition
        self.state = PartitionWindows.at(progress.mark)
        self._decoder = ColumnDecoder(codec, self.topic, "PredictionMade", self.fold.projection)
        self._texts = [path for path, kind in self.fold.projection.items() if kind == "text"]
        self._repeats = Repeats()
        self._references = references
        self._models: dict[str, ModelBins] = {}
        self._begun = progress
        self._keep = keep
        self._stated = progress.stated
        self._from = progress.mark.offset
        self.position = self.begin = self._repeats.warm_from(self._from)
        """`begin`: where to start to read; `position`: the next offset."""
        self.events = 0

    def unknown_versions(self) -> list[str]:
        """Versions that were met and have no reference yet."""
        met = self._decoder.dictionaries["model_version"].values
        return [version for version in met if version not in self._references]

    def take(self, records: Records) -> tuple[list[Event], list[Bad]]:
        """Statements now due, and what could not be read; raises RegistryUnavailable (nothing was taken)."""
        columns, bad = self._decoder.decode(records)
        for path in self._texts:  # rows are picked out of arrays, which Arrow's are not
            columns.data[path] = columns.data[path].to_numpy(zero_copy_only=False)
        self._know_models()
        fresh = self._repeats.first(columns.data["event_id"], columns.offset)
        if self._keep is not None:
            fresh &= self._keep(columns)
        if not fresh.all():
            columns = columns.rows(fresh)
        said: list[Event] = []
        for part, aloud in self._parts(columns):
            events = self._absorb(part, records)
            said += events if aloud else []
        before, self.position = self.position, int(records.offset[-1]) + 1
        self.events += len(columns)
        if self._begun.waited and before < self._stated <= self.position:
            for sketch in self.state.windows.values():
                sketch.stated = -1  # said again, with the same ids, where nothing is new
            said = self.release() + said
        return said, bad

    def release(self) -> list[Event]:
        """Statements about windows whose version has become known."""
        if self.position < self._stated:
            return []
        self._know_models()
        return self.fold.release(self.state, self.partition, self._decoder.texts, self._models)

    def pass_over(self, offset: int) -> bool:
        """Nothing that is an event stands before `offset` any more (control records); False if known."""
        passed = offset > self.position
        self.position = max(offset, self.position)
        return passed

    def progress(self) -> Progress:
        """To be committed once all statements so far are in the log."""
        if self.position < self._stated:
            return self._begun
        waited = any(sketch.tallies is None for sketch in self.state.windows.values())
        return Progress(self.position, self.state.restart(self.position), waited)

    def _absorb(self, columns: Columns, records: Records) -> list[Event]:
        @cache  # one row closes the windows of all versions
        def name(row: int) -> str:
            return self._decoder.event_id(records, int(columns.offset[row]))

        return self.fold.absorb(self.state, columns, self._decoder.texts, self._models, name)

    def _parts(self, columns: Columns) -> list[tuple[Columns, bool]]:
        """What is new to the state, cut where it was stated before a restart: (columns, to be stated)."""
        begin, stated = np.searchsorted(columns.offset, (self._from, self._stated)).tolist()
        if begin == stated == 0:
            return [(columns, True)]
        rows = np.arange(len(columns))
        silent = columns.rows((rows >= begin) & (rows < stated))
        return [(silent, False), (columns.rows(rows >= max(begin, stated)), True)]

    def _know_models(self) -> None:
        for version in self._references.keys() - self._models.keys():
            self._models[version] = ModelBins(self._references[version])
