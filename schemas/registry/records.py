"""Records of the topic `_schemas`, in the format that Confluent's registry and Karapace share.

The order of a key's members is part of the format: compaction compares keys byte by byte.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

TOPIC = "_schemas"


@dataclass(frozen=True, slots=True)
class Record:
    """Key and value of one record; `value` None is a tombstone."""

    key: bytes
    value: bytes | None


def schema_record(
    subject: str, version: int, schema_id: int, text: str, deleted: bool = False
) -> Record:
    """A version of a subject; with `deleted` it is hidden but its id can still be read."""
    value = {
        "subject": subject,
        "version": version,
        "id": schema_id,
        "schema": text,
        "deleted": deleted,
    }
    return Record(_schema_key(subject, version), dump(value))


def schema_tombstone(subject: str, version: int) -> Record:
    """Removes a version for good."""
    return Record(_schema_key(subject, version), None)


def delete_subject_record(subject: str, version: int) -> Record:
    """Hides the versions of a subject up to `version`."""
    key = {"keytype": "DELETE_SUBJECT", "subject": subject, "magic": 0}
    return Record(dump(key), dump({"subject": subject, "version": version}))


def config_record(subject: str | None, level: str | None) -> Record:
    """The compatibility level of a subject, or of all (None); level None removes the setting."""
    key = {"keytype": "CONFIG", "subject": subject, "magic": 0}
    return Record(dump(key), None if level is None else dump({"compatibilityLevel": level}))


def mode_record(subject: str | None, mode: str | None) -> Record:
    """READWRITE, READONLY or IMPORT for a subject, or for all (None); mode None removes it."""
    key = {"keytype": "MODE", "subject": subject, "magic": 0}
    return Record(dump(key), None if mode is None else dump({"mode": mode}))


def noop_record() -> Record:
    """Means nothing; reading it back proves that everything before it was read."""
    return Record(dump({"keytype": "NOOP", "magic": 0}), dump({"magic": 0}))


def dump(value: Any) -> bytes:
    """JSON without blanks, members in the given order."""
    return json.dumps(value, separators=(",", ":")).encode()


def load(raw: bytes | None) -> dict[str, Any] | None:
    """The JSON object in `raw`; None for anything else (foreign writers' records are skipped)."""
    try:
        value = json.loads(raw) if raw else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _schema_key(subject: str, version: int) -> bytes:
    return dump({"keytype": "SCHEMA", "subject": subject, "version": version, "magic": 1})
