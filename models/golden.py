"""When a task's golden set is cut anew (pure).

Golden rows are chosen by the hash of their id, at any time alike, so a newer set holds rows that no version
has trained on either. It names the set that it replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from streams.task import DAY_MS, GatePolicy

REFRESH = "golden"
"""Trigger of a request whose training cuts the golden set anew."""


def due(policy: GatePolicy, known: Mapping[str, Any] | None, asked: Mapping[str, Any]) -> bool:
    """Whether the request `asked` cuts one: the first; on demand; or when `known` is `golden_days` old."""
    if known is None or asked["trigger"] == REFRESH:
        return True
    if policy.golden_days is None:
        return False
    return int(asked["labels_until"]) - int(known["to_time"]) >= policy.golden_days * DAY_MS
