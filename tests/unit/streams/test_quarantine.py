"""The quarantine: newest statement about a window, then what a person said last about its time."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import QUALITY_COMMANDS, QUALITY_REPORTS
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.quarantine import RELEASED, SET, Quarantine, Span, quarantined, released, within
from tests.unit.streams.build import DAY, TASK

FOLD = Quarantine(TASK)


def report(
    day: int, bad: bool, revision: int = 0, version: str = "toy-1", severity: str = "quarantine"
) -> Event:
    check = {"name": "range", "column": "x", "value": 9.0, "threshold": 5.0, "passed": False}
    fields: dict[str, Any] = {
        "checks": [check | {"severity": severity}] if bad else [],
        "failures": [f"x: too large on day {day}"] if bad else [],
    }
    return derive(
        QUALITY_REPORTS,
        "QualityChecked",
        *("toy", version, day, revision),
        time=(day + 1) * DAY,
        caused_by=None,
        task="toy",
        model_version=version,
        window_start=day * DAY,
        window_end=(day + 1) * DAY,
        revision=revision,
        count=100,
        passed=not bad,
        subject="window",
        quarantined=bad and severity == "quarantine",
        request_id=None,
        **fields,
    )


def command(type_: str, start: int, end: int, number: int = 0, task: str = "toy") -> Event:
    about = {"from_time": start, "to_time": end, "actor": "ann", "reason": "she knows"}
    return derive(
        QUALITY_COMMANDS, type_, number, type_, time=0, caused_by=None, task=task, **about
    )


def spans(*events: Event) -> list[tuple[float, float]]:
    """What is in quarantine, in days."""
    state = FOLD.apply(FOLD.initial(), events)
    return [(span.from_time / DAY, span.to_time / DAY) for span in quarantined(state)]


def test_a_failed_window_is_in_until_a_restatement_passes() -> None:
    assert spans(report(1, True), report(2, False), report(4, True)) == [(1, 2), (4, 5)]
    assert spans(report(1, True), report(1, False, revision=1)) == []
    assert spans(report(1, False), report(1, True, revision=3)) == [(1, 2)]
    state = FOLD.apply(FOLD.initial(), [report(1, True)])
    assert quarantined(state)[0].reason == "x: too large on day 1"


def test_one_version_is_enough_and_an_alert_is_not() -> None:
    assert spans(report(1, True), report(1, False, version="toy-2")) == [(1, 2)]
    assert spans(report(1, True, severity="alert")) == []


def test_a_training_set_and_other_tasks_are_no_windows() -> None:
    checked = report(1, True)
    snapshot = Event(checked.topic, checked.type, {**checked.data, "subject": "snapshot"})
    assert spans(snapshot, command(SET, 0, DAY, task="other")) == []


def test_the_last_command_about_a_moment_counts_and_holds_over_the_checks() -> None:
    release = command(RELEASED, DAY, 2 * DAY)
    assert spans(report(1, True), release) == []
    assert spans(release, report(1, True), report(1, True, revision=1)) == []
    half = command(RELEASED, DAY + DAY // 2, 3 * DAY, 1)
    assert spans(command(SET, 0, 4 * DAY), half) == [(0, 1.5), (3, 4)]
    assert spans(half, command(SET, 0, 4 * DAY)) == [(0, 4)]


def test_parts_within_a_span() -> None:
    found = within([Span(0, 10, "a"), Span(20, 30, "b")], 5, 25)
    assert [(span.from_time, span.to_time, span.reason) for span in found] == [
        (5, 10, "a"),
        (20, 25, "b"),
    ]


REPORTS = st.lists(
    st.tuples(st.integers(0, 4), st.booleans(), st.sampled_from(["toy-1", "toy-2"])), max_size=12
)
COMMANDS = st.lists(
    st.tuples(st.sampled_from([SET, RELEASED]), st.integers(0, 9), st.integers(1, 4)), max_size=6
)


@settings(max_examples=150, deadline=None)
@given(REPORTS, COMMANDS, st.data())
def test_it_is_what_the_definition_says_however_the_topics_interleave(
    reports: list[tuple[int, bool, str]], commands: list[tuple[str, int, int]], draw: st.DataObject
) -> None:
    half = DAY // 2
    lanes = [
        [report(day, bad, revision, v) for revision, (day, bad, v) in enumerate(reports)],
        [command(t, s * half, (s + n) * half, i) for i, (t, s, n) in enumerate(commands)],
    ]
    calm = FOLD.apply(FOLD.initial(), [*lanes[0], *lanes[1]])
    state = FOLD.initial()
    while any(lanes):
        lane = draw.draw(st.sampled_from([i for i in (0, 1) if lanes[i]]))
        state = FOLD.apply(state, [lanes[lane].pop(0)])
    assert fingerprint(state) == fingerprint(calm)
    for moment in range(0, 14 * half, half):
        newest = {(day, v): bad for day, bad, v in reports}
        inside = any(bad for (day, _), bad in newest.items() if day == moment // DAY)
        said = [t for t, s, n in commands if s * half <= moment < (s + n) * half]
        if said:
            inside = said[-1] == SET
        here = [s for s in quarantined(state) if s.from_time <= moment < s.to_time]
        assert len(here) == inside, "at most one span covers a moment"
        free = [s for s in released(state) if s.from_time <= moment < s.to_time]
        assert bool(free) == bool(said and said[-1] == RELEASED)
