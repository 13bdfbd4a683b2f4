"""Blast radius: what a bad event, label, model or snapshot touched, and backwards (pure).

Data flow is followed, with these edges (exact unless it says otherwise):

- a prediction's vector -> its answer -> the input window of its version and event time;
- a prediction, and its label if one came in time (of several the first in its partition) -> its window of
  performance;
- both -> every snapshot that holds the row by the definition of its query: its span, its part of the log,
  and what was in quarantine;
- a row of a training snapshot, unless it is a golden one -> the version that was trained on it (*at most*
  where the recipe samples);
- a version -> each of its answers;
- a label -> rolling rates of later predictions within their hours, of the same key and, through the share
  over all that rates are drawn to, of any key: *at most*, since serving may have answered before it came;
- an observation -> predictions that saw it last, by event time: *at most*, for the same reason.

What was decided because of touched numbers is listed and not followed: a decision moves who answers, not
what is in an answer. That decision can be judged again; its consequences are everything after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from driftlog.touching import AT_MOST, EXACTLY, Edges, Ints, Levels, Pairs, Spans, spread
from models.dataset import golden_rows
from schemas.catalogue import features_topic, labels_topic, predictions_topic
from schemas.event import Event
from streams.features import BUCKET_MS
from streams.task import HOUR_MS, Observed, Rate, Task

EVENT, VECTOR, ANSWER, MATCH = "prediction", "vector", "answer", "match"
LABEL, OBSERVATION = "label", "observation"
INPUTS, PERFORMANCE = "inputs window", "performance window"
SNAPSHOT, TRAINED, VERSION, DECISION = "snapshot", "training rows", "version", "decision"

Texts = NDArray[np.object_]
Window = tuple[str, int]


@dataclass(frozen=True)
class Predictions:
    """Each prediction once, as columns; times in ms. `categories`: what rates and observations go by."""

    ids: Texts
    times: Ints
    versions: Texts
    partitions: Ints
    offsets: Ints
    categories: Mapping[str, Texts]


@dataclass(frozen=True)
class Labels:
    """Each label event once, as columns."""

    ids: Texts
    prediction_ids: Texts
    times: Ints
    partitions: Ints
    offsets: Ints


@dataclass(frozen=True)
class Observations:
    """Each observation once, as columns."""

    ids: Texts
    entities: Texts
    keys: Texts
    times: Ints


@dataclass(frozen=True)
class Facts:
    """What the log holds about one task. The last three: fields of the events, in the order of the log."""

    task: Task
    predictions: Predictions
    labels: Labels
    observations: Observations
    snapshots: Sequence[Mapping[str, Any]] = ()
    versions: Sequence[Mapping[str, Any]] = ()
    decisions: Sequence[Mapping[str, Any]] = ()


@dataclass
class Radius:
    """What was touched, kind by kind: name or id -> EXACTLY or AT_MOST. Windows are (version, start ms)."""

    touched: dict[str, dict[Any, int]] = field(default_factory=dict)

    def names(self, kind: str, level: int | None = None) -> list[Any]:
        """Of one level, or of both."""
        found = self.touched.get(kind, {})
        return [name for name, at in found.items() if level is None or at == level]

    def to_json(self, most: int) -> dict[str, Any]:
        """Counts of every kind, and up to `most` names of each level."""
        return {
            kind: {
                word: {
                    "count": len(self.names(kind, level)),
                    "names": self.names(kind, level)[:most],
                }
                for word, level in (("exactly", EXACTLY), ("at_most", AT_MOST))
            }
            for kind in self.touched
        }


class Blast:
    """The graph of one task's history; `radius` asks it."""

    def __init__(self, facts: Facts) -> None:
        self.facts = facts
        task, made = facts.task, facts.predictions
        self._by_id = pd.Index(made.ids)
        self._rows = np.arange(len(made.ids), dtype=np.int64)
        starts = made.times // task.window_ms * task.window_ms
        keyed = pd.MultiIndex.from_arrays([made.versions, starts]) if len(made.ids) else None
        codes, windows = keyed.factorize() if keyed is not None else (self._rows, [])
        self.windows: list[Window] = [(str(version), int(start)) for version, start in windows]
        self._window_of = np.asarray(codes, np.int64)
        self._labelled, self._label_of = self._first_labels(None)
        about = facts.labels
        in_time = about.times[self._label_of] <= made.times[self._labelled] + task.label_delay_ms
        self._matched, self._label_of = self._labelled[in_time], self._label_of[in_time]
        self._golden = (
            golden_rows(made.ids, task.gate.golden_share)
            if len(made.ids)
            else np.zeros(0, np.bool_)
        )
        self.names: dict[str, Sequence[Any]] = {
            EVENT: made.ids.tolist(),
            VECTOR: made.ids.tolist(),
            ANSWER: made.ids.tolist(),
            MATCH: made.ids.tolist(),
            LABEL: about.ids.tolist(),
            OBSERVATION: facts.observations.ids.tolist(),
            INPUTS: self.windows,
            PERFORMANCE: self.windows,
            SNAPSHOT: [taken["event_id"] for taken in facts.snapshots],
            TRAINED: [taken["event_id"] for taken in facts.snapshots],
            VERSION: [version["model_version"] for version in facts.versions],
            DECISION: [decision["event_id"] for decision in facts.decisions],
        }
        self.edges = list(self._edges())

    def radius(self, begin: Mapping[str, Iterable[Any]], back: bool = False) -> Radius:
        """What nodes (kind -> names or ids) touched, or with `back` what touched them.

        Raises KeyError for a name that is none of its kind.
        """
        places: dict[str, list[int]] = {}
        for kind, names in begin.items():
            known = {name: place for place, name in enumerate(self.names[kind])}
            places[kind] = [known[name] for name in names]
        sizes = {kind: len(names) for kind, names in self.names.items()}
        return self._radius(spread(sizes, self.edges, places, back))

    def _radius(self, levels: Mapping[str, Levels]) -> Radius:
        radius = Radius()
        for kind, found in levels.items():
            if kind in (MATCH, TRAINED):
                continue
            level = np.maximum(found, levels[TRAINED]) if kind == SNAPSHOT else found
            names = self.names[kind]
            radius.touched[kind] = {
                names[at]: int(level[at]) for at in np.flatnonzero(level).tolist()
            }
        return radius

    def _edges(self) -> Iterator[Edges]:
        rows, windows = self._rows, self._window_of
        yield Pairs(EVENT, VECTOR, rows, rows)
        yield Pairs(EVENT, MATCH, self._matched, self._matched)
        yield Pairs(LABEL, MATCH, self._label_of, self._matched)
        yield from self._rates()
        yield from self._observed()
        yield Pairs(VECTOR, ANSWER, rows, rows)
        yield from self._trainings()
        yield Pairs(VECTOR, INPUTS, rows, windows)
        yield Pairs(ANSWER, INPUTS, rows, windows)
        yield Pairs(EVENT, PERFORMANCE, rows, windows)
        yield Pairs(ANSWER, PERFORMANCE, self._matched, windows[self._matched])
        yield Pairs(MATCH, PERFORMANCE, self._matched, windows[self._matched])
        yield from self._decisions()

    def _first_labels(self, counted: NDArray[np.bool_] | None) -> tuple[Ints, Ints]:
        """(rows of predictions, rows of labels): each prediction's first label, of those `counted`."""
        about = self.facts.labels
        order = np.lexsort((about.offsets, about.partitions))
        if counted is not None:
            order = order[counted[order]]
        rows = np.asarray(self._by_id.get_indexer(about.prediction_ids[order]), np.int64)
        order, rows = order[rows >= 0], rows[rows >= 0]
        found, first = np.unique(rows, return_index=True)
        return found, order[first]

    def _rates(self) -> Iterator[Edges]:
        task, made = self.facts.task, self.facts.predictions
        there = np.zeros(len(made.ids), np.bool_)
        there[self._matched] = True
        at = np.zeros(len(made.ids), np.int64)
        at[self._matched] = self.facts.labels.times[self._label_of] // BUCKET_MS
        until = made.times // BUCKET_MS
        everyone = np.zeros(len(made.ids), np.int64)
        spans: set[tuple[tuple[str, ...], int]] = set()
        for feature in task.features:
            if isinstance(feature, Rate):
                if feature.strength > 0 or not feature.by:
                    spans.add(((), feature.hours))
                spans.add((feature.by, feature.hours))
        for by, hours in sorted(spans):
            keys = self._keys(by) if by else everyone
            since = until - hours * HOUR_MS // BUCKET_MS
            yield Spans(MATCH, VECTOR, there, keys, at, keys, since, until)

    def _keys(self, by: Sequence[str]) -> Ints:
        """A number for each combination of these categories."""
        columns = [self.facts.predictions.categories[name].astype(str) for name in by]
        if not len(self._rows):
            return self._rows
        return np.asarray(pd.MultiIndex.from_arrays(columns).factorize()[0], np.int64)

    def _observed(self) -> Iterator[Edges]:
        made, seen = self.facts.predictions, self.facts.observations
        for by, hours in sorted(
            {(f.by, f.max_age_hours) for f in self.facts.task.features if isinstance(f, Observed)}
        ):
            mine = np.flatnonzero(seen.entities == by)
            order = mine[np.lexsort((seen.ids[mine].astype(str), seen.times[mine]))]
            asked = pd.DataFrame(
                {"key": made.categories[by].astype(str), "time": made.times, "row": self._rows}
            ).sort_values("time", kind="stable")
            told = pd.DataFrame(
                {"key": seen.keys[order].astype(str), "time": seen.times[order], "seen": order}
            )
            if asked.empty or told.empty:
                continue
            last = pd.merge_asof(asked, told, on="time", by="key", tolerance=hours * HOUR_MS)
            last = last[last["seen"].notna()]
            rows = last["row"].to_numpy(np.int64)
            yield Pairs(OBSERVATION, VECTOR, last["seen"].to_numpy(np.int64), rows, AT_MOST)

    def _trainings(self) -> Iterator[Edges]:
        """Rows -> snapshots, training rows -> versions -> answers."""
        by_sha: dict[tuple[str, str], int] = {}
        for place, taken in enumerate(self.facts.snapshots):
            by_sha.setdefault((taken["purpose"], taken["snapshot"]), place)
            rows, labels = self._rows_of(taken)
            golden = self._golden[rows]
            if taken["purpose"] == "golden":
                rows, labels = rows[golden], labels[golden]
            here = np.full(len(rows), place, np.int64)
            yield Pairs(VECTOR, SNAPSHOT, rows, here)
            yield Pairs(LABEL, SNAPSHOT, labels, here)
            if taken["purpose"] != "golden":
                learned = ~golden
                here = np.full(int(learned.sum()), place, np.int64)
                level = EXACTLY if self.facts.task.recipe.max_rows is None else AT_MOST
                yield Pairs(VECTOR, TRAINED, rows[learned], here, level)
                yield Pairs(LABEL, TRAINED, labels[learned], here, level)
        of_version = pd.Index([version["model_version"] for version in self.facts.versions])
        for place, version in enumerate(self.facts.versions):
            taken_at = by_sha.get(("training", version.get("snapshot") or ""))
            if taken_at is not None:
                yield Pairs(TRAINED, VERSION, np.array([taken_at]), np.array([place]))
        made_by = np.asarray(of_version.get_indexer(self.facts.predictions.versions), np.int64)
        known = np.flatnonzero(made_by >= 0)
        yield Pairs(VERSION, ANSWER, made_by[known], known)

    def _rows_of(self, taken: Mapping[str, Any]) -> tuple[Ints, Ints]:
        """(rows of predictions, rows of labels) that a snapshot holds, as its query says."""
        facts, task = self.facts, self.facts.task
        made, about = facts.predictions, facts.labels
        ends = {(at["topic"], at["partition"]): at["offset"] for at in taken["offsets"]}
        counted = _before(ends, labels_topic(task.name), about.partitions, about.offsets)
        rows, labels = self._first_labels(counted & (about.times < taken["to_time"]))
        held = _before(ends, predictions_topic(task.name), made.partitions, made.offsets)[rows]
        held &= (made.times[rows] >= taken["from_time"]) & (made.times[rows] < taken["to_time"])
        held &= about.times[labels] <= made.times[rows] + task.label_delay_ms
        for out in taken.get("excluded", ()):  # in quarantine
            begin, end = out["from_time"], out["to_time"]
            held &= (made.times[rows] < begin) | (made.times[rows] >= end)
        return rows[held], labels[held]

    def _decisions(self) -> Iterator[Edges]:
        """What a decision saw: both versions, and the rows that they were compared on."""
        place_of = {version["model_version"]: n for n, version in enumerate(self.facts.versions)}
        cut = [(t["request_id"], t["purpose"], t["snapshot"]) for t in self.facts.snapshots]
        for place, decision in enumerate(self.facts.decisions):
            here = np.array([place])
            version = place_of.get(decision["model_version"])
            if version is None:
                continue
            yield Pairs(VERSION, DECISION, np.array([version]), here)
            if not decision.get("gates"):
                continue  # by a person: nothing was measured
            about = self.facts.versions[version]
            parent = place_of.get(about.get("parent") or "")
            if parent is not None:
                yield Pairs(VERSION, DECISION, np.array([parent]), here)
            for number, (request_id, purpose, snapshot) in enumerate(cut):
                mine = purpose == "training" and request_id == decision.get("request_id")
                if mine or (purpose == "golden" and snapshot == about.get("golden")):
                    yield Pairs(SNAPSHOT, DECISION, np.array([number]), here)


def _before(
    ends: Mapping[tuple[str, int], int], topic: str, partitions: Ints, offsets: Ints
) -> NDArray[np.bool_]:
    """Which records stand before the end of their partition."""
    found = np.zeros(len(offsets), np.bool_)
    for (name, partition), end in ends.items():
        if name == topic:
            found |= (partitions == partition) & (offsets < end)
    return found


def categories_of(task: Task) -> list[str]:
    """The categories that rates and observations of a task go by."""
    names = [name for f in task.features if isinstance(f, Rate) for name in f.by]
    names += [feature.by for feature in task.features if isinstance(feature, Observed)]
    return sorted(set(names))


def facts_of(task: Task, events: Iterable[Event]) -> Facts:
    """From events of the log, in its order; of repeats the first record counts."""
    seen: set[str] = set()
    of_topic: dict[str, list[Event]] = {}
    for event in events:
        if event.id not in seen:
            seen.add(event.id)
            of_topic.setdefault(event.topic, []).append(event)
    made = of_topic.get(predictions_topic(task.name), [])
    about = of_topic.get(labels_topic(task.name), [])
    told = of_topic.get(features_topic(task.name), [])
    rest = [event for found in of_topic.values() for event in found]
    mine = [event for event in rest if event.data.get("task") == task.name]
    return Facts(
        task,
        Predictions(
            _texts(event.id for event in made),
            _ints(event.time for event in made),
            _texts(event.data["model_version"] for event in made),
            *_places(made),
            {
                name: _texts(event.data["features"].get(name) for event in made)
                for name in categories_of(task)
            },
        ),
        Labels(
            _texts(event.id for event in about),
            _texts(event.data["prediction_id"] for event in about),
            _ints(event.time for event in about),
            *_places(about),
        ),
        Observations(
            _texts(event.id for event in told),
            _texts(event.data["entity"] for event in told),
            _texts(event.data["key"] for event in told),
            _ints(event.time for event in told),
        ),
        [event.data for event in mine if event.type == "SnapshotTaken"],
        [event.data for event in mine if event.type == "ModelRegistered"],
        [
            event.data
            for event in mine
            if event.type in ("ModelPromoted", "PromotionRejected", "ModelRolledBack")
        ],
    )


def _places(events: Sequence[Event]) -> tuple[Ints, Ints]:
    at = [event.at for event in events]
    return _ints(a.partition if a else 0 for a in at), _ints(
        a.offset if a else n for n, a in enumerate(at)
    )


def _ints(values: Iterable[int]) -> Ints:
    return np.fromiter(values, np.int64)


def _texts(values: Iterable[Any]) -> Texts:
    found = list(values)
    made = np.empty(len(found), dtype=object)
    made[:] = found
    return made
