"""The workload is what it says, its Avro is Avro, and each way of counting in Python gives the truth."""

from __future__ import annotations

import io
import struct
from dataclasses import asdict, replace
from pathlib import Path

import fastavro
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from benchmarks.drift_windows import counting, workload
from benchmarks.drift_windows.contenders import FLOOR, FRAMEWORK, JAVA, OURS, REPLAY, Contender
from benchmarks.drift_windows.encoder import encode, keys
from benchmarks.drift_windows.job import Job
from benchmarks.drift_windows.peers.fastavro_rows import Rows
from benchmarks.drift_windows.peers.rows import RowBins, RowDecoder
from benchmarks.drift_windows.report import goals, rows
from benchmarks.drift_windows.run import Outcome, Turn
from benchmarks.drift_windows.topic import catalogue
from benchmarks.drift_windows.workload import Workload
from benchmarks.harness import Used
from kernels.reference import psi
from schemas.codec import without

EVENTS = 45_000


@pytest.fixture(scope="module")
def work() -> Workload:
    return workload.make(EVENTS, partitions=3)


@pytest.fixture(scope="module")
def job(work: Workload) -> Job:
    schema = without(catalogue(EVENTS, 3)[0].schemas[0], frozenset({"logicalType"}))
    return Job(
        bootstrap="",
        topic="",
        events=EVENTS,
        ends=work.ends,
        schema=schema,
        schema_id=7,
        models=list(workload.MODELS),
        features=list(workload.FEATURES),
        reference=workload.reference(),
        start_ms=workload.START_MS,
        windows=work.windows,
        window_ms=workload.WINDOW_MS,
        lateness_ms=workload.LATENESS_MS,
        scores="",
        run="test",
        replication=1,
    )


def payloads(work: Workload) -> list[bytes]:
    values, ends = encode(work, 7, 0, len(work))
    places = [0, *ends.tolist()]
    return [values[places[row] : places[row + 1]] for row in range(len(work))]


def test_fewer_events_are_a_prefix_of_more_but_for_the_drift() -> None:
    few, many = workload.make(1_000), workload.make(70_000)
    for name in ("partition", "ids", "time", "model", "score", "label"):
        assert np.array_equal(getattr(few, name)[:1_000], getattr(many, name)[:1_000])
    assert np.array_equal(few.features[:500], many.features[:500], equal_nan=True)


def test_no_event_is_later_than_allowed_and_the_last_ones_close_every_window(
    work: Workload,
) -> None:
    for partition in range(work.partitions):
        times = work.time[work.partition == partition]
        behind = np.maximum.accumulate(times) - times
        assert 0 < behind.max() < workload.LATENESS_MS
        assert times[-1] >= times[:-1].max() + workload.WINDOW_MS + workload.LATENESS_MS
    assert sum(work.ends) == EVENTS + work.partitions


def test_the_planted_drift_shows_in_its_column_and_from_the_middle_on(work: Workload) -> None:
    name = workload.FEATURES[workload.DRIFTING]
    first, *_, last = sorted({start for _, start, _ in work.truth})
    for model in workload.MODELS:
        before, after = work.truth[model, first, name], work.truth[model, last, name]
        assert after > 10 * before
        others = [
            work.truth[model, last, column]
            for column in workload.COLUMNS
            if column not in (name, "score")
        ]
        assert after > 5 * max(others)


def test_the_encoder_writes_what_fastavro_would(work: Workload, job: Job) -> None:
    schema = fastavro.parse_schema(job.schema, named_schemas={})
    made, ids = payloads(work), keys(work, 0, len(work)).decode()
    nulls = np.flatnonzero(np.isnan(work.features).any(axis=1))
    assert len(nulls) > 10
    for row in [*range(50), *nulls[:50].tolist(), *range(EVENTS - 1, EVENTS + 3)]:
        vector = work.features[row].tolist()
        event = {
            "event_id": ids[36 * row : 36 * row + 36],
            "event_time": int(work.time[row]),
            "caused_by": None,
            "model_version": workload.MODELS[work.model[row]],
            "score": float(work.score[row]),
            "label": int(work.label[row]),
            "features": {
                name: None if value != value else value
                for name, value in zip(workload.FEATURES, vector, strict=True)
            },
        }
        out = io.BytesIO()
        fastavro.schemaless_writer(out, schema, event)
        assert made[row] == struct.pack(">bI", 0, 7) + out.getvalue()


@given(
    arrays(np.int64, (3, 8), elements=st.integers(0, 1_000)),
    arrays(np.int64, (3, 8), elements=st.integers(0, 1_000)),
)
def test_the_contenders_psi_is_the_kernels(counts: np.ndarray, whole: np.ndarray) -> None:
    counts[:, 0] += 1  # an empty side is asked of no contender
    whole[:, 0] += 1
    expected = [psi(one, other) for one, other in zip(counts, whole, strict=True)]
    assert counting.psi(counts, whole).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("batch", [777, 10_000, 1_000_000])
def test_numpy_windows_give_the_truth_at_any_batch_size(
    work: Workload, job: Job, batch: int
) -> None:
    decoded = Rows(job)
    for row, payload in enumerate(payloads(work)):
        decoded.add(int(work.partition[row]), payload)
        if len(decoded) == batch:
            decoded.flush()
    decoded.flush()
    found = {(model, start, name): value for model, start, name, value in decoded.windows.scores}
    assert len(found) == len(decoded.windows.scores) == job.expected
    assert workload.differences(found, work.truth) == []


def test_row_by_row_gives_the_truth(work: Workload, job: Job) -> None:
    decode, bins, score = RowDecoder(job), RowBins(job), counting.Scorer(job)
    windows: dict[tuple[int, int], object] = {}
    for payload in payloads(work)[:EVENTS]:
        time, model, values = decode(payload)
        start = time // job.window_ms * job.window_ms
        bins.add(windows.setdefault((model, start), bins.empty()), values)  # type: ignore[arg-type]
    found = {
        (name, start, column): value
        for (model, start), counts in windows.items()
        for name, start, column, value in score(
            job.models[model], start, np.array(counts).reshape(bins.columns, bins.bins)
        )
    }
    assert workload.differences(found, work.truth) == []


def test_differences_name_what_is_missing_wrong_or_too_much(work: Workload) -> None:
    found = dict(work.truth)
    first, second, *_ = found
    del found[first]
    found[second] += 2e-9
    found["bench-3", workload.START_MS, "x0"] = 0.0
    found["bench-1", workload.START_MS + 10 * workload.CLOSING_MS, "x0"] = 0.0
    lines = workload.differences(found, work.truth)
    assert len(lines) == 3
    assert "missing" in lines[0] and "not asked for" in lines[2]


def test_a_job_is_read_as_it_was_written(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job.write(tmp_path / "job.json")
    monkeypatch.setattr("sys.argv", ["contender", str(tmp_path / "job.json")])
    assert asdict(Job.read()) == asdict(job)


def outcome(name: str, kind: str, *rates: float, mb: float = 100.0) -> Outcome:
    turns = [Turn(rate, 1.0, Used(1.0, mb), 0.5) for rate in rates]
    return Outcome(Contender(name, name, kind), 1_000, turns)


def test_goals_compare_medians_with_the_floor_java_and_the_best_framework() -> None:
    ran = [
        outcome("floor", FLOOR, 90.0, 100.0, 300.0),
        outcome("driftlog", OURS, 100.0, 330.0, 90.0),
        outcome("streams-2", JAVA, 50.0),
        outcome("slow", FRAMEWORK, 1.0),
        outcome("quick", FRAMEWORK, 3.0),
    ]
    assert [goal.met for goal in goals(ran)] == [True, True, True, True, True]
    ran[1] = outcome("driftlog", OURS, 89.0, mb=700.0)
    ran[3] = replace(ran[3], equal=False)
    assert [goal.met for goal in goals(ran)] == [False, False, False, False, False]


@pytest.mark.parametrize(("rate", "worker_mb", "met"), [(5e5, 499.0, True), (4.9e5, 501.0, False)])
def test_goals_of_the_replay_and_of_a_worker_alone(
    rate: float, worker_mb: float, met: bool
) -> None:
    ours = outcome("driftlog", OURS, 1.0)
    ours.turns = [replace(ours.turns[0], worker_mb=worker_mb)]
    ran = [ours, outcome("replay", REPLAY, rate)]
    assert [goal.met for goal in goals(ran)] == [True, met, True, met]


def test_a_contender_that_did_not_run_stands_last_and_misses_what_needs_it() -> None:
    ran = [
        Outcome(Contender("driftlog", "ours", OURS), note="not run: no brokers"),
        outcome("floor", FLOOR, 100.0),
    ]
    assert [row[:2] for row in rows(ran)] == [["floor", "100"], ["ours", "not run"]]
    assert [goal.met for goal in goals(ran)] == [True, False]
