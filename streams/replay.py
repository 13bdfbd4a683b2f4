"""The replay runner: any folds, from the start of the log to any point, without side effects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from schemas.catalogue import STATE_HASHES
from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.fold import Fold, Projector

BATCH = 5_000
Progress = Callable[[int, int], None]


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


def rebuild(
    bootstrap: str,
    codec: Codec,
    folds: Sequence[Fold],
    to: log.Offsets | None = None,
    keep: Callable[[Event], bool] = lambda event: True,
    on_progress: Progress = lambda done, total: None,
) -> Projector:
    """Fold the log up to the offsets `to` (default: its end), only events that `keep` lets through.

    Raises LogUnavailable.
    """
    projector = Projector(folds)
    batch: list[Event] = []
    for event in log.read(bootstrap, codec, projector.topics, to=to, on_progress=on_progress):
        if keep(event):
            batch.append(event)
        if len(batch) == BATCH:
            projector.feed(batch)
            batch.clear()
    projector.feed(batch)
    return projector


def stated_hashes(bootstrap: str, codec: Codec) -> dict[str, Event]:
    """The newest StateHashed of each fold."""
    return {
        event.data["fold"]: event
        for event in log.read(bootstrap, codec, [STATE_HASHES])
        if event.type == "StateHashed"
    }


def verify(
    bootstrap: str,
    codec: Codec,
    folds: Sequence[Fold],
    on_progress: Progress = lambda done, total: None,
) -> list[Verdict]:
    """Rebuild each fold to the offsets of its newest live hash and compare; folds without one are absent."""
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
        offsets = {
            (entry["topic"], entry["partition"]): entry["offset"]
            for entry in stated[fold.name].data["offsets"]
        }
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
