"""The label join over columns: what `streams.join.LabelJoin` does, a batch at a time, on any store."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from infra.jit import compiled
from streams.event_key import key_bytes, keys_of
from streams.join import Counts
from streams.store.hashing import key_hash
from streams.store.hits import Keys, Mask, Places, Store, Values

Times = NDArray[np.int64]
LABEL = np.dtype([("time", "<i8"), ("label", "<i8")])
"""A label that waits."""


class Matches(NamedTuple):
    """`m` predictions that met their labels, in the order of the rows that brought them together."""

    row: Places
    """Of the batch."""
    prediction: Values
    """As it was put."""
    label: Values
    """LABEL."""


@dataclass
class ColumnJoin:
    """Predictions wait in one store, labels in another; both in event time.

    `waiting_predictions` holds values with an int64 field `time`, and whatever else a match is to tell;
    `waiting_labels` holds LABEL, the first label of each id. More labels of an id that has one waiting are
    rare and stay in memory. A batch leaves the state that its rows would leave one after the other.
    """

    delay_ms: int
    waiting_predictions: Store
    waiting_labels: Store
    more: dict[bytes, list[tuple[int, int]]] = field(default_factory=dict)
    """prediction id -> the labels behind its first one."""
    counts: Counts = field(default_factory=Counts)

    def predictions(self, ids: Keys, values: Values) -> Matches:
        """Take `values`, as `waiting_predictions` holds them; the matches with labels that waited."""
        found = [self._predictions(rows, ids[rows], values[rows]) for rows in _rounds(ids)]
        return _joined(found, values.dtype)

    def labels(self, ids: Keys, time: Times, label: NDArray[np.int64]) -> Matches:
        """Take labels of the predictions `ids`; the matches with predictions that waited."""
        values = np.empty(len(ids), LABEL)
        values["time"], values["label"] = time, label
        found = [self._labels(rows, ids[rows], values[rows]) for rows in _rounds(ids)]
        return _joined(found, found[0].prediction.dtype)

    def expire(self, labels_until: int, predictions_until: int) -> None:
        """See `LabelJoin.expire`."""
        self.counts.unmatched += self.waiting_predictions.expire(labels_until - self.delay_ms)
        if self.more:
            self._expire_more(predictions_until)
        self.counts.unused += self.waiting_labels.expire(predictions_until)

    def _predictions(self, rows: Places, ids: Keys, values: Values) -> Matches:
        hits = self.waiting_labels.get(ids)
        met = self._in_time(hits.found, values["time"], hits.values["time"])
        if met.any():
            self.waiting_labels.remove(hits.places[met])
            if self.more:
                self._promote(ids[met])
        if not met.all():
            self.waiting_predictions.put(ids[~met], values[~met])
        return self._matched(rows[met], values[met], hits.values[met])

    def _labels(self, rows: Places, ids: Keys, values: Values) -> Matches:
        hits = self.waiting_predictions.get(ids)
        second = self.waiting_labels.get(ids).found
        met = self._in_time(hits.found & ~second, hits.values["time"], values["time"])
        if met.any():
            self.waiting_predictions.remove(hits.places[met])
        first = ~met & ~second
        if first.any():
            self.waiting_labels.put(ids[first], values[first])
        if second.any():
            for key, value in zip(key_bytes(ids[second]), values[second].tolist(), strict=True):
                self.more.setdefault(key, []).append(value)
        return self._matched(rows[met], hits.values[met], values[met])

    def _in_time(self, found: Mask, time: Times, label_time: Times) -> Mask:
        in_time: Mask = found & (label_time <= time + self.delay_ms)
        self.counts.late += int(found.sum()) - int(in_time.sum())
        return in_time

    def _matched(self, rows: Places, prediction: Values, label: Values) -> Matches:
        self.counts.matched += len(rows)
        return Matches(rows, prediction, label)

    def _promote(self, ids: Keys) -> None:
        """The first labels of `ids` have gone: the next ones take their place."""
        for key in key_bytes(ids):
            behind = self.more.pop(key, None)
            if behind:
                self._wait(key, behind)

    def _wait(self, key: bytes, labels: list[tuple[int, int]]) -> None:
        self.waiting_labels.put(keys_of([key]), np.array(labels[:1], LABEL))
        if len(labels) > 1:
            self.more[key] = labels[1:]

    def _expire_more(self, until: int) -> None:
        """The ids with several labels, one by one; the rest is left to the store."""
        keys = list(self.more)
        first = self.waiting_labels.get(keys_of(keys))
        for key, value, place in zip(keys, first.values.tolist(), first.places, strict=True):
            labels = [value, *self.more[key]]
            kept = [label for label in labels if label[0] >= until]
            if len(kept) == len(labels):
                continue
            self.counts.unused += len(labels) - len(kept)
            self.waiting_labels.remove(np.array([place]))
            del self.more[key]
            if kept:
                self._wait(key, kept)


def _joined(found: list[Matches], prediction: np.dtype[np.void]) -> Matches:
    if len(found) == 1:
        return found[0]
    rows = np.concatenate([matches.row for matches in found])
    order = np.argsort(rows)
    return Matches(
        rows[order],
        np.concatenate([matches.prediction.astype(prediction) for matches in found])[order],
        np.concatenate([matches.label for matches in found])[order],
    )


def _rounds(ids: Keys) -> Iterator[Places]:
    """Rows in which no id comes twice: the first of each id, then the second ones, and so on.

    Different ids have nothing to do with each other, so this leaves what one row after the other would.
    """
    size = 2 << len(ids).bit_length()
    rank = _occurrences(ids, np.full(size, -1, np.int64))
    last = int(rank.max(initial=0))
    if last == 0:
        yield np.arange(len(ids))
        return
    order = np.argsort(rank, kind="stable")
    yield from np.split(order, np.searchsorted(rank[order], np.arange(1, last + 1)))


@compiled
def _occurrences(ids: Keys, slots: Places) -> Places:
    """How often each row's id came before in the batch; `slots`: -1 in 2^k places, more than ids."""
    mask = np.uint64(len(slots) - 1)
    rank = np.zeros(len(ids), np.int64)
    for row in range(len(ids)):
        at = key_hash(ids[row, 0], ids[row, 1]) & mask
        while slots[at] >= 0:
            other = slots[at]
            if ids[other, 0] == ids[row, 0] and ids[other, 1] == ids[row, 1]:
                rank[row] = rank[other] + 1
                break
            at = (at + np.uint64(1)) & mask
        slots[at] = row
    return rank
