"""Proof: what the live services hold is what the log says, store by store."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from driftlog.settled import live_folds, wait_settled
from infra.clickhouse import server_address, table_name, table_of
from infra.settings import Settings
from schemas.codec import Codec
from streams import log, replay
from streams.divergence import diverged, statements
from streams.features import FeatureFold, FeatureState
from streams.fold import Fold, id_hash
from streams.ledger import MASK, Ledger
from streams.online import OnlineStore, content_fingerprint, expected_content
from streams.side_by_side import Plan, rebuild_all
from streams.task import Task
from streams.window_hashes import fold_name
from streams.window_replay import verify_windows


@dataclass(frozen=True, slots=True)
class Check:
    """One claim: what the log says, what was found, and the words to show."""

    name: str
    passed: bool
    expected: str
    found: str
    detail: str = ""


def all_folds(settings: Settings, tasks: Sequence[Task]) -> list[Fold]:
    """Every fold that a live service drives."""
    return [fold for folds in live_folds(settings, tasks).values() for fold in folds]


def check_folds(
    settings: Settings,
    codec: Codec,
    folds: Sequence[Fold],
    on_progress: replay.Progress = lambda done, total: None,
) -> list[Check]:
    """Each fold's newest StateHashed against a replay to the same offsets.

    Where they differ, the words say between which records the live fold went wrong.
    """
    verdicts = replay.verify(settings.bootstrap, codec, folds, on_progress)
    known = {fold.name: fold for fold in folds}
    checks = []
    for verdict in verdicts:
        wrong = ""
        if not verdict.equal:
            wrong = "; " + where_wrong(settings, codec, known[verdict.fold], on_progress)
        checks.append(_compared(verdict, wrong))
    return [*checks, *_unstated(known, verdicts, "has its service been running?")]


def check_windows(
    settings: Settings,
    codec: Codec,
    tasks: Sequence[Task],
    on_progress: replay.Progress = lambda done, total: None,
) -> list[Check]:
    """The input windows of each partition: the newest StateHashed against a replay of its payloads."""
    stated = replay.stated_hashes(settings.bootstrap, codec)
    verdicts = verify_windows(settings.bootstrap, codec, tasks, stated, on_progress)
    names = [fold_name(task.name, p) for task in tasks for p in range(settings.partitions)]
    missing = _unstated(names, verdicts, "has a window worker been running?")
    return [*map(_compared, verdicts), *missing]


def _compared(verdict: replay.Verdict, wrong: str = "") -> Check:
    detail = f"at {sum(verdict.offsets.values()):,} records{wrong}"
    return Check(verdict.fold, verdict.equal, verdict.replayed, verdict.live, detail)


def _unstated(
    names: Iterable[str], verdicts: Sequence[replay.Verdict], question: str
) -> list[Check]:
    """A failed check for each fold that has never stated its hash."""
    stated = {verdict.fold for verdict in verdicts}
    return [
        Check(name, False, "a StateHashed event", "none", question)
        for name in names
        if name not in stated
    ]


def where_wrong(
    settings: Settings,
    codec: Codec,
    fold: Fold,
    on_progress: replay.Progress = lambda done, total: None,
) -> str:
    """In words: the tightest range of records within which a live fold left the way of the log."""
    read = partial(log.read, settings.bootstrap, codec)
    found = diverged(read, fold, statements(read, fold.name), on_progress)
    if found is None:
        return "its earlier statements agree with the log: a fold that heals, or another order of records"
    return str(found)


def check_stores(
    settings: Settings,
    codec: Codec,
    tasks: Sequence[Task],
    on_progress: replay.Progress = lambda done, total: None,
) -> list[Check]:
    """ClickHouse and Redis against the log as it ends now, ledger and features side by side.

    Events may keep coming: what the stores hold of these is left out.
    """
    topics = [topic.name for topic in log.all_topics(settings, tasks)]
    ledger = Ledger(topics)
    features = {task.name: FeatureFold(task, settings.partitions) for task in tasks}
    ends = replay.ends(settings.bootstrap, topics)
    plan = Plan(settings.bootstrap, lambda: log.connect_codec(settings, tasks), ends)
    groups: list[list[Fold]] = [[ledger]]
    groups += [[fold] for fold in features.values()]
    found = rebuild_all(plan, groups, on_progress=on_progress)
    wait_settled(settings, tasks, ends=ends)
    checks = _check_history(settings, found.states[ledger.name].topics, topics, ends)
    store = OnlineStore(settings.redis, tasks)
    for task, fold in features.items():
        stored = store.content(task)
        expected = expected_content(found.states[fold.name])
        moved = _changed_since(settings, codec, fold, found.states[fold.name], ends)
        expected, stored = (
            {key: blob for key, blob in content.items() if key not in moved}
            for content in (expected, stored)
        )
        told = f"; {len(moved):,} changed meanwhile" if moved else ""
        checks.append(
            Check(
                f"online features of {task}",
                expected == stored,
                content_fingerprint(expected),
                content_fingerprint(stored),
                f"{len(expected):,} keys{told}",
            )
        )
    return checks


def _changed_since(
    settings: Settings, codec: Codec, fold: FeatureFold, state: FeatureState, since: log.Offsets
) -> set[str]:
    """Keys that events from these offsets on have changed; the state moves on with them."""
    state.dirty.clear()
    fold.apply(state, list(log.read(settings.bootstrap, codec, fold.topics, start=since)))
    return state.dirty


def _check_history(
    settings: Settings,
    logged: Mapping[str, tuple[int, int]],
    topics: Sequence[str],
    ends: log.Offsets,
) -> list[Check]:
    """The distinct event ids of each topic in the log against those in ClickHouse, up to the same ends.

    `FINAL` keeps the first place of an event, so a repeat that came later moves none beyond an end.
    """
    import clickhouse_connect

    client = clickhouse_connect.get_client(**server_address(settings.clickhouse))
    checks = []
    for topic in topics:
        count, total = logged.get(topic, (0, 0))
        table = table_of(topic)
        before = [end for (name, _), end in sorted(ends.items()) if name == topic]
        rows = client.query(
            f"SELECT event_id FROM {table} FINAL"  # noqa: S608
            f" WHERE _offset < arrayElement({before or [0]}, _partition + 1)"
        ).result_columns
        ids = rows[0] if rows else []
        found = sum(map(id_hash, ids)) & MASK
        checks.append(
            Check(
                f"history {table_name(topic)}",
                (count, total) == (len(ids), found),
                f"{count:,} events, id sum {total:016x}",
                f"{len(ids):,} rows, id sum {found:016x}",
            )
        )
    return checks
