"""Scoring: sketches in, verdicts out, whatever was read first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import fastavro
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kernels.reference import js, ks, psi
from schemas.catalogue import DRIFT_SCORES, MODEL_VERSIONS, SKETCHES, load_schema
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.complete import KEPT_WINDOWS
from streams.fold import Reactor
from streams.reference import DECIMALS, psi_threshold
from streams.scoring import Scoring, ScoringState
from streams.task import DriftPolicy, Numeric, Task

DAY = 86_400_000
TASK = Task("toy", (Numeric("x"),), "late", drift=DriftPolicy(min_rows=50))
SCORING = Scoring(TASK, partitions=2)
EVEN, SKEWED = (50, 50, 50, 50), (200, 0, 0, 0)


def model(version: str = "toy-1", log_loss: float | None = 0.5, **fields: Any) -> Event:
    reference = [
        {"name": name, "edges": [1.0, 2.0, 3.0], "categories": [], "swing": 0.0}
        | {"counts": [1000] * 4, "missing": 0}
        for name in ("score", "x")
    ]
    about: dict[str, Any] = {"reference": reference, "reference_count": 4000, "task": "toy"}
    return derive(
        MODEL_VERSIONS,
        "ModelRegistered",
        version,
        time=0,
        caused_by=None,
        model_version=version,
        metrics={} if log_loss is None else {"log_loss": log_loss},
        **about | fields,
    )


def inputs(
    day: int, partition: int, counts: Sequence[int] = EVEN, revision: int = 0, **fields: Any
) -> Event:
    column = {"counts": list(counts), "missing": 0, "unseen": 0}
    about: dict[str, Any] = {
        "task": "toy",
        "model_version": "toy-1",
        "count": sum(counts),
        "columns": [{"name": "x", **column}, {"name": "score", **column}],
    } | fields
    return derive(
        SKETCHES,
        "SketchTaken",
        *(about["task"], about["model_version"], "inputs", day, partition, revision),
        time=(day + 1) * DAY,
        caused_by=None,
        kind="inputs",
        window_start=day * DAY,
        window_end=(day + 1) * DAY,
        partition=partition,
        revision=revision,
        totals={},
        **about,
    )


def outcomes(
    day: int, log_loss: float = 0.5, rows: int = 1000, revision: int = 0, version: str = "toy-1"
) -> Event:
    scores = np.zeros(50, dtype=int)
    scores[10] = rows // 2
    return derive(
        SKETCHES,
        "SketchTaken",
        *("toy", version, "outcomes", day, revision),
        time=(day + 2) * DAY,
        caused_by=None,
        task="toy",
        model_version=version,
        kind="outcomes",
        window_start=day * DAY,
        window_end=(day + 1) * DAY,
        partition=-1,
        revision=revision,
        count=rows + 5,
        columns=[
            {"name": f"score|{label}", "counts": scores.tolist(), "missing": 0, "unseen": 0}
            for label in (0, 1)
        ],
        totals={
            "log_loss": round(log_loss * rows * 1e6),
            "brier": round(0.2 * rows * 1e6),
            "score": round(0.21 * rows * 1e6),
            "positives": rows // 2,
        },
    )


def run(*events: Event, scoring: Scoring = SCORING) -> tuple[list[Event], ScoringState]:
    state, answers = scoring.initial(), []
    for event in events:
        state = scoring.apply(state, (event,))
        answers += scoring.react(state, event)
    return answers, state


def said(*events: Event) -> list[Event]:
    return run(*events)[0]


def of(type_: str, answers: Iterable[Event]) -> list[dict[str, Any]]:
    return [dict(event.data) for event in answers if event.type == type_]


def days(*numbers: int, counts: Sequence[int] = EVEN) -> list[Event]:
    return [inputs(day, partition, counts) for day in numbers for partition in (0, 1)]


def test_it_is_a_reactor_of_sketches_and_model_versions() -> None:
    assert isinstance(SCORING, Reactor)
    assert SCORING.name == "toy.scoring" and SCORING.topics == (SKETCHES, MODEL_VERSIONS)


def test_a_window_is_judged_once_every_partition_has_stated_it() -> None:
    assert said(model(), inputs(0, 0)) == []
    first, last = inputs(0, 0), inputs(0, 1)
    answers = said(model(), first, last)
    assert [event.type for event in answers] == ["DriftScored", "DriftScored", "QualityChecked"]
    assert [row["feature"] for row in of("DriftScored", answers)] == ["x", "score"]
    for row in of("DriftScored", answers):
        assert row["caused_by"] == last.id and row["event_time"] == DAY
        assert row["count"] == 400 and row["reference_count"] == 4000 and not row["drifted"]


def test_a_partition_that_went_on_to_a_later_window_holds_nobody_up() -> None:
    answers = said(model(), inputs(0, 0), inputs(1, 1))
    assert [row["window_start"] for row in of("DriftScored", answers)] == [0, 0]


def test_in_the_window_of_a_hot_swap_each_version_waits_for_every_partition() -> None:
    events = [
        inputs(0, partition, model_version=version)
        for partition in (0, 1)
        for version in ("toy-1", "toy-2")
    ]
    answers = of("DriftScored", said(model("toy-1"), model("toy-2"), *events))
    assert [(row["model_version"], row["revision"]) for row in answers] == [
        *[("toy-1", 0)] * 2,
        *[("toy-2", 0)] * 2,
    ]


def test_a_silent_partition_holds_a_window_up_for_two_windows_at_most() -> None:
    assert said(model(), inputs(0, 0), inputs(1, 0)) == []
    answers = said(model(), inputs(0, 0), inputs(1, 0), inputs(2, 0))
    assert {row["window_start"] for row in of("DriftScored", answers)} == {0}


def test_the_score_is_always_the_last_column_of_a_window() -> None:
    answers = of("DriftScored", said(model(), *days(0, 1, 2)))
    assert [row["feature"] for row in answers] == ["x", "score"] * 3


def test_skewed_counts_are_drift_and_say_by_how_much() -> None:
    row = of("DriftScored", said(model(), *days(0, counts=SKEWED)))[0]
    assert row["drifted"] and row["psi"] > 10 * row["threshold"]
    assert row["ks"] == 0.75 and 0.5 < row["js"] < 1


def test_a_window_waits_for_its_model_and_is_then_judged_the_same() -> None:
    events = [*days(0, 1), outcomes(0)]
    assert said(*events) == []
    late, early = said(*events, model()), said(model(), *events)
    assert {event.id: event.data for event in late} == {event.id: event.data for event in early}


def test_a_late_sketch_restates_its_window_with_a_higher_revision() -> None:
    answers = of("DriftScored", said(model(), *days(0), inputs(0, 1, SKEWED, revision=1)))
    assert [(row["revision"], row["drifted"]) for row in answers] == [
        (0, False),
        (0, False),
        (1, True),
        (1, True),
    ]
    assert len({row["event_id"] for row in answers}) == 4


def test_a_partition_that_comes_when_all_was_judged_restates_the_window() -> None:
    answers = said(model(), inputs(0, 0), inputs(1, 0), inputs(2, 0), inputs(0, 1))
    rows = of("DriftScored", answers)
    assert [(row["revision"], row["count"]) for row in rows] == [(0, 200)] * 2 + [(1, 400)] * 2


def test_an_older_revision_changes_nothing() -> None:
    newer = [model(), inputs(0, 0), inputs(0, 1, revision=1)]
    before, after = run(*newer), run(*newer, inputs(0, 1, SKEWED, revision=0))
    assert fingerprint(before[1]) == fingerprint(after[1]) and len(before[0]) == len(after[0])


def test_other_tasks_are_not_our_business() -> None:
    foreign = [inputs(0, partition, task="other") for partition in (0, 1)]
    answers, state = run(model(task="other"), *foreign)
    assert answers == [] and fingerprint(state) == fingerprint(SCORING.initial())


def test_a_cold_start_model_is_measured_but_has_nothing_to_drift_from() -> None:
    cold = model(log_loss=None, reference=[], reference_count=0)
    answers = said(cold, *[inputs(0, p, columns=[]) for p in (0, 1)], outcomes(0, 0.9))
    (row,) = of("PerformanceMeasured", answers)
    assert len(answers) == 1 and row["log_loss"] == 0.9 and not row["degraded"]
    assert row["expected_log_loss"] is None and row["threshold"] is None


def test_performance_is_known_a_label_delay_after_the_window() -> None:
    sketch = outcomes(0)
    (row,) = of("PerformanceMeasured", said(model(), sketch))
    assert row["event_time"] == 2 * DAY and row["caused_by"] == sketch.id
    assert row["count"] == 1005 and row["labelled"] == 1000 and row["positive_rate"] == 0.5
    assert row["log_loss"] == 0.5 == row["expected_log_loss"] and row["brier"] == 0.2
    assert row["auc"] == 0.5 and abs(row["calibration_error"] - 0.29) < 1e-9


def test_a_loss_above_its_threshold_is_a_degradation() -> None:
    good, bad = of("PerformanceMeasured", said(model(), outcomes(0, 0.52), outcomes(1, 0.7)))
    assert not good["degraded"] and bad["degraded"] and bad["log_loss"] > bad["threshold"] > 0.525


def test_a_lasting_rise_below_the_threshold_is_found_by_page_hinkley() -> None:
    losses = [0.5] * 20 + [0.54] * 12
    rows = of(
        "PerformanceMeasured",
        said(model(), *[outcomes(day, loss) for day, loss in enumerate(losses)]),
    )
    assert not any(row["degraded"] for row in rows)
    alarms = [day for day, row in enumerate(rows) if row["change_detected"]]
    assert alarms and min(alarms) > 20


def test_restated_outcomes_are_measured_anew() -> None:
    rows = of("PerformanceMeasured", said(model(), outcomes(0), outcomes(0, 0.6, revision=1)))
    assert [(row["revision"], row["log_loss"]) for row in rows] == [(0, 0.5), (1, 0.6)]


def test_outcomes_of_an_older_revision_change_nothing() -> None:
    rows = of("PerformanceMeasured", said(model(), outcomes(0, 0.6, revision=1), outcomes(0)))
    assert [row["log_loss"] for row in rows] == [0.6]


def test_a_restated_window_is_held_against_what_came_before_it_only() -> None:
    calm = [outcomes(day, 0.5) for day in range(20)]
    risen = [outcomes(day, 0.7) for day in range(20, 30)]
    alarms = [
        row["window_start"] // DAY
        for row in of("PerformanceMeasured", said(model(), *calm, *risen))
        if row["change_detected"]
    ]
    until = risen[: alarms[0] - 19]
    events = [model(), *calm, *until, outcomes(7, 0.5, revision=1)]
    assert not of("PerformanceMeasured", said(*events))[-1]["change_detected"]


def test_a_window_without_labels_has_no_numbers_and_no_verdict() -> None:
    (row,) = of("PerformanceMeasured", said(model(), outcomes(0, rows=0)))
    assert row["labelled"] == 0 and row["log_loss"] is None and not row["degraded"]


def test_quality_tells_of_missing_values_and_of_lost_volume() -> None:
    missing = {"name": "x", "counts": [10, 10, 10, 10], "missing": 60, "unseen": 0}
    score = {"name": "score", "counts": [25, 25, 25, 25], "missing": 0, "unseen": 0}
    bad = [inputs(4, p, columns=[missing, score], count=10) for p in (0, 1)]
    reports = of("QualityChecked", said(model(), *days(0, 1, 2, 3), *bad))
    assert [report["passed"] for report in reports] == [True] * 4 + [False]
    assert reports[-1]["failures"][0] == "volume: 20 rows, usually about 400"
    assert reports[-1]["failures"][1].startswith("x: missing in 60.0% of 200 rows")


def test_a_sketch_over_other_bins_is_a_failure_and_stops_nothing() -> None:
    report = of("QualityChecked", said(model(), inputs(0, 0, (1, 2)), inputs(0, 1)))[0]
    assert "x: partition 0 was summarised in 2 bins, the reference has 4" in report["failures"]


def test_what_is_remembered_is_bounded() -> None:
    _, state = run(model(), *days(*range(100)))
    assert len(state.versions["toy-1"].inputs) == KEPT_WINDOWS + 1 == len(state.volumes)
    answers, after = run(model(), *days(*range(100)), inputs(0, 0, SKEWED, revision=1))
    assert fingerprint(after) == fingerprint(state) and of("DriftScored", answers[-1:]) == []


@st.composite
def histories(draw: st.DrawFn) -> list[list[Event]]:
    """Lanes whose inner order the log keeps: each partition's sketches, the outcomes, the models."""
    lanes: list[list[Event]] = [[model("toy-1"), model("toy-2", log_loss=0.4)]]
    switch = draw(st.integers(1, 5))
    for partition in (0, 1):
        lane = []
        for day in range(6):
            if draw(st.integers(0, 9)) == 0:
                continue
            versions = ["toy-1"] if day < switch else ["toy-2"]
            for version in ["toy-1", "toy-2"] if day == switch else versions:
                for revision in range(draw(st.integers(1, 2))):
                    counts = draw(st.lists(st.integers(0, 90), min_size=4, max_size=4))
                    lane.append(inputs(day, partition, counts, revision, model_version=version))
        lanes.append(lane)
    lanes.append(
        [
            outcomes(day, draw(st.sampled_from([0.3, 0.5, 0.7])), 400, revision, version)
            for version, window in (("toy-1", range(switch)), ("toy-2", range(switch, 6)))
            for day in window
            for revision in range(draw(st.integers(1, 2)))
        ]
    )
    return lanes


def interleaved(lanes: list[list[Event]], draw: st.DataObject) -> list[Event]:
    rest, events = [list(lane) for lane in lanes], []
    while any(rest):
        lane = draw.draw(st.sampled_from([i for i, lane in enumerate(rest) if lane]))
        events.append(rest[lane].pop(0))
    return events


def latest(answers: Iterable[Event], *but: str) -> dict[tuple[str, ...], dict[str, Any]]:
    """The newest revision of each DriftScored and PerformanceMeasured."""
    facts: dict[tuple[str, ...], dict[str, Any]] = {}
    for event in answers:
        if event.type != "QualityChecked":
            data = event.data
            key = event.type, data["model_version"], data["window_start"], data.get("feature", "")
            if data["revision"] >= facts.get(key, data)["revision"]:
                facts[key] = dict(data)
    return {
        key: {name: value for name, value in data.items() if name not in but}
        for key, data in facts.items()
    }


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_any_interleaving_of_partitions_and_topics_ends_in_the_same_facts(
    lanes: list[list[Event]], data: st.DataObject
) -> None:
    straight, first = run(*interleaved(lanes, data))
    mixed, second = run(*interleaved(lanes, data))
    # which sketch completed a window, and whether a partition came after that, is the order itself
    order = "caused_by", "revision", "event_id"
    assert latest(straight, *order) == latest(mixed, *order)
    assert fingerprint(first) == fingerprint(second)


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_when_the_models_are_read_changes_no_bit_of_the_latest_facts(
    lanes: list[list[Event]], data: st.DataObject
) -> None:
    models, *rest = lanes
    sketches = interleaved(rest, data)
    early, first = run(*models, *sketches)
    late, second = run(*interleaved([models, sketches], data))
    assert latest(early) == latest(late)
    assert fingerprint(first) == fingerprint(second)
    known = {event.id: event.data for event in early}
    assert all(known[event.id] == event.data for event in late)


@settings(max_examples=30, deadline=None)
@given(histories(), st.data())
def test_recovery_without_reacting_rebuilds_the_same_state(
    lanes: list[list[Event]], data: st.DataObject
) -> None:
    events = interleaved(lanes, data)
    batch = SCORING.apply(SCORING.initial(), events)
    assert fingerprint(batch) == fingerprint(run(*events)[1])


def test_drift_scores_go_to_their_topic_with_ids_of_what_they_are_about() -> None:
    once, twice = said(model(), *days(0)), said(model(), *days(0))
    assert [event.id for event in once] == [event.id for event in twice]
    assert once[0].topic == DRIFT_SCORES


def test_what_is_said_fits_the_schemas() -> None:
    cold = model("toy-0", log_loss=None, reference=[])
    answers = said(cold, model(), *days(0, 1), outcomes(0), outcomes(0, rows=0, version="toy-0"))
    assert {e.type for e in answers} == {"DriftScored", "QualityChecked", "PerformanceMeasured"}
    for event in answers:
        assert fastavro.validate(event.data, load_schema(event.type), strict=True)


LABELLED = {
    "name": "label",
    "transform": "label",
    "edges": [0.5],
    "categories": [],
    "counts": [2000, 2000],
    "missing": 0,
    "swing": 0.0,
}


def labelled_model(version: str = "toy-1") -> Event:
    return model(version, reference=[*model().data["reference"], LABELLED])


def labels(day: int, negatives: int, positives: int, revision: int = 0) -> Event:
    event = outcomes(day, rows=0, revision=revision)
    by_label = [[negatives] + [0] * 49, [0] * 40 + [positives] + [0] * 9]
    columns = [
        {**column, "counts": counts}
        for column, counts in zip(event.data["columns"], by_label, strict=True)
    ]
    totals = {**event.data["totals"], "positives": positives}
    return Event(event.topic, event.type, {**event.data, "columns": columns, "totals": totals})


def test_label_drift_is_known_with_the_performance() -> None:
    calm, moved = labels(0, 480, 520), labels(1, 100, 900)
    answers = said(labelled_model(), calm, moved)
    assert [event.type for event in answers] == ["PerformanceMeasured", "DriftScored"] * 2
    rows = of("DriftScored", answers)
    assert [(row["feature"], row["drifted"], row["count"]) for row in rows] == [
        ("label", False, 1000),
        ("label", True, 1000),
    ]
    assert rows[1]["caused_by"] == moved.id and rows[1]["event_time"] == 3 * DAY
    assert rows[1]["ks"] == 0.4 and rows[1]["window_start"] == DAY
    assert fastavro.validate(rows[0], load_schema("DriftScored"), strict=True)


def test_label_drift_is_restated_and_waits_for_its_model() -> None:
    events = [labels(0, 500, 500), labels(0, 100, 900, revision=1)]
    rows = of("DriftScored", said(labelled_model(), *events))
    assert [(row["revision"], row["drifted"]) for row in rows] == [(0, False), (1, True)]
    late = said(*events, labelled_model())
    assert of("DriftScored", late) == rows


def test_the_label_is_no_column_of_the_inputs_but_counts_among_those_that_may_err() -> None:
    with_label = of("DriftScored", said(labelled_model(), *days(0)))
    without = of("DriftScored", said(model(), *days(0)))
    assert [row["feature"] for row in with_label] == ["x", "score"]
    assert all(a["threshold"] >= b["threshold"] for a, b in zip(with_label, without, strict=True))


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_a_batch_says_what_its_events_say_one_by_one(
    lanes: list[list[Event]], data: st.DataObject
) -> None:
    events = interleaved(lanes, data)
    one_by_one, first = run(*events)
    state, in_batches, at = SCORING.initial(), [], 0
    while at < len(events):
        step = data.draw(st.integers(1, 9))
        state = SCORING.apply(state, events[at : at + step])
        in_batches += SCORING.react(state, events[at])
        at += step
    assert in_batches == one_by_one and fingerprint(state) == fingerprint(first)


@settings(max_examples=60, deadline=None)
@given(histories(), st.data())
def test_every_score_is_the_reference_statistic_of_what_the_parts_add_up_to(
    lanes: list[list[Event]], data: st.DataObject
) -> None:
    events = interleaved(lanes, data)
    parts: dict[tuple[str, int, int], Event] = {}
    known = {event.data["model_version"] for event in lanes[0]}
    final = latest(run(*events)[0])
    for event in events:
        if event.type == "SketchTaken" and event.data["kind"] == "inputs":
            version, start = event.data["model_version"], event.data["window_start"]
            parts[version, start, event.data["partition"]] = max(
                event,
                parts.get((version, start, event.data["partition"]), event),
                key=lambda e: e.data["revision"],
            )
    scored = {key[1:3]: row for key, row in final.items() if key[0] == "DriftScored"}
    assert {version for version, _ in scored} <= known
    for (version, start), row in scored.items():
        sketches = [e.data for (v, s, _), e in parts.items() if (v, s) == (version, start)]
        counts = np.sum([sketch["columns"][0]["counts"] for sketch in sketches], axis=0)
        window, whole = [*counts.tolist(), 0], [1000, 1000, 1000, 1000, 0]
        assert row["psi"] == round(psi(window, whole), DECIMALS)
        assert row["ks"] == round(ks(window, whole), DECIMALS)
        assert row["js"] == round(js(window, whole), DECIMALS)
        n = max(1, int(counts.sum()))
        column = {"counts": whole[:-1], "missing": 0, "swing": 0.0}
        assert row["threshold"] == psi_threshold(column, n, 4000, 2, TASK.drift)
        assert row["drifted"] == (row["psi"] > row["threshold"] and n >= 50)


def test_a_partition_far_behind_the_others_is_waited_for() -> None:
    days = 3 * KEPT_WINDOWS
    ahead = [inputs(day, 0) for day in range(days)]
    behind = [inputs(day, 1, SKEWED) for day in range(days)]
    answers, state = run(model(), *ahead, inputs(0, 1), *behind[1:])
    newest = {e.data["window_start"]: e.data for e in answers if e.topic == DRIFT_SCORES}
    assert [newest[day * DAY]["count"] for day in range(days)] == [2 * sum(EVEN)] * days
    assert len(state.versions["toy-1"].inputs) == KEPT_WINDOWS + 1
    *_, last = run(model(), *ahead)
    assert len(last.versions["toy-1"].inputs) == days
