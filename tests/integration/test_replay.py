"""Replay over a real log: checkpoints, processes side by side, a live fold gone wrong, written replays."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition

from driftlog.replay_diff import differences, find_replays
from driftlog.replay_log import Replay, ReplayWriter, rescored
from driftlog.verify import check_folds
from infra.settings import Settings
from schemas.catalogue import labels_topic, predictions_topic, system_topics
from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.checkpoint import CountingProjector, save
from streams.features import FeatureFold
from streams.fold import Fold, Projector
from streams.ledger import Ledger
from streams.outcomes import OutcomeWindows
from streams.recovery import CheckpointKeeper, recover, state_hashes
from streams.replay import Until, ends, rebuild, topic_ids
from streams.side_by_side import Plan, rebuild_all
from streams.topics import ensure_topics, register_schemas
from tests.simulation.histories import TASK, inputs

pytestmark = pytest.mark.integration

PARTITIONS = 3
REPLAYED = dataclasses.replace(TASK, name="replayed")
PREDICTIONS, LABELS = predictions_topic("replayed"), labels_topic("replayed")


def renamed(event: Event) -> Event:
    return dataclasses.replace(event, topic=event.topic.replace("toy.", "replayed."))


EVENTS = [renamed(event) for event in inputs(5, hours=20) if event.topic.startswith("toy.")]
HALF = len(EVENTS) // 2


@pytest.fixture(scope="module")
def codec(cluster: Settings) -> Codec:
    """The log with the first half of EVENTS, some of them twice."""
    own = [*system_topics(), *REPLAYED.topics(PARTITIONS)]
    ensure_topics(cluster.bootstrap, own, 3)
    made = log.connect_codec(cluster, [REPLAYED])
    register_schemas(made._registry, own)
    log.LogWriter(cluster.bootstrap, made).append([*EVENTS[:HALF], *EVENTS[HALF - 20 : HALF]])
    return made


def folds() -> list[Fold]:
    return [FeatureFold(REPLAYED, PARTITIONS), OutcomeWindows(REPLAYED, PARTITIONS)]


def prints(projector: Projector) -> dict[str, str]:
    return {fold.name: projector.fingerprint(fold.name) for fold in projector.folds}


def test_a_replay_goes_on_from_a_checkpoint(
    cluster: Settings, codec: Codec, tmp_path: Path
) -> None:
    first = rebuild(cluster.bootstrap, codec, folds())
    assert first.events == HALF
    save(first, tmp_path, topic_ids(cluster.bootstrap, first.topics))
    log.LogWriter(cluster.bootstrap, codec).append(EVENTS[HALF - 5 :])
    begun: list[int] = []
    restored = rebuild(
        *(cluster.bootstrap, codec, folds()),
        checkpoints=tmp_path,
        on_start=lambda projector: begun.append(projector.events),
    )
    whole = rebuild(cluster.bootstrap, codec, folds())
    assert begun == [HALF] and restored.events == whole.events == len(EVENTS)
    assert prints(restored) == prints(whole)
    # Of the past there is another state, and nothing of it in a checkpoint that knows more.
    early = dict.fromkeys(ends(cluster.bootstrap, [PREDICTIONS, LABELS]), 10)
    past = rebuild(cluster.bootstrap, codec, folds(), to=early, checkpoints=tmp_path)
    assert prints(past) == prints(rebuild(cluster.bootstrap, codec, folds(), to=early))
    assert past.events < HALF


def test_a_checkpoint_of_a_topic_that_was_made_anew_is_ignored(
    cluster: Settings, codec: Codec, tmp_path: Path
) -> None:
    save(rebuild(cluster.bootstrap, codec, folds()), tmp_path, {PREDICTIONS: "another"})
    said: list[str] = []
    found = rebuild(cluster.bootstrap, codec, folds(), checkpoints=tmp_path, say=said.append)
    assert len(said) == 1 and "made anew" in said[0]
    assert prints(found) == prints(rebuild(cluster.bootstrap, codec, folds()))


def test_a_runner_recovers_from_its_own_checkpoint(
    cluster: Settings, codec: Codec, tmp_path: Path
) -> None:
    live = rebuild(cluster.bootstrap, codec, folds())
    keeper = CheckpointKeeper(cluster.bootstrap, tmp_path, seconds=0, events=1)
    keeper.keep(live)
    keeper.keep(live)  # nothing new
    assert len([*tmp_path.iterdir()]) == 1
    group = "test-replay-recovery"
    consumer = log.make_consumer(cluster.bootstrap, group)
    offsets = [TopicPartition(*key, offset) for key, offset in live.offsets.items()]
    consumer.commit(offsets=offsets, asynchronous=False)
    consumer.close()
    again = recover(cluster.bootstrap, codec, group, folds(), tmp_path)
    assert prints(again) == prints(live)
    assert {key: at for key, at in again.offsets.items() if at} == live.offsets
    assert again.events == live.events


def plan(cluster: Settings, **more: Any) -> Plan:
    to = ends(cluster.bootstrap, [PREDICTIONS, LABELS])
    return Plan(cluster.bootstrap, lambda: log.connect_codec(cluster, [REPLAYED]), to, **more)


def groups() -> list[list[Fold]]:
    return [[FeatureFold(REPLAYED, PARTITIONS)], [OutcomeWindows(REPLAYED, PARTITIONS)],
            [Ledger([PREDICTIONS, LABELS])]]  # fmt: skip


def test_processes_side_by_side_make_what_one_makes(cluster: Settings, codec: Codec) -> None:
    progress: list[tuple[int, int]] = []
    several = rebuild_all(
        plan(cluster), groups(), 3, lambda done, total: progress.append((done, total))
    )
    one = rebuild_all(plan(cluster), groups(), 1)
    names = [fold.name for group in groups() for fold in group]
    assert [several.fingerprint(n) for n in names] == [one.fingerprint(n) for n in names]
    assert several.events == one.events
    assert progress[-1][0] == progress[-1][1] > 0


def test_an_event_in_two_partitions_counts_once_whoever_counts(
    cluster: Settings, codec: Codec
) -> None:
    """Its producer chose another key the second time: the parts alone would count it twice."""
    label = next(event for event in EVENTS if event.topic == LABELS)
    others = [
        dataclasses.replace(label, data={**label.data, "prediction_id": f"other-{n}"})
        for n in range(12)
    ]
    at = log.LogWriter(cluster.bootstrap, codec).append(others)
    assert len({position.partition for position in at}) > 1
    name = Ledger([]).name
    only = [[Ledger([PREDICTIONS, LABELS])]]
    several, one = rebuild_all(plan(cluster), only, 3), rebuild_all(plan(cluster), only, 1)
    assert several.fingerprint(name) == one.fingerprint(name)
    assert several.events == one.events


def test_the_past_as_it_happened_and_as_it_was_known(cluster: Settings, codec: Codec) -> None:
    every = list(log.read(cluster.bootstrap, codec, [PREDICTIONS, LABELS]))
    moment, clock = EVENTS[HALF].time, sorted(event.recorded_ms for event in every)[HALF]
    for until in (Until(event_time=moment), Until(recorded=clock), Until(moment, clock)):
        found = rebuild_all(plan(cluster, keep=until), groups(), 2)
        kept = {
            event.id
            for event in every
            if event.time <= (until.event_time or event.time)
            and event.recorded_ms <= (until.recorded or event.recorded_ms)
        }
        counted = sum(count for count, _ in found.states["ledger"].topics.values())
        assert counted == len(kept) < len(EVENTS)


class Wrong(OutcomeWindows):
    """A live fold that loses its way at one record."""

    def __init__(self, at: Any) -> None:
        super().__init__(REPLAYED, PARTITIONS)
        self.name = "replayed.wrong"
        self._at = at

    def apply(self, state: Any, batch: Sequence[Event]) -> Any:
        for event in batch:
            super().apply(state, [event])
            if event.at == self._at:
                state.join.predictions["nobody"] = (1 << 60, ("toy-1", 0.5))
        return state


class Right(OutcomeWindows):
    name = "replayed.wrong"

    def __init__(self) -> None:
        super().__init__(REPLAYED, PARTITIONS)
        self.name = "replayed.wrong"


def test_verification_names_the_records_within_which_a_live_fold_went_wrong(
    cluster: Settings, codec: Codec
) -> None:
    events = list(log.read(cluster.bootstrap, codec, [PREDICTIONS, LABELS]))
    first = {event.id: event.at for event in reversed(events)}
    # Not at a repeat (an earlier test wrote some): these never reach a fold.
    place = next(event.at for event in events[217:] if event.at == first[event.id])
    assert place is not None
    live = CountingProjector([Wrong(place)])
    writer = log.LogWriter(cluster.bootstrap, codec)
    for count, event in enumerate(events, 1):
        live.react(event)
        if count % 50 == 0:
            writer.append(state_hashes(live))
    (check,) = check_folds(cluster, codec, [Right()])
    assert not check.passed
    assert "went wrong within 50 records" in check.detail
    assert f"first record {events[200].at}" in check.detail
    key = f"{place.topic}[{place.partition}]@"
    begin, _, end = check.detail.split(key)[1].partition(",")[0].partition(";")[0].partition("-")
    assert int(begin) <= place.offset <= int(end)


def test_written_replays_are_kept_once_and_compared(cluster: Settings, codec: Codec) -> None:
    made = [
        event
        for event in log.read(cluster.bootstrap, codec, [PREDICTIONS])
        if event.type == "PredictionMade"
    ]
    offsets = ends(cluster.bootstrap, [PREDICTIONS])
    one = Replay("model", "replayed", {"model": "toy-7"}, offsets)
    two = dataclasses.replace(one, parameters={"model": "toy-8"})
    for replay, scores in ((one, 0.25), (two, 0.25), (one, 0.25)):
        writer = ReplayWriter(cluster, codec, replay)
        writer.add(rescored(replay, event, "toy-7", scores) for event in made)
        writer.finish(len(made), {"predictions": float(len(made))})
        assert writer.written == len(made)
    read = partial(log.read, cluster.bootstrap, codec)
    first, second = find_replays(read, [one.id, two.id])
    assert len(first.findings) == len({event.id for event in made})
    assert list(differences(first, second)) == []
