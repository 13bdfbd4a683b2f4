from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from consumers.history.engine import Engine
from consumers.history.sink import BatchDecoder
from consumers.history.store import Store, open_embedded
from schemas.codec import Codec
from schemas.event import derive
from tests.unit.consumers.history_data import (
    START,
    TOPICS,
    MemoryRegistry,
    label,
    parts,
    prediction,
    records,
    uid,
)
from tests.unit.consumers.history_http import Service, serve


@pytest.fixture
def codec() -> Codec:
    return Codec(MemoryRegistry(), TOPICS)


@pytest.fixture(scope="package")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("clickhouse")


@pytest.fixture(scope="package")
def store(folder: Path) -> Iterator[Store]:
    """chDB with 100 predictions, 80 labels and a few system events; one directory a process."""
    store = Store(open_embedded(folder))
    codec = Codec(MemoryRegistry(), TOPICS)
    decoder = BatchDecoder(codec, TOPICS)
    store.prepare(decoder.tables.values())
    sketch = derive(
        "driftlog.sketches",
        "SketchTaken",
        "a sketch",
        time=START,
        caused_by=None,
        task="flights",
        model_version="flights-1",
        kind="inputs",
        window_start=START,
        window_end=START + 3_600_000,
        partition=0,
        revision=0,
        count=3,
        columns=[{"name": "distance", "counts": [1, 2, 0], "missing": 0, "unseen": 0}],
        totals={"score": 17},
    )
    scores = [
        derive(
            "driftlog.drift_scores",
            "DriftScored",
            "a score",
            feature,
            time=START + 3_600_000,
            caused_by=sketch.id,
            task="flights",
            model_version="flights-1",
            window_start=START,
            window_end=START + 3_600_000,
            feature=feature,
            revision=0,
            count=3,
            reference_count=1000,
            psi=psi,
            ks=0.1,
            js=0.1,
            threshold=0.2,
            drifted=psi > 0.2,
        )
        for feature, psi in (("distance", 0.31), ("carrier", 0.02))
    ]
    alerts = [
        derive(
            "driftlog.alerts",
            type_,
            type_,
            time=START,
            caused_by=None,
            task="flights",
            subject="drift",
            message=uid(1),
        )
        for type_ in ("AlertRaised", "AlertResolved")
    ]
    for events in (
        [prediction(n) for n in range(100)],
        [label(n) for n in range(80)],
        [sketch],
        scores,
        alerts,
    ):
        for table, rows in decoder.decode(parts(records(codec, events))).tables:
            store.write_events(table, rows)
    yield store
    store.close()


@pytest.fixture
def service(engine: Engine) -> Iterator[Service]:
    yield from serve(engine)


@pytest.fixture(scope="package")
def engine(store: Store, folder: Path) -> Engine:
    assert store
    return Engine(folder)
