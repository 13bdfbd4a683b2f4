"""An ASOF join over the history gives every prediction the value that it was served, on real tables."""

from __future__ import annotations

import dataclasses
import multiprocessing
import random
from pathlib import Path

import pytest

from models.point_in_time import asof_sql, observed, skew_sql
from schemas.event import Event
from streams.features import FeatureFold, assemble
from streams.task import Numeric, Observed, Task
from tests.unit.models.snapshot_history import answer
from tests.unit.streams.build import HOUR, TASK, observation, prediction

START = 1_700_000_000_000
CARRIERS = ("UA", "AA", "DL")


def stream(seed: int) -> tuple[list[Event], dict[str, float | None]]:
    """Observations (with gaps, some without a value) and predictions served by the live code; id -> value."""
    rng, fold = random.Random(seed), FeatureFold(TASK, 1)
    state, events, served = fold.initial(), [], dict[str, float | None]()
    places = {"o": 0, "p": 0}
    time = START
    for number in range(400):
        time += rng.choice([0, 1, 60_000, HOUR // 3])
        if rng.random() < 0.3:
            time += 1  # one observation per key and time
            wind = rng.choice([rng.random(), rng.random(), None])
            seen = observation(f"o{number}", time, rng.choice(CARRIERS), wind, places["o"])  # type: ignore[arg-type]
            places["o"] += 1
            state = fold.apply(state, [seen])
            events.append(seen)
            continue
        instance = {"distance": 1.0, "carrier": rng.choice((*CARRIERS, None))}
        vector = assemble(TASK, instance, time, state.blob)
        name = f"p{number}"
        events.append(prediction(name, time, offset=places["p"], **vector))
        places["p"] += 1
        served[name] = vector["wind"]
    return events, served


def test_what_was_served_is_what_is_stored(tmp_path: Path) -> None:
    events, served = stream(1)
    (wind,) = observed(TASK)
    lie = next(event for event in events if served.get(event.id) is not None)
    told = {**lie.data, "features": {**lie.data["features"], "wind": -1.0}}
    wrong = [dataclasses.replace(e, data=told) if e is lie else e for e in events]
    assert 0 < sum(value is None for value in served.values()) < len(served)
    queries = [asof_sql(TASK, wind), skew_sql(TASK, wind)]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        rows, skew = pool.apply(answer, (tmp_path / "a", TASK, events, queries))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        (spoilt,) = pool.apply(answer, (tmp_path / "b", TASK, wrong, queries[1:]))
    names, stored = rows.column("event_id").to_pylist(), rows.column("stored").to_pylist()
    assert dict(zip(names, stored, strict=True)) == served
    assert skew.to_pylist() == [{"predictions": len(served), "different": 0}]
    assert spoilt.to_pylist() == [{"predictions": len(served), "different": 1}]


def test_only_a_category_names_an_entity() -> None:
    feature = Observed("rain", by="shop", value="rain")
    task = Task("toy", (Numeric("shop"), feature), "late")
    with pytest.raises(ValueError, match="shop, which is no Category"):
        asof_sql(task, feature)
