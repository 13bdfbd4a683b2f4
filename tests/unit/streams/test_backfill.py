"""A backfill says what the live reactor says, event by event; slices together say what the whole says."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from schemas.catalogue import SKETCHES
from schemas.codec import SchemaRegistry
from schemas.errors import UndecodableEvent, UnknownSchema
from schemas.event import Event, Position
from schemas.registry.service import LocalRegistry
from streams.backfill import (
    MAX_BAD,
    Gathered,
    Job,
    KnownSchemas,
    fold_slice,
    gather,
    greatest_times,
    latest_scores,
    score,
)
from streams.fold import Projector
from streams.repeats import Repeats
from streams.scoring import Scoring
from streams.slices import Extent, Slice, cut, even, overlap, whole
from streams.task import Ask
from streams.window_rows import InputWindows
from tests.unit.streams.backfill_data import (
    MODELS,
    TOPIC,
    Payloads,
    codec,
    history,
    partition,
    plain,
    records,
)
from tests.unit.streams.build import DAY, TASK, prediction

Latest = dict[tuple[int, str, int], Event]


def job(registry: LocalRegistry) -> Job:
    return Job.of(TASK, MODELS, registry_schemas(registry))


def registry_schemas(registry: LocalRegistry) -> dict[int, Any]:
    found = {}
    for number in range(1, 20):
        try:
            found[number] = registry.schema_by_id(number)
        except UnknownSchema:
            break
    return found


def run(of: Job, slices: list[Slice], payloads: dict[int, Payloads], size: int) -> Gathered:
    said = [
        (number, one)
        for number, part in enumerate(slices)
        for one in fold_slice(
            of, part, records(part.partition, payloads[part.partition], size, part.begin, part.end)
        )
    ]
    return gather(of, slices, said)


def in_one_piece(of: Job, payloads: dict[int, Payloads], size: int = 100) -> Gathered:
    slices = [whole(extent) for extent in extents(payloads)]
    return run(of, slices, payloads, size)


def extents(payloads: dict[int, Payloads]) -> list[Extent]:
    return [Extent(number, 0, len(all_)) for number, all_ in payloads.items() if all_]


def live(
    registry: SchemaRegistry, payloads: dict[int, Payloads]
) -> tuple[Projector, list[Event], list[Position]]:
    """The reactors fed with decoded events one by one: the projector, what they said, what was unreadable."""
    projector = Projector([InputWindows(TASK), Scoring(TASK, len(payloads))])
    for model in MODELS:
        projector.react(model)
    said, bad = [], []
    decoder = codec(registry)
    for offset in range(max(map(len, payloads.values()))):
        for number, all_ in payloads.items():
            if offset >= len(all_):
                continue
            at = Position(TOPIC, number, offset)
            try:
                event = decoder.decode(at, all_[offset])
            except UndecodableEvent:
                bad.append(at)
                continue
            for sketch in projector.react(event):
                said += [sketch, *projector.react(sketch)]
    return projector, said, bad


def met(registry: SchemaRegistry, payloads: dict[int, Payloads]) -> set[str]:
    """The versions that answered: by chance a history has no answer of the one that nobody registered."""
    decoder, versions = codec(registry), set()
    for number, all_ in payloads.items():
        for offset, payload in enumerate(all_):
            with suppress(UndecodableEvent):
                event = decoder.decode(Position(TOPIC, number, offset), payload)
                versions.add(event.data["model_version"])
    return versions


def latest(sketches: list[Event]) -> list[Event]:
    found: Latest = {}
    for event in sketches:
        data = event.data
        key = data["window_start"], data["model_version"], data["partition"]
        if key not in found or found[key].data["revision"] < data["revision"]:
            found[key] = event
    return [found[key] for key in sorted(found)]


@given(st.integers(0, 10_000), st.integers(1, 150))
@example(747, 1)
@settings(max_examples=15)
def test_it_says_what_the_live_reactors_say(seed: int, size: int) -> None:
    registry = LocalRegistry()
    payloads = history(seed, registry, [300, 200, 0])
    found = in_one_piece(job(registry), payloads, size)
    projector, said, bad = live(registry, payloads)
    sketches = latest([event for event in said if event.topic == SKETCHES])
    assert len(sketches) > 20
    assert plain(found.sketches) == plain(sketches)
    assert [one.at for one in found.unreadable] == sorted(bad)
    assert found.counts.bad == len(bad)
    for number, partition_ in projector.states["toy.windows"].partitions.items():
        assert found.partitions[number].too_late == partition_.too_late
    assert found.unknown_versions == sorted(met(registry, payloads) - {"toy-1", "toy-2"})


@given(st.integers(0, 10_000))
@settings(max_examples=15)
def test_the_scores_are_those_of_the_live_reactors(seed: int) -> None:
    registry = LocalRegistry()
    payloads = history(seed, registry, [300, 200, 0])
    _, said, _ = live(registry, payloads)
    found = in_one_piece(job(registry), payloads)
    scores = score(TASK, 3, MODELS, found.sketches)
    expected = latest_scores(TASK, said)
    assert len(expected) > 20
    without = {"event_id", "caused_by", "revision"}  # they tell how often, and by what, it was said
    assert [facts(event, without) for event in scores] == [
        facts(event, without) for event in expected
    ]


def facts(event: Event, without: set[str]) -> dict[str, Any]:
    return {name: value for name, value in event.data.items() if name not in without}


@contextmanager
def short_generations(span: int) -> Iterator[None]:
    """Repeats are forgotten after so few records, so that slices begin in the midst of the log."""
    before = Repeats.__init__.__defaults__
    Repeats.__init__.__defaults__ = (span,)
    try:
        yield
    finally:
        Repeats.__init__.__defaults__ = before


@given(
    st.integers(0, 10_000),
    st.integers(2, 8),
    st.sampled_from([8, 16, 64]),
    st.sampled_from([16, 32, 64]),
    st.integers(1, 150),
)
@example(862, 4, 8, 32, 1)
@settings(max_examples=25)
def test_slices_say_together_what_the_whole_says(
    seed: int, parts: int, block: int, span: int, size: int
) -> None:
    registry = LocalRegistry()
    payloads = history(seed, registry, [500, 90], days=90)
    of = job(registry)
    with short_generations(span):
        slices = []
        for extent in extents(payloads):
            all_ = payloads[extent.partition]
            scanned: dict[int, int] = {}
            for part in even(extent, parts, block):
                some = records(extent.partition, all_, size, part.begin, part.end)
                for number, time in greatest_times(of, part, some, block).items():
                    scanned[number] = max(time, scanned.get(number, time))
            slices += cut(TASK, extent, scanned, parts, block)
        assert len(slices) > 2
        assert any(part.begin > 0 for part in slices)
        pieces = run(of, slices, payloads, size)
        one = in_one_piece(of, payloads, size)
    assert plain(pieces.sketches) == plain(one.sketches)
    assert pieces.unreadable == one.unreadable
    assert pieces.partitions == one.partitions
    assert overlap(extents(payloads), slices) >= 1.0


def test_each_offset_is_spoken_of_by_one_slice() -> None:
    extent = Extent(0, 100, 1_000)
    times = {block: block * DAY for block in range(100 // 64, 1_000 // 64 + 1)}
    slices = cut(TASK, extent, times, 4, 64)
    spoken = [(max(part.stated, extent.first), part.end) for part in slices]
    assert spoken[0][0] == 100
    assert spoken[-1][1] == 1_000
    assert all(end == begin for (_, end), (begin, _) in pairwise(spoken))
    assert all(part.begin <= part.mark.offset <= part.stated for part in slices)


def test_a_window_of_long_ago_is_not_read_again() -> None:
    extent = Extent(0, 0, 64 * 100)
    times = {block: block * DAY for block in range(100)}
    last = cut(TASK, extent, times, 2, 64)[-1]
    assert last.stated == 64 * 50
    # Day 49 was reached; the windows of the eight days before may be restated, and one width is slack.
    assert last.mark.offset == 64 * 40
    assert last.mark.stream_time == 39 * DAY


def test_a_slice_says_one_sketch_of_a_window() -> None:
    registry = LocalRegistry()
    payloads = history(3, registry, [400])
    (extent,) = extents(payloads)
    said = list(fold_slice(job(registry), whole(extent), records(0, payloads[0], 7)))
    windows = [(f["window_start"], f["model_version"]) for kind, f in said if kind == "sketch"]
    assert len(windows) == len(set(windows)) > 20
    places = [kind for kind, _ in said]
    assert places[-1] == "done"
    assert places.index("sketch") < len(places) // 4, "what is settled is not kept until the end"


def test_more_unreadable_records_than_are_named_are_counted() -> None:
    registry = LocalRegistry()
    payloads = {0: [b"nonsense"] * (MAX_BAD + 50)}
    found = in_one_piece(job(registry), payloads)
    assert len(found.unreadable) == MAX_BAD
    assert found.counts.bad == MAX_BAD + 50
    assert found.unreadable[7].at == Position(TOPIC, 0, 7)


def test_a_job_travels_without_the_source_of_its_task() -> None:
    task = dataclasses.replace(TASK, source=lambda: iter([Ask(0, "a", {})]))
    of = Job.of(task, MODELS, {})
    assert pickle.loads(pickle.dumps(of)) == of
    assert set(of.references) == {"toy-1", "toy-2"}


def test_a_schema_that_did_not_come_along_makes_its_records_unreadable() -> None:
    registry = LocalRegistry()
    payloads = {0: partition(1, 0, 50, registry)}
    found = in_one_piece(Job.of(TASK, MODELS, {}), payloads)
    assert found.counts.events == 0
    assert found.counts.bad == 50
    known = KnownSchemas(registry_schemas(registry))
    assert known.schema_by_id(1) == registry.schema_by_id(1)
    with pytest.raises(UnknownSchema, match="77"):
        known.schema_by_id(77)


def test_the_latest_revision_of_a_score_counts_and_other_tasks_do_not() -> None:
    def scored(task: str, revision: int, psi: float) -> Event:
        fields = {"task": task, "window_start": 0, "model_version": "toy-1", "feature": "x"}
        return Event(
            "driftlog.drift_scores", "DriftScored", {**fields, "revision": revision, "psi": psi}
        )

    events = [scored("toy", 0, 0.1), scored("toy", 2, 0.3), scored("toy", 1, 0.2)]
    events += [scored("other", 9, 0.9), prediction("a", 0)]
    assert [event.data["psi"] for event in latest_scores(TASK, events)] == [0.3]
