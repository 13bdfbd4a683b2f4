"""Delete what is derived, and get it back: ClickHouse's and Redis's data are folds over the log."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence

from driftlog.settled import Lags, wait_settled
from infra import chaos
from infra.errors import InfraError
from infra.lifecycle import is_up, wait_ready
from infra.settings import Settings
from streams.online import OnlineStore
from streams.replay import Progress
from streams.task import Task

STORES = ("clickhouse", "schemas")
"""Folders of the home that hold nothing but derived data (`schemas` caches what the registry says)."""


def rebuild_stores(
    settings: Settings,
    tasks: Sequence[Task],
    on_progress: Progress = lambda done, total: None,
    timeout_s: float = 900.0,
) -> float:
    """Stop the readers, delete their stores, start them, wait until they are where the log is; seconds taken.

    Raises InfraError if the system is not up, or the history is kept by a server elsewhere.
    """
    if settings.clickhouse_url:
        raise InfraError(
            f"the history is kept by {settings.clickhouse_url}: drop the database driftlog there,"
            " then `driftlog chaos restart history`"
        )
    if not is_up(settings):
        raise InfraError("nothing is up here: `driftlog up` first")
    began = time.monotonic()
    readers = ("history", "worker")
    for name in readers:
        chaos.inject(settings, "kill", name)
    try:
        for store in STORES:
            shutil.rmtree(settings.home / store, ignore_errors=True)
        OnlineStore(settings.redis, tasks).wipe()
    finally:
        for name in readers:
            chaos.inject(settings, "restart", name)
    wait_ready(settings, readers)
    total = 0

    def on_wait(lags: Lags) -> None:
        nonlocal total
        left = max(0, lags["history"])
        total = max(total, left)
        on_progress(total - left, total)

    wait_settled(settings, tasks, timeout_s, on_wait)
    return time.monotonic() - began
