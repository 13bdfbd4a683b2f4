"""A partition's windows say the same whatever the batches, the repeats and the restarts."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from schemas.codec import Codec
from schemas.columnar import Records
from schemas.event import Event, Position
from streams.canonical import fingerprint
from streams.fold import Projector
from streams.references import Reference
from streams.window_partition import Progress, WindowPartition
from streams.window_rows import InputWindows
from tests.unit.schemas.memory_registry import MemoryRegistry
from tests.unit.streams.build import DAY, HOUR, TASK, prediction, registered

CODEC = Codec(MemoryRegistry(), TASK.topics(1))
TOPIC = TASK.topics(1)[0].name


def history(rng: random.Random, size: int = 120) -> list[Event]:
    """Predictions of two versions with some disorder, some far too late, some repeated, some broken."""
    events: list[Event] = []
    now = 0
    for n in range(size):
        now += rng.randrange(6 * HOUR) if rng.random() < 0.9 else rng.randrange(4 * DAY)
        late = rng.choice((0, 0, 0, HOUR, 2 * DAY, 20 * DAY))
        event = prediction(
            f"{n}-{rng.random()}",
            max(0, now - rng.randrange(late + 1)),
            version=rng.choice(("toy-1", "toy-1", "toy-2")),
            offset=len(events),
            score=rng.random(),
            distance=rng.choice((None, 0.5, 1.0, 2.5, rng.gauss(1, 1))),
            carrier=rng.choice((None, "UA", "AA", "??")),
        )
        events.append(event)
        if rng.random() < 0.05:
            again = rng.choice(events)
            events.append(replace(again, at=Position(TOPIC, 0, len(events))))
    return events


def by_rows(events: Sequence[Event], models: Sequence[Event]) -> tuple[list[Event], Any]:
    projector = Projector([InputWindows(TASK)])
    said = [answer for event in (*models, *events) for answer in projector.react(event)]
    return said, projector.states["toy.windows"].partitions.get(0)


def by_columns(
    events: Sequence[Event],
    references: dict[str, Reference],
    rng: random.Random,
    crashes: float,
    late_model: Event | None = None,
) -> tuple[list[Event], WindowPartition]:
    """Random batches; after each the run may be lost, and the next begins at what was last committed."""
    payloads = [CODEC.encode(event) for event in events]
    known_from = rng.randrange(len(events)) if late_model else 0
    run = WindowPartition(TASK, CODEC, 0, references)
    said: list[Event] = []
    committed = run.progress()
    at = run.begin
    while at < len(events):
        end = min(len(events), at + rng.randint(1, 30))
        answers, bad = run.take(
            Records.of(TOPIC, 0, payloads[at:end], offset=range(at, end))  # type: ignore[arg-type]
        )
        assert not bad
        at = end
        if late_model and at > known_from:
            references.setdefault(late_model.data["model_version"], late_model.data["reference"])
        answers += run.release()
        said += answers
        if rng.random() < 0.5:
            committed = run.progress()
            committed = Progress.of(committed.stated, committed.metadata)
        if rng.random() < crashes:
            run = WindowPartition(TASK, CODEC, 0, references, committed)
            at = run.begin
            crashes /= 2
    return said, run


def last_words(said: Sequence[Event]) -> dict[tuple[str, int], dict[str, Any]]:
    last: dict[tuple[str, int], dict[str, Any]] = {}
    for event in said:
        key = event.data["model_version"], event.data["window_start"]
        if key not in last or event.data["revision"] >= last[key]["revision"]:
            last[key] = dict(event.data)
    return last


def references_of(*models: Event) -> dict[str, Reference]:
    return {model.data["model_version"]: model.data["reference"] for model in models}


@given(st.integers(0, 100_000), st.sampled_from([0.0, 0.1, 0.3]))
@example(1, 0.3)
def test_columns_say_what_rows_say_whatever_the_batches_and_crashes(
    seed: int, crashes: float
) -> None:
    rng = random.Random(seed)
    events = history(rng)
    models = [registered("toy-1"), registered("toy-2")]
    rows, state = by_rows(events, models)
    said, run = by_columns(events, references_of(*models), rng, crashes)
    content = {event.id: event.data for event in rows}
    for event in said:
        assert event.data == content[event.id]
    assert last_words(said) == last_words(rows)
    assert fingerprint(run.state) == fingerprint(state)


@given(st.integers(0, 100_000), st.sampled_from([0.0, 0.2]))
def test_a_model_that_is_registered_later_changes_nothing_that_is_said_in_the_end(
    seed: int, crashes: float
) -> None:
    rng = random.Random(seed)
    # A window that was forgotten before its model came is never stated: keep them all.
    events = [event for event in history(rng, 60) if event.time < 7 * DAY]
    first, second = registered("toy-1"), registered("toy-2")
    rows, _ = by_rows(events, [first, second])
    said, run = by_columns(events, references_of(first), rng, crashes, late_model=second)
    said += run.release()
    content = {event.id: event.data for event in rows}
    for event in said:
        assert event.data == content[event.id]
    assert last_words(said) == last_words(rows)


def test_what_cannot_be_read_is_reported_alone_and_the_rest_is_summarised() -> None:
    events = [prediction("a", HOUR, offset=0), prediction("b", 3 * DAY, offset=2)]
    payloads = [CODEC.encode(events[0]), b"\0\0\0\0\1rubbish", CODEC.encode(events[1])]
    run = WindowPartition(TASK, CODEC, 0, references_of(registered()))
    said, bad = run.take(Records.of(TOPIC, 0, payloads))
    assert [item.index for item in bad] == [1]
    assert [(event.data["window_start"], event.data["count"]) for event in said] == [(0, 1)]
    assert run.position == 3


def test_progress_survives_being_written_down() -> None:
    run = WindowPartition(TASK, CODEC, 0, references_of(registered()))
    run.take(Records.of(TOPIC, 0, [CODEC.encode(prediction("a", 5 * DAY))], offset=[7]))
    progress = run.progress()
    assert Progress.of(progress.stated, progress.metadata) == progress
    assert (progress.stated, progress.mark.offset, progress.waited) == (8, 7, False)


def test_offsets_without_metadata_are_read_again_from_the_start_and_not_said_twice() -> None:
    events = [prediction(str(n), n * 12 * HOUR, offset=n) for n in range(20)]
    payloads = [CODEC.encode(event) for event in events]
    whole = WindowPartition(TASK, CODEC, 0, references_of(registered()))
    said, _ = whole.take(Records.of(TOPIC, 0, payloads))
    again = WindowPartition(TASK, CODEC, 0, references_of(registered()), Progress.of(20, ""))
    assert again.begin == 0
    assert again.take(Records.of(TOPIC, 0, payloads))[0] == []
    assert said and fingerprint(again.state) == fingerprint(whole.state)
