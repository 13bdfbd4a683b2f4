"""Outcome windows whose waiting rows lie on disk: opened where they stood, or derived from the log again.

The log is the state store. The files are a cache of it that carries the offsets it stands at: it is used if
it was written by the same code for the same task and stands at or before the offsets that were committed
to Kafka (the rows in between are folded from the log), else it is deleted.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from streams.column_join import LABEL
from streams.join import Counts
from streams.outcome_columns import PREDICTION, TIME, OutcomeColumns, State
from streams.outcome_sums import Outcomes
from streams.store.group import Group, Table
from streams.store.tree import MEMORY_BYTES

CODE = 1
"""Raise it with any change of what the files mean."""
Offsets = Mapping[tuple[str, int], int]


class OutcomeStore:
    """`state` and the `offsets` that it stands at: read on from there; without an entry, from the start.

    `discarded` says why older files were deleted, None if they were not.
    """

    def __init__(self, folder: Path, fold: OutcomeColumns, memory_bytes: int) -> None:
        rules = fold.task.window_ms, fold.task.label_delay_ms
        self._fold = fold
        self.offsets: dict[tuple[str, int], int] = {}
        self._group = Group(
            folder,
            {
                "predictions": Table(PREDICTION, TIME, memory_bytes * 3 // 4),
                "labels": Table(LABEL, TIME, memory_bytes // 4),
            },
            f"{fold.name}, windows and delay {rules} ms, code {CODE}",
        )
        self._restore()

    def commit(self, offsets: Offsets) -> None:
        """The state stands at `offsets`. Call it after these were committed to Kafka, never before."""
        self.offsets = dict(offsets)
        self._group.commit(_note(self.state, offsets))

    def close(self) -> None:
        """What was not committed is forgotten."""
        self._group.close()

    @property
    def discarded(self) -> str | None:
        return self._group.discarded

    @property
    def disk_bytes(self) -> int:
        return self._group.disk_bytes

    def restart(self, why: str) -> None:
        """Delete everything and begin with nothing."""
        self._group.discard(why)
        self._restore()

    def _restore(self) -> None:
        trees = self._group.trees
        self.state: State = self._fold.initial(trees["predictions"], trees["labels"])
        self.offsets = {}
        note = self._group.note
        if note is not None:
            self.offsets = {(topic, p): offset for topic, p, offset in note["offsets"]}
            _fill(self.state, note)


def open_outcomes(
    folder: Path, fold: OutcomeColumns, offsets: Offsets, memory_bytes: int = MEMORY_BYTES
) -> OutcomeStore:
    """The state of `fold` at or before `offsets`, the first ones that were not yet reacted to.

    Fold the log from `OutcomeStore.offsets` up to `offsets` without saying anything, and go on from there.
    Raises StoreInUse.
    """
    store = OutcomeStore(folder, fold, memory_bytes)
    ahead = [key for key, offset in store.offsets.items() if offset > offsets.get(key, 0)]
    if ahead:
        store.restart(f"{folder} is ahead of the committed offsets of {sorted(ahead)}")
    return store


def _note(state: State, offsets: Offsets) -> dict[str, Any]:
    return {
        "offsets": [[*key, offset] for key, offset in sorted(offsets.items())],
        "windows": [[*window, outcomes] for window, outcomes in state.windows.items()],
        "predictions": list(state.predictions.times.items()),
        "labels": list(state.labels.times.items()),
        "closed_hour": state.closed_hour,
        "versions": state.versions,
        "more": [[key.hex(), labels] for key, labels in state.join.more.items()],
        "counts": state.join.counts,
    }


def _fill(state: State, note: Mapping[str, Any]) -> None:
    for version, start, fields in note["windows"]:
        scores = tuple(fields["scores"])
        state.windows[version, start] = Outcomes(**{**fields, "scores": scores})
    state.predictions.times = dict(note["predictions"])
    state.labels.times = dict(note["labels"])
    state.closed_hour = note["closed_hour"]
    state.versions = list(note["versions"])
    state.join.more = {
        bytes.fromhex(key): [(time, label) for time, label in labels]
        for key, labels in note["more"]
    }
    state.join.counts = Counts(**note["counts"])
