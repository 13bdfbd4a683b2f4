"""A Feast user reads our features: Feast itself, in an environment of its own, finds what was served."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from models.feast_repo import write_repo
from streams.features import FeatureFold, assemble
from streams.fold import Projector
from streams.task import HOUR_MS
from tests.unit.models.feature_stream import COMPUTED, SPAN, START, TASK, Stream
from tests.unit.models.snapshot_history import apart, history_of

pytestmark = pytest.mark.integration
UV = Path(sys.executable).with_name("uv")

READ = """
import json, sys
import pandas as pd
from feast import FeatureStore

asked = json.load(open("asked.json"))
store = FeatureStore(".")
service = store.get_feature_service(sys.argv[1])
rows = pd.DataFrame(asked["rows"])
rows["event_timestamp"] = pd.to_datetime(rows["t"], unit="ms", utc=True)
offline = store.get_historical_features(entity_df=rows, features=service).to_df()
store.materialize(*(pd.Timestamp(ms, unit="ms", tz="UTC").to_pydatetime() for ms in asked["span"]))
online = store.get_online_features(features=service, entity_rows=asked["keys"]).to_dict()
clean = lambda values: [None if pd.isna(value) else value for value in values]
json.dump({
    "offline": {
        row["id"]: dict(zip(asked["names"], clean(row[asked["names"]])))
        for _, row in offline.iterrows()
    },
    "online": {name: clean(online[name]) for name in asked["names"]},
}, open("answered.json", "w"))
"""
KEYS = ("zone", "carrier", "origin")
NAMES = [feature.name for feature in COMPUTED]
NEWEST = START + 59 * HOUR_MS + 7


def write(folder: Path, repo: Path, stream: Stream) -> None:
    with history_of(folder, TASK, stream.events) as history:
        write_repo(history, TASK, repo, SPAN)


@pytest.fixture(scope="module")
def feast(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that has Feast, whose dependencies do not fit ours."""
    folder = tmp_path_factory.mktemp("feast")
    subprocess.run([UV, "venv", "-q", "--python", sys.executable, folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run([UV, "pip", "install", "-q", "--python", python, "feast==0.67.*"], check=True)
    return python


@pytest.fixture(scope="module")
def stream() -> Stream:
    return Stream(seed=11, nulls=False)


@pytest.fixture(scope="module")
def answered(
    feast: Path, stream: Stream, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """What Feast says of every prediction, and of every key at the end."""
    repo = tmp_path_factory.mktemp("repo")
    apart(write, tmp_path_factory.mktemp("history"), repo, stream)
    rows = [
        {"id": id_, "t": time, **{name: str(vector[name]) for name in KEYS}}
        for id_, time, vector in stream.predictions()
    ]
    asked = {"rows": rows, "span": [START, NEWEST], "keys": ONLINE, "names": NAMES}
    (repo / "asked.json").write_text(json.dumps(asked))
    subprocess.run([feast.with_name("feast"), "apply"], cwd=repo, check=True, env=QUIET)
    subprocess.run([feast, "-c", READ, TASK.name], cwd=repo, check=True, env=QUIET)
    found: dict[str, Any] = json.loads((repo / "answered.json").read_text())
    return found


def test_feast_finds_offline_what_was_served(answered: dict[str, Any], stream: Stream) -> None:
    served = {id_: {n: vector[n] for n in NAMES} for id_, vector in stream.served.items()}
    assert answered["offline"] == served


def test_feast_finds_online_what_serving_would_answer_with(
    answered: dict[str, Any], stream: Stream
) -> None:
    before = Projector([FeatureFold(TASK, 1)])
    before.feed([event for event in stream.events if event.time <= NEWEST])
    blob = before.states["trips.features"].blob
    instances = [{**keys, "zone": float(keys["zone"])} for keys in ONLINE]
    now = [assemble(TASK, instance, NEWEST, blob) for instance in instances]
    for feature in TASK.features:
        if feature.name in NAMES:
            assert answered["online"][feature.name] == [vector[feature.name] for vector in now]


ONLINE = [
    {"zone": zone, "carrier": carrier, "origin": origin}
    for zone in ("1.0", "2.5")
    for carrier in ("UA", "AA")
    for origin in ("JFK", "LGA")
]
QUIET = {"FEAST_USAGE": "False", "PATH": "/usr/bin:/bin"}
