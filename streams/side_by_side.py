"""Replay in several processes: folds that share nothing side by side, and one fold by partition if it allows.

Every process reads its own part of the log with a consumer of its own. What comes back is what one process
would have made: where that cannot be told from the parts, one process makes it.
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from schemas.codec import Codec
from schemas.event import Event
from streams import checkpoint
from streams.canonical import fingerprint
from streams.checkpoint import CheckpointRefused, CountingProjector
from streams.fold import Fold, Seen
from streams.log import Offsets
from streams.orphans import end_with
from streams.replay import Progress, rebuild, topic_ids, topics_of

PROGRESS_SECONDS = 0.2
_FORK = multiprocessing.get_context("fork")  # folds hold a user's functions, which do not pickle


@runtime_checkable
class Mergeable(Fold, Protocol):
    """A fold whose state is made of its states over parts of the partitions, each read by one process."""

    def merge(self, states: Sequence[Any]) -> Any: ...


@dataclass(frozen=True)
class Plan:
    """What to replay and how; see `streams.replay.rebuild`.

    `to` names every partition that is read. `connect` makes a codec: each process has its own.
    `save_after`: a process that folded so many events or more leaves a checkpoint.
    """

    bootstrap: str
    connect: Callable[[], Codec]
    to: Offsets
    keep: Callable[[Event], bool] | None = None
    checkpoints: Path | None = None
    save_after: int | None = None
    say: Callable[[str], None] = checkpoint.warn


@dataclass(slots=True)
class Folded:
    """States by fold, settled; events by topic; how many of all events came out of checkpoints."""

    states: dict[str, Any] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    restored: int = 0

    @property
    def events(self) -> int:
        return sum(self.counts.values())

    def fingerprint(self, fold: str) -> str:
        """SHA-256 of the fold's state."""
        return fingerprint(self.states[fold])


@dataclass(frozen=True, slots=True)
class _Job:
    """The folds of one process, and its part of the log."""

    folds: Sequence[Fold]
    to: Offsets
    part: bool = False

    @property
    def size(self) -> int:
        return sum(self.to.values())


@dataclass(frozen=True, slots=True)
class _Made:
    """What a process made, as bytes; `seen` only of a part, so that parts can be told to be apart."""

    states: dict[str, bytes]
    counts: dict[str, int]
    restored: int
    seen: dict[str, Seen]


def rebuild_all(
    plan: Plan,
    groups: Sequence[Sequence[Fold]],
    jobs: int | None = None,
    on_progress: Progress = lambda done, total: None,
) -> Folded:
    """Fold each group, in at most `jobs` processes (default: one a CPU); raises LogUnavailable.

    A fold that is `Mergeable` and alone in its group is folded by partition.
    """
    jobs = jobs or os.cpu_count() or 1
    work = [job for group in groups if group for job in _jobs(plan, group, jobs)]
    if jobs == 1 or len(work) == 1:
        return _alone(plan, work, on_progress)
    made = _together(plan, work, min(jobs, len(work)), on_progress)
    result = Folded()
    parts: dict[str, list[tuple[_Job, _Made | None]]] = {}
    for job, one in zip(work, made, strict=True):
        if job.part:
            parts.setdefault(job.folds[0].name, []).append((job, one))
            continue
        if one is None:  # a state that does not travel between processes
            _add(result, _fold(plan, job, lambda done, total: None))
            continue
        _join(result, job.folds, one)
    for several in parts.values():
        _merge(plan, result, several)
    return result


def _jobs(plan: Plan, group: Sequence[Fold], jobs: int) -> list[_Job]:
    topics = set(topics_of(group))
    to = {key: end for key, end in plan.to.items() if key[0] in topics}
    if jobs == 1 or len(group) > 1 or not isinstance(group[0], Mergeable):
        return [_Job(group, to)]
    # The largest partition first, each to who has least so far.
    shares: list[Offsets] = [{} for _ in range(min(jobs, len(to)) or 1)]
    for key, end in sorted(to.items(), key=lambda item: -item[1]):
        min(shares, key=lambda share: sum(share.values()))[key] = end
    return [_Job(group, share, part=True) for share in shares]


def _alone(plan: Plan, work: Sequence[_Job], on_progress: Progress) -> Folded:
    result = Folded()
    total = sum(job.size for job in work)
    before = 0
    for job in work:

        def told(done: int, _: int, before: int = before) -> None:
            on_progress(before + done, total)

        _add(result, _fold(plan, replace(job, part=False), told))
        before += job.size
    return result


def _fold(
    plan: Plan, job: _Job, on_progress: Progress
) -> tuple[Sequence[Fold], CountingProjector, int]:
    """(folds, projector, events that were not folded now but restored)"""
    codec = plan.connect()
    folder = None if job.part else plan.checkpoints
    restored = 0

    def begun(projector: CountingProjector) -> None:
        nonlocal restored
        restored = projector.events

    projector = rebuild(
        *(plan.bootstrap, codec, job.folds, job.to, plan.keep, on_progress, folder, plan.say),
        on_start=begun,
    )
    if (
        folder is not None
        and plan.keep is None
        and plan.save_after is not None
        and projector.events - restored >= plan.save_after
    ):
        try:
            checkpoint.save(projector, folder, topic_ids(plan.bootstrap, projector.topics))
        except (CheckpointRefused, OSError) as error:
            plan.say(f"no checkpoint written: {error}")
    return job.folds, projector, restored


def _add(result: Folded, made: tuple[Sequence[Fold], CountingProjector, int]) -> None:
    folds, projector, restored = made
    for fold in folds:
        projector.fingerprint(fold.name)  # settles it
        result.states[fold.name] = projector.states[fold.name]
    result.counts |= projector.counts
    result.restored += restored


def _join(result: Folded, folds: Sequence[Fold], made: _Made) -> None:
    for fold in folds:
        result.states[fold.name] = checkpoint.unpacked(fold, made.states[fold.name])
    result.counts |= made.counts
    result.restored += made.restored


def _merge(plan: Plan, result: Folded, several: Sequence[tuple[_Job, _Made | None]]) -> None:
    fold = several[0][0].folds[0]
    assert isinstance(fold, Mergeable)
    parts = [made for _, made in several if made is not None]
    if len(parts) < len(several) or _overlap(made.seen for made in parts):
        whole = {key: end for job, _ in several for key, end in job.to.items()}
        _add(result, _fold(plan, _Job([fold], whole), lambda done, total: None))
        return
    states = [checkpoint.unpacked(fold, made.states[fold.name]) for made in parts]
    result.states[fold.name] = fold.merge(states)
    topics = {topic for made in parts for topic in made.counts}
    result.counts |= {topic: sum(made.counts.get(topic, 0) for made in parts) for topic in topics}


def _overlap(parts: Iterable[Mapping[str, Seen]]) -> bool:
    """Whether an event stands in two parts: repeats are dropped within a part only."""
    known: dict[str, set[int]] = {}
    for part in parts:
        for topic, seen in part.items():
            mine = known.setdefault(topic, set())
            if not mine.isdisjoint(seen.young) or not mine.isdisjoint(seen.old):
                return True
            mine |= seen.young | seen.old
    return False


@dataclass
class _Shared:
    """What a forked process finds in its memory."""

    plan: Plan
    work: Sequence[_Job]
    told: Any


_shared: _Shared | None = None


def _together(
    plan: Plan, work: Sequence[_Job], jobs: int, on_progress: Progress
) -> list[_Made | None]:
    global _shared  # noqa: PLW0603 - inherited by the processes that are forked below
    _shared = _Shared(plan, work, _FORK.SimpleQueue())
    try:
        with ProcessPoolExecutor(
            jobs, _FORK, initializer=end_with, initargs=(os.getpid(),)
        ) as pool:
            order = sorted(range(len(work)), key=lambda index: -work[index].size)
            running = {index: pool.submit(_work, index) for index in order}
            _follow(list(running.values()), [job.size for job in work], on_progress)
            return [running[index].result() for index in range(len(work))]
    finally:
        _shared = None


def _follow(futures: list[Future[Any]], sizes: Sequence[int], on_progress: Progress) -> None:
    assert _shared is not None
    done = [0] * len(sizes)
    open_ = set(futures)
    while open_:
        open_ = wait(open_, PROGRESS_SECONDS).not_done
        while not _shared.told.empty():
            index, count = _shared.told.get()
            done[index] = count
        on_progress(sum(done), sum(sizes))


def _work(index: int) -> _Made | None:
    """In a process of its own; None if a state is not of the kind that can be sent."""
    assert _shared is not None
    job, told = _shared.work[index], _shared.told
    folds, projector, restored = _fold(
        _shared.plan, job, lambda done, total: told.put((index, done + job.size - total))
    )
    for fold in folds:
        projector.fingerprint(fold.name)  # settles it
    try:
        states = {
            fold.name: checkpoint.packed(projector.states[fold.name], fold)[1] for fold in folds
        }
    except CheckpointRefused:
        return None
    seen = projector._seen if job.part else {}
    return _Made(states, projector.counts, restored, seen)
