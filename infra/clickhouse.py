"""Where a ClickHouse server is, as its client wants to be told."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit


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
