"""Which snapshots the log tells of, which of them must stay, and why (pure)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from models.registry import RegistryState, champion


@dataclass(slots=True)
class Kept:
    """A snapshot and the reasons that keep it; without any it may go."""

    taken: Mapping[str, Any]
    """The fields of its (first) SnapshotTaken."""
    reasons: list[str] = field(default_factory=list)


def snapshots(state: RegistryState, task: str | None = None) -> list[Mapping[str, Any]]:
    """Every SnapshotTaken, by event time and event id."""
    found = [
        data
        for request in state.requests.values()
        for type_, data in request.steps.values()
        if type_ == "SnapshotTaken" and task in (None, data["task"])
    ]
    return sorted(found, key=lambda data: (data["event_time"], data["event_id"]))


def retention(state: RegistryState, keep_last: int) -> dict[str, Kept]:
    """SHA-256 -> what keeps the snapshot.

    Golden sets stay, what a person took, what a version that answers or its parent learned from, what
    a request without an outcome may still need, and the newest `keep_last` training sets of each task.
    """
    found: dict[str, Kept] = {}
    for taken in snapshots(state):
        kept = found.setdefault(taken["snapshot"], Kept(taken))
        request = state.requests[taken["request_id"]]
        if taken["purpose"] == "golden":
            kept.reasons.append(f"the golden set of {taken['task']}")
        elif taken["purpose"] == "manual":
            kept.reasons.append("taken by a person")
        elif request.ended is None:
            kept.reasons.append("its training has not ended")
    for task in sorted(state.decisions):
        _of_versions(state, task, found)
    for task in sorted({kept.taken["task"] for kept in found.values()}):
        sets = [one for one in snapshots(state, task) if one["purpose"] == "training"]
        for taken in sets[len(sets) - keep_last :] if keep_last else []:
            found[taken["snapshot"]].reasons.append(f"one of the newest {keep_last} of {task}")
    return found


def removable(found: Mapping[str, Kept], files: Iterable[str]) -> list[str]:
    """Of the files (by SHA-256) those that the log tells of and nothing keeps."""
    return [sha256 for sha256 in sorted(files) if sha256 in found and not found[sha256].reasons]


def _of_versions(state: RegistryState, task: str, found: Mapping[str, Kept]) -> None:
    now = champion(state, task)
    serving = state.versions.get(now.version) if now else None
    if serving is None:
        return
    parent = state.versions.get(serving.parent or "")
    for version, words in ((serving, "answers"), (parent, f"is the parent of {serving.version}")):
        kept = found.get(version.snapshot or "") if version else None
        if version is not None and kept is not None:
            kept.reasons.append(f"{version.version} learned from it and {words}")
