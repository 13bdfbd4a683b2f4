"""Proof: what the live services hold is what the log says, store by store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from consumers.history.tables import DATABASE, table_name
from driftlog.settled import live_folds
from infra.clickhouse import server_address
from infra.settings import Settings
from schemas.codec import Codec
from streams import log, replay
from streams.features import FeatureFold
from streams.fold import Fold, id_hash
from streams.ledger import MASK, Ledger
from streams.online import OnlineStore, content_fingerprint, expected_content
from streams.task import Task


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
    """Each fold's newest StateHashed against a replay to the same offsets."""
    verdicts = replay.verify(settings.bootstrap, codec, folds, on_progress)
    checks = [
        Check(v.fold, v.equal, v.replayed, v.live, f"at {sum(v.offsets.values()):,} records")
        for v in verdicts
    ]
    stated = {verdict.fold for verdict in verdicts}
    checks += [
        Check(fold.name, False, "a StateHashed event", "none", "has its service been running?")
        for fold in folds
        if fold.name not in stated
    ]
    return checks


def check_stores(
    settings: Settings,
    codec: Codec,
    tasks: Sequence[Task],
    on_progress: replay.Progress = lambda done, total: None,
) -> list[Check]:
    """ClickHouse and Redis against the end of the log, in one pass over it."""
    topics = [topic.name for topic in log.all_topics(settings, tasks)]
    ledger = Ledger(topics)
    features = {task.name: FeatureFold(task, settings.partitions) for task in tasks}
    projector = replay.rebuild(
        settings.bootstrap, codec, [ledger, *features.values()], on_progress=on_progress
    )
    checks = _check_history(settings, projector.states[ledger.name].topics, topics)
    store = OnlineStore(settings.redis, tasks)
    for task, fold in features.items():
        expected = expected_content(projector.states[fold.name])
        found = store.content(task)
        checks.append(
            Check(
                f"online features of {task}",
                expected == found,
                content_fingerprint(expected),
                content_fingerprint(found),
                f"{len(expected):,} keys",
            )
        )
    return checks


def _check_history(
    settings: Settings, logged: Mapping[str, tuple[int, int]], topics: Sequence[str]
) -> list[Check]:
    """The distinct event ids of each topic in the log against those in ClickHouse."""
    import clickhouse_connect

    client = clickhouse_connect.get_client(**server_address(settings.clickhouse))
    checks = []
    for topic in topics:
        count, total = logged.get(topic, (0, 0))
        table = f"{DATABASE}.{table_name(topic)}"
        rows = client.query(f"SELECT event_id FROM {table} FINAL").result_columns  # noqa: S608
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
