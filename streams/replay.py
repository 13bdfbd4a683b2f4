"""The replay runner: any folds, from the start of the log to any point, without side effects."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from confluent_kafka import KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from infra import kafka_security
from infra.garbage import seldom_collected
from schemas.catalogue import STATE_HASHES
from schemas.codec import Codec
from schemas.event import Event
from streams import checkpoint, log
from streams.checkpoint import CountingProjector
from streams.fold import Fold

BATCH = 5_000
Progress = Callable[[int, int], None]


class Reader(Protocol):
    """`streams.log.read` without its first two arguments: every event of `topics` from `start` up to `to`."""

    def __call__(
        self,
        topics: Sequence[str],
        to: Mapping[log.Partition, int] | None = None,
        start: Mapping[log.Partition, int] | None = None,
    ) -> Iterator[Event]: ...


@dataclass(frozen=True, slots=True)
class Verdict:
    """A live fold's last stated hash beside the one that the log gives at the same offsets."""

    fold: str
    live: str
    replayed: str
    offsets: dict[tuple[str, int], int]
    events: int

    @property
    def equal(self) -> bool:
        return self.live == self.replayed


@dataclass(frozen=True, slots=True)
class Until:
    """Which part of the log counts; both times in ms, None for all of it.

    `event_time`: only what happened by then, whenever it was recorded ("as of now"). `recorded`: only
    what had been recorded by then, whenever it happened ("as known then").
    """

    event_time: int | None = None
    recorded: int | None = None

    def __call__(self, event: Event) -> bool:
        if self.event_time is not None and event.time > self.event_time:
            return False
        return self.recorded is None or event.recorded_ms <= self.recorded

    def __bool__(self) -> bool:
        """True if anything may be left out."""
        return self.event_time is not None or self.recorded is not None


def rebuild(
    bootstrap: str,
    codec: Codec,
    folds: Sequence[Fold],
    to: log.Offsets | None = None,
    keep: Callable[[Event], bool] | None = None,
    on_progress: Progress = lambda done, total: None,
    checkpoints: Path | None = None,
    say: Callable[[str], None] = checkpoint.warn,
    on_start: Callable[[CountingProjector], None] = lambda projector: None,
) -> CountingProjector:
    """Fold the log up to the offsets `to` (default: its end), only events that `keep` lets through.

    With a folder of `checkpoints` the newest that fits saves its part of the way; `say` is told about those
    that ought to fit and do not. A `keep` makes another state, so nothing is taken from there. `on_start`
    gets what it begins with. Raises LogUnavailable.
    """
    projector = None
    if checkpoints is not None and keep is None:
        projector = _from_checkpoint(bootstrap, folds, checkpoints, to, say)
    if projector is None:
        projector = CountingProjector(folds)
    on_start(projector)
    start = dict(projector.offsets)
    batch: list[Event] = []
    with seldom_collected():
        for event in log.read(
            bootstrap, codec, projector.topics, to=to, start=start, on_progress=on_progress
        ):
            if keep is None or keep(event):
                batch.append(event)
            if len(batch) == BATCH:
                projector.feed(batch)
                batch.clear()
        projector.feed(batch)
    return projector


def _from_checkpoint(
    bootstrap: str,
    folds: Sequence[Fold],
    folder: Path,
    to: log.Offsets | None,
    say: Callable[[str], None],
) -> CountingProjector | None:
    if not any(folder.glob(f"*{checkpoint.SUFFIX}")):
        return None
    topics = topics_of(folds)
    ids = topic_ids(bootstrap, topics)
    return checkpoint.newest(folds, folder, to, ends(bootstrap, topics), ids, say)


def topics_of(folds: Sequence[Fold]) -> list[str]:
    return sorted({topic for fold in folds for topic in fold.topics})


def ends(bootstrap: str, topics: Sequence[str]) -> log.Offsets:
    """The next offset to be written in each partition of the topics that exist; raises LogUnavailable."""
    consumer = log.make_consumer(bootstrap)
    try:
        return log.end_offsets(consumer, log.partitions_of(consumer, topics))
    finally:
        consumer.close()


def topic_ids(bootstrap: str, topics: Sequence[str]) -> dict[str, str]:
    """Kafka's ids of the topics that exist: one that was deleted and made again has a new one."""
    if not topics:
        return {}
    admin = AdminClient({**log.CLIENT_SETTINGS, **kafka_security.librdkafka(bootstrap)})
    found = {}
    for name, future in admin.describe_topics(
        TopicCollection(list(topics)), request_timeout=10.0
    ).items():
        try:
            found[name] = str(future.result().topic_id)
        except KafkaException:  # no such topic yet, or no broker: who reads it will say so
            continue
    return found


def stated_hashes(bootstrap: str, codec: Codec) -> dict[str, Event]:
    """The newest StateHashed of each fold."""
    return {
        event.data["fold"]: event
        for event in log.read(bootstrap, codec, [STATE_HASHES])
        if event.type == "StateHashed"
    }


def stated_offsets(event: Event) -> log.Offsets:
    """The offsets of a StateHashed: everything before them had been applied."""
    return {(at["topic"], at["partition"]): at["offset"] for at in event.data["offsets"]}


def verify(
    bootstrap: str,
    codec: Codec,
    folds: Sequence[Fold],
    on_progress: Progress = lambda done, total: None,
) -> list[Verdict]:
    """Rebuild each fold to the offsets of its newest live hash and compare; folds without one are absent.

    From zero: a proof takes nothing from a checkpoint.
    """
    stated = stated_hashes(bootstrap, codec)
    verdicts = []
    for offsets, group in _by_offsets(folds, stated):
        projector = rebuild(bootstrap, codec, group, to=offsets, on_progress=on_progress)
        for fold in group:
            live = stated[fold.name].data["sha256"]
            mine = {key: offset for key, offset in offsets.items() if key[0] in fold.topics}
            replayed = projector.fingerprint(fold.name)
            verdicts.append(Verdict(fold.name, live, replayed, mine, projector.events))
    return sorted(verdicts, key=lambda verdict: verdict.fold)


def _by_offsets(
    folds: Sequence[Fold], stated: dict[str, Event]
) -> list[tuple[log.Offsets, list[Fold]]]:
    """Folds whose hashes were stated at compatible offsets share one pass over the log."""
    groups: list[tuple[log.Offsets, list[Fold]]] = []
    for fold in folds:
        if fold.name not in stated:
            continue
        offsets = stated_offsets(stated[fold.name])
        for shared, group in groups:
            same = {topic for topic, _ in shared} & {topic for topic, _ in offsets}
            if {k: v for k, v in shared.items() if k[0] in same} == {
                k: v for k, v in offsets.items() if k[0] in same
            }:
                shared.update(offsets)
                group.append(fold)
                break
        else:
            groups.append((offsets, [fold]))
    return groups
