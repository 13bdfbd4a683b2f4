"""ClickHouse: where a server is, and how the history names things in its queries."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

DATABASE = "driftlog"


def table_name(topic: str) -> str:
    """`driftlog.drift_scores` -> `drift_scores`, `flights.predictions` -> `flights_predictions`."""
    return topic.removeprefix("driftlog.").replace(".", "_").replace("-", "_")


def table_of(topic: str) -> str:
    """The table of a topic, with its database."""
    return f"{DATABASE}.{table_name(topic)}"


def moment(ms: int) -> str:
    """A literal of event time (ms since the epoch, UTC)."""
    return f"fromUnixTimestamp64Milli({ms}, 'UTC')"


def server_address(url: str) -> dict[str, Any]:
    """Arguments of `clickhouse_connect.get_client` for a URL in which user and password may stand."""
    parts = urlsplit(url)
    return {
        "host": parts.hostname or "127.0.0.1",
        "port": parts.port or (8443 if parts.scheme == "https" else 8123),
        "username": parts.username or "default",
        "password": parts.password or "",
        "secure": parts.scheme == "https",
    }
