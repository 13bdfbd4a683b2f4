"""What keeps a snapshot, and what the exported file says to DVC."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import yaml

from models.dvc import metafile
from models.lineage import Cut, Run
from models.registry import Registry
from models.retention import removable, retention, snapshots
from schemas.event import Event
from tests.unit.models.model_parts import WEAR, asked, decided, registered


def taken(request: str, sha256: str, purpose: str = "training", time: int = 0) -> Event:
    cut = Cut(sha256, f"snapshots/{sha256}.parquet", 9, 5, 2, 0, 9, "SELECT 1", {})
    return Run(WEAR, asked(request, time).data, "").snapshot_taken(cut, purpose)


def history() -> list[Event]:
    """Five trainings; wear-3 answers, wear-2 is its parent; golden set, a manual one, one unfinished."""
    events = [taken("r1", "golden", "golden", 1), taken("by hand", "manual", "manual", 3)]
    for number in range(1, 6):
        request, version = f"r{number}", f"wear-{number}"
        events += [asked(request, number), taken(request, f"s{number}", time=number)]
        parent = f"wear-{number - 1}"
        if number < 5:
            made = registered(version, number, request)
            fields = {**made.data, "snapshot": f"s{number}", "parent": parent}
            events.append(Event(made.topic, made.type, fields))
            kind = "PromotionRejected" if number == 4 else "ModelPromoted"
            events.append(decided(version, number, kind, parent, request))
    return events


def state(events: list[Event]) -> Any:
    return Registry().apply(Registry().initial(), events)


def test_what_something_needs_stays_and_the_reason_is_told() -> None:
    found = retention(state(history()), keep_last=0)
    assert {sha256: kept.reasons for sha256, kept in found.items()} == {
        "golden": ["the golden set of wear"],
        "manual": ["taken by a person"],
        "s1": [],
        "s2": ["wear-2 learned from it and is the parent of wear-3"],
        "s3": ["wear-3 learned from it and answers"],
        "s4": [],
        "s5": ["its training has not ended"],
    }
    assert removable(found, ["s1", "s3", "s4", "unknown", "golden"]) == ["s1", "s4"]


def test_the_newest_stay_too() -> None:
    found = retention(state(history()), keep_last=2)
    assert found["s4"].reasons == ["one of the newest 2 of wear"]
    assert found["s1"].reasons == []
    assert [one["snapshot"] for one in snapshots(state(history()), "wear")][-2:] == ["s4", "s5"]
    assert snapshots(state(history()), "other") == []


def test_a_metafile_is_what_dvc_documents() -> None:
    data = b"parquet"
    text = metafile("wear 1.parquet", data, taken("r1", "s1").data)
    read = yaml.safe_load(text)
    assert read["outs"] == [
        {
            "md5": hashlib.md5(data).hexdigest(),
            "size": 7,
            "hash": "md5",
            "path": "wear 1.parquet",
        }
    ]
    assert read["meta"]["driftlog"]["snapshot"] == "s1"
    assert json.dumps(read["meta"]["driftlog"]["from_time"]) == "0"
