"""Planted poison is found, all of it and nothing else: histories are lived through with it and without.

The oracle knows no graph. It runs the real feature fold, cuts snapshots by their definition, "trains" by
hashing the rows, "scores" by hashing model and vector, and compares both lives content by content.
"""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from driftlog.blast import (
    ANSWER,
    DECISION,
    EVENT,
    INPUTS,
    LABEL,
    OBSERVATION,
    PERFORMANCE,
    SNAPSHOT,
    VECTOR,
    VERSION,
    Blast,
    Radius,
    facts_of,
)
from driftlog.touching import AT_MOST, EXACTLY, Spans
from models.dataset import golden_rows
from schemas.event import Event, Position
from streams.features import FeatureFold, assemble
from streams.fold import id_hash
from streams.task import HOUR_MS, Category, DriftPolicy, GatePolicy, Numeric, Observed, Rate, Task

PARTITIONS = 2
START = 1_700_000_000_000 // HOUR_MS * HOUR_MS
TASK = Task(
    name="toy",
    label="late",
    label_delay_hours=2,
    features=(
        Numeric("x"),
        Category("c"),
        Category("place"),
        Rate("rate_c", by=("c",), hours=2),
        Rate("rate_place", by=("c", "place"), hours=1),
        Observed("wind", by="place", value="wind", max_age_hours=1),
    ),
    drift=DriftPolicy(window_hours=1),
    gate=GatePolicy(golden_share=0.3),
)
PLAIN = dataclasses.replace(TASK, features=(Numeric("x"), Category("c"), Category("place")))
HOURS = 12
TRAINED = (4, 8)
"""Hours at which a version is trained on what came before, and serves from then on."""
KINDS = (VECTOR, ANSWER, INPUTS, PERFORMANCE, SNAPSHOT, VERSION, DECISION)


def happened(task: Task, seed: int, rows: int) -> list[Event]:
    """What came from outside, in the order of the log; predictions without vector, version and answer."""
    rng = random.Random(seed)
    found: list[tuple[int, str, str, dict[str, Any]]] = []
    for n in range(rows):
        time = START + rng.randrange(HOURS * HOUR_MS)
        given = {"x": rng.random(), "c": rng.choice("ab"), "place": rng.choice("pqr")}
        found.append((time, "toy.predictions", f"p{n}", {"given": given}))
        for k in range(rng.choice((0, 1, 1, 1, 1, 2))):
            known = time + rng.randrange(1, 3 * HOUR_MS)  # some come too late, or second
            label = {"prediction_id": f"p{n}", "label": rng.randrange(2)}
            found.append((known, "toy.labels", f"l{n}.{k}", label))
    for n in range(rows // 3):
        time = START + rng.randrange(HOURS * HOUR_MS)
        seen = {"entity": "place", "key": rng.choice("pqr"), "values": {"wind": rng.random()}}
        found.append((time, "toy.features", f"o{n}", seen))
    types = {
        "toy.predictions": "PredictionMade",
        "toy.labels": "LabelObserved",
        "toy.features": "FeatureObserved",
    }
    ends: dict[tuple[str, int], int] = {}
    events = []
    for time, topic, id_, data in sorted(found, key=lambda one: one[:3]):
        partition = id_hash(str(data.get("prediction_id", id_))) % PARTITIONS
        at = Position(topic, partition, ends.get((topic, partition), 0))
        ends[topic, partition] = at.offset + 1
        envelope = {"event_id": id_, "event_time": time, "caused_by": None}
        events.append(Event(topic, types[topic], envelope | data, at))
    return events


@dataclass
class Life:
    """One life of a history: the log as it would stand, and the content of everything derived."""

    log: list[Event] = field(default_factory=list)
    content: dict[tuple[str, Any], str] = field(default_factory=dict)


def digest(*parts: object) -> str:
    return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]


def live(task: Task, events: list[Event], bad_model: str | None = None) -> Life:
    """The derived history. `bad_model`: a version whose file is another one."""
    life, fold = Life(), FeatureFold(task, PARTITIONS)
    state = fold.initial()
    models = {"toy-0": digest("toy-0", bad_model == "toy-0")}
    version, trainings = "toy-0", iter(enumerate(TRAINED, 1))
    number, hour = next(trainings)
    for came in events:
        event = came
        while hour is not None and event.time >= START + hour * HOUR_MS:
            version = f"toy-{number}"
            train(task, life, models, number, START + hour * HOUR_MS, bad_model == version)
            number, hour = next(trainings, (0, None))  # type: ignore[assignment]
        if event.type == "PredictionMade":
            vector = assemble(task, event.data["given"], event.time, state.blob)
            life.content[VECTOR, event.id] = digest(vector)
            life.content[ANSWER, event.id] = digest(models[version], vector)
            data = {**event.data, "features": vector, "model_version": version}
            event = dataclasses.replace(event, data=data)
        life.log.append(event)
        state = fold.apply(state, [event])
    windows(task, life)
    for name, model in models.items():
        life.content[VERSION, name] = model
    return life


def first_labels(task: Task, log: list[Event], until: int | None) -> dict[str, Event]:
    """Prediction id -> its label: the first in the log, if it came in time."""
    found: dict[str, Event] = {}
    made = {event.id: event for event in log if event.type == "PredictionMade"}
    for event in log:
        if event.type == "LabelObserved" and (until is None or event.time < until):
            found.setdefault(event.data["prediction_id"], event)
    return {
        id_: label
        for id_, label in found.items()
        if id_ in made and label.time <= made[id_].time + task.label_delay_ms
    }


def train(
    task: Task, life: Life, models: dict[str, str], number: int, now: int, is_bad: bool
) -> None:
    """Snapshot, golden set (once), version and decision at time `now`."""
    name, parent = f"toy-{number}", f"toy-{number - 1}"
    since = now - 5 * HOUR_MS
    labels = first_labels(task, life.log, now)
    rows = {
        event.id: digest(event.data["features"], labels[event.id].data["label"])
        for event in life.log
        if event.type == "PredictionMade" and since <= event.time < now and event.id in labels
    }
    share = task.gate.golden_share
    golden = {id_: bool(golden_rows(np.array([id_], object), share)[0]) for id_ in rows}
    ends: dict[tuple[str, int], int] = {}
    for event in life.log:
        if event.at:
            key = event.at.topic, event.at.partition
            ends[key] = max(ends.get(key, 0), event.at.offset + 1)
    offsets = [{"topic": t, "partition": p, "offset": end} for (t, p), end in sorted(ends.items())]
    common = {"from_time": since, "to_time": now, "offsets": offsets}
    envelope = {"event_time": now, "caused_by": None, "task": task.name, "request_id": f"r{number}"}
    life.content[SNAPSHOT, f"s{number}"] = digest(sorted(rows.items()))
    taken = {"event_id": f"s{number}", "purpose": "training", "snapshot": f"sha{number}"}
    life.log.append(Event("driftlog.snapshots", "SnapshotTaken", envelope | taken | common))
    if number == 1:
        life.content[SNAPSHOT, "g"] = digest(sorted((i, r) for i, r in rows.items() if golden[i]))
        kept = {"event_id": "g", "purpose": "golden", "snapshot": "shag"}
        life.log.append(Event("driftlog.snapshots", "SnapshotTaken", envelope | kept | common))
    models[name] = digest(name, is_bad, sorted((i, r) for i, r in rows.items() if not golden[i]))
    about = {"model_version": name, "parent": parent, "snapshot": f"sha{number}", "golden": "shag"}
    if number == 1:
        zero = {"event_id": "m0", "model_version": "toy-0", "snapshot": None, "parent": None}
        life.log.append(Event("driftlog.model_versions", "ModelRegistered", envelope | zero))
    registered = envelope | {"event_id": f"m{number}"} | about
    life.log.append(Event("driftlog.model_versions", "ModelRegistered", registered))
    seen = [life.content[SNAPSHOT, f"s{number}"], life.content[SNAPSHOT, "g"]]
    life.content[DECISION, f"d{number}"] = digest(models[name], models[parent], *seen)
    decided = {"event_id": f"d{number}", "model_version": name, "gates": [{"name": "g"}]}
    life.log.append(Event("driftlog.deployments", "ModelPromoted", envelope | decided))


def windows(task: Task, life: Life) -> None:
    labels = first_labels(task, life.log, None)
    inputs: dict[tuple[str, int], list[str]] = {}
    outcomes: dict[tuple[str, int], list[str]] = {}
    for event in life.log:
        if event.type == "PredictionMade":
            start = event.time // task.window_ms * task.window_ms
            window = event.data["model_version"], start
            answer = life.content[ANSWER, event.id]
            inputs.setdefault(window, []).append(life.content[VECTOR, event.id] + answer)
            counted = outcomes.setdefault(window, [])
            counted.append("one more")
            if event.id in labels:
                counted.append(answer + str(labels[event.id].data["label"]))
    for window, parts in inputs.items():
        life.content[INPUTS, window] = digest(sorted(parts))
        life.content[PERFORMANCE, window] = digest(sorted(outcomes[window]))


def differs(one: Life, other: Life) -> dict[str, set[Any]]:
    """Kind -> names whose content the poison changed, made or unmade."""
    found: dict[str, set[Any]] = {kind: set() for kind in KINDS}
    for kind, name in one.content.keys() | other.content.keys():
        if one.content.get((kind, name)) != other.content.get((kind, name)):
            found[kind].add(name)
    return found


def touched(radius: Radius) -> dict[str, set[Any]]:
    return {kind: set(radius.names(kind)) for kind in KINDS}


def poisons(events: list[Event], seed: int) -> Iterator[tuple[str, str, Callable[[Event], Event]]]:
    """(kind, id, what it does to the event): one label, one observation."""
    rng = random.Random(seed)
    labels = [event for event in events if event.type == "LabelObserved"]
    seen = [event for event in events if event.type == "FeatureObserved"]
    for event in rng.sample(labels, min(3, len(labels))):
        yield LABEL, event.id, lambda e: with_data(e, label=1 - e.data["label"])
    for event in rng.sample(seen, min(2, len(seen))):
        yield OBSERVATION, event.id, lambda e: with_data(e, values={"wind": -1.0})


def with_data(event: Event, **changes: Any) -> Event:
    return dataclasses.replace(event, data={**event.data, **changes})


def planted(events: list[Event], ids: set[str], how: Callable[[Event], Event]) -> list[Event]:
    return [how(event) if event.id in ids else event for event in events]


@given(seed=st.integers(0, 10_000), rows=st.integers(20, 90), plain=st.booleans())
@settings(max_examples=40, deadline=None)
def test_every_planted_label_and_observation_is_found_and_nothing_else(
    seed: int, rows: int, plain: bool
) -> None:
    task = PLAIN if plain else TASK
    events = happened(task, seed, rows)
    before = live(task, events)
    blast = Blast(facts_of(task, before.log))
    for kind, id_, how in poisons(events, seed):
        after = live(task, planted(events, {id_}, how))
        radius = blast.radius({kind: [id_]})
        assert touched(radius) == differs(before, after), (kind, id_)


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_whole_source_is_found(seed: int) -> None:
    """Many at once: a labeller whose answers were turned for two hours."""
    events = happened(TASK, seed, 80)
    before = live(TASK, events)
    first = START + 2 * HOUR_MS
    ids = {
        event.id
        for event in events
        if event.type == "LabelObserved" and first <= event.time < first + 2 * HOUR_MS
    }
    after = live(TASK, planted(events, ids, lambda e: with_data(e, label=1 - e.data["label"])))
    found, true = (
        touched(Blast(facts_of(TASK, before.log)).radius({LABEL: ids})),
        differs(before, after),
    )
    for kind in (
        KINDS
    ):  # two turned labels may leave a rate as it was: then it is found, and nothing changed
        assert true[kind] <= found[kind], kind


@given(seed=st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_a_prediction_that_ought_not_to_be_there(seed: int) -> None:
    events = happened(TASK, seed, 60)
    before = live(TASK, events)
    blast = Blast(facts_of(TASK, before.log))
    made = [event.id for event in events if event.type == "PredictionMade"]
    for id_ in random.Random(seed).sample(made, 3):
        after = live(TASK, [event for event in events if event.id != id_])
        radius, true = blast.radius({EVENT: [id_]}), differs(before, after)
        for kind in KINDS:
            assert true[kind] <= set(radius.names(kind)), kind
            assert set(radius.names(kind, EXACTLY)) <= true[kind], kind


@pytest.mark.parametrize("version", ["toy-0", "toy-1", "toy-2"])
def test_a_bad_model(version: str) -> None:
    events = happened(TASK, 5, 80)
    before = live(TASK, events)
    radius = Blast(facts_of(TASK, before.log)).radius({VERSION: [version]})
    after = live(TASK, events, bad_model=version)
    assert touched(radius) == differs(before, after)
    assert all(level == EXACTLY for found in radius.touched.values() for level in found.values())


def test_what_rates_and_observations_carry_is_an_upper_bound_and_all_else_exact() -> None:
    events = happened(PLAIN, 3, 80)
    plain = Blast(facts_of(PLAIN, live(PLAIN, events).log))
    with_rates = Blast(facts_of(TASK, live(TASK, events).log))
    label = next(e.id for e in events if e.type == "LabelObserved")
    assert plain.radius({LABEL: [label]}).names(VECTOR) == []
    carried = with_rates.radius({LABEL: [label]})
    assert carried.names(VECTOR, AT_MOST)
    assert not carried.names(VECTOR, EXACTLY)
    assert not plain.radius({LABEL: [label]}).names(SNAPSHOT, AT_MOST)


@given(seed=st.integers(0, 10_000), rows=st.integers(20, 60))
@settings(max_examples=15, deadline=None)
def test_backwards_is_forwards_turned_round(seed: int, rows: int) -> None:
    life = live(TASK, happened(TASK, seed, rows))
    blast = Blast(facts_of(TASK, life.log))
    rng = random.Random(seed)
    for kind in (ANSWER, INPUTS, SNAPSHOT, VERSION, DECISION):
        names = list(blast.names[kind])
        target = rng.choice(names)
        upstream = blast.radius({kind: [target]}, back=True)
        for source in (LABEL, OBSERVATION, EVENT):
            every = list(blast.names[source])
            for name in rng.sample(every, min(12, len(every))):
                forwards = blast.radius({source: [name]}).touched[kind].get(target)
                assert upstream.touched[source].get(name) == forwards, (source, name, kind, target)


def test_repeats_in_the_log_change_nothing() -> None:
    log = live(TASK, happened(TASK, 9, 60)).log
    again = [
        dataclasses.replace(e, at=Position(e.at.topic, e.at.partition, e.at.offset + 10_000))
        for e in log
        if e.at
    ]
    one, other = Blast(facts_of(TASK, log)), Blast(facts_of(TASK, [*log, *again]))
    label = one.names[LABEL][4]
    assert one.radius({LABEL: [label]}).touched == other.radius({LABEL: [label]}).touched


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(KeyError):
        Blast(facts_of(TASK, live(TASK, happened(TASK, 1, 20)).log)).radius({VERSION: ["toy-9"]})


def test_a_history_without_events_has_no_radius() -> None:
    assert not any(Blast(facts_of(TASK, [])).radius({}).touched.values())


@given(st.data())
def test_spans_are_the_pairs_that_they_stand_for(data: st.DataObject) -> None:
    numbers = st.integers(-9, 9)
    points = data.draw(st.lists(st.tuples(st.booleans(), st.integers(0, 2), numbers), max_size=9))
    spans = data.draw(
        st.lists(st.tuples(st.integers(0, 2), numbers, st.integers(0, 6)), max_size=9)
    )
    there = np.array([p[0] for p in points], np.bool_)
    arrays = [np.array([p[k] for p in points], np.int64) for k in (1, 2)]
    keys, since = (np.array([s[k] for s in spans], np.int64) for k in (0, 1))
    until = since + np.array([s[2] for s in spans], np.int64)
    edges = Spans("a", "b", there, *arrays, keys, since, until)
    pairs = [
        (i, j)
        for i, (is_there, key, at) in enumerate(points)
        for j, (of, begin, length) in enumerate(spans)
        if is_there and key == of and begin <= at < begin + length
    ]
    levels = np.array(
        data.draw(st.lists(st.integers(0, 2), min_size=len(points), max_size=len(points))), np.uint8
    )
    into = np.zeros(len(spans), np.uint8)
    edges.forward(levels, into)
    assert {j for j in range(len(spans)) if into[j]} == {j for i, j in pairs if levels[i]}
    back = np.zeros(len(points), np.uint8)
    edges.backward(into, back)
    assert {i for i in range(len(points)) if back[i]} == {i for i, j in pairs if into[j]}
