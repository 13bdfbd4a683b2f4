"""What is in quarantine at rest is the same whatever died, was repeated or came late meanwhile."""

from __future__ import annotations

import dataclasses

from schemas.catalogue import QUALITY_COMMANDS, QUALITY_REPORTS
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.expectations import Expect
from streams.folds import control_folds
from streams.quarantine import QuarantineState, Span, quarantined
from streams.simulation import Faults, Process, SimulatedLog, run_history
from streams.task import Category, Numeric, Rate
from streams.window_rows import InputWindows
from tests.simulation.histories import HOUR, KEYS, LABELS, PARTITIONS, PREDICTIONS, TASK, inputs
from tests.simulation.test_histories import faults_of

WATCHED = dataclasses.replace(
    TASK,
    features=(
        Numeric("x", expect=Expect(maximum=2.0)),
        Category("c"),
        Rate("rate", by=("c",), hours=1),
    ),
)
INPUTS, HISTORIES = 4, 40


def commanded(seed: int) -> list[Event]:
    """A history with a release and a quarantine said by a person on the way."""
    events = inputs(seed)
    for number, (type_, start, end) in enumerate(
        [("QuarantineReleased", 5, 6), ("QuarantineSet", 2, 3)]
    ):
        about = {"from_time": start * HOUR, "to_time": end * HOUR, "actor": "ann", "reason": "so"}
        time = 6 * HOUR + number
        said = derive(QUALITY_COMMANDS, type_, seed, time=time, caused_by=None, task="toy", **about)
        events.append(said)
    return sorted(events, key=lambda event: (event.time, event.id))


def live(seed: int, faults: Faults, fault_seed: int) -> tuple[str, list[Span], SimulatedLog, int]:
    log = SimulatedLog(
        {PREDICTIONS: PARTITIONS, LABELS: PARTITIONS},
        lambda event: str(event.data[KEYS.get(event.topic, "event_id")]),
    )
    worker = Process(log, [InputWindows(WATCHED)])
    control = Process(log, control_folds([WATCHED], PARTITIONS))
    run_history(commanded(seed), log, [worker, control], fault_seed, faults)
    state: QuarantineState = control.projector.states["toy.quality"]
    crashes = worker.crashes + control.crashes
    return fingerprint(state), quarantined(state), log, crashes


def test_faults_do_not_change_what_is_in_quarantine() -> None:
    calm = [in_words(live(seed, Faults(), 0)[1]) for seed in range(INPUTS)]
    assert any(calm)
    crashes = 0
    for seed in range(HISTORIES):
        _, spans, _, crashed = live(seed % INPUTS, faults_of(seed), seed)
        crashes += crashed
        assert in_words(spans) == calm[seed % INPUTS], seed
    assert crashes > HISTORIES


def in_words(spans: list[Span]) -> list[tuple[int, int, str]]:
    return [(span.from_time, span.to_time, span.reason) for span in spans]


def test_a_bad_window_is_in_and_a_person_has_the_last_word() -> None:
    outcomes = set()
    for seed in range(INPUTS):
        _, spans, log, _ = live(seed, Faults(), 0)
        worst: dict[int, float] = {}
        for partition in range(PARTITIONS):
            for event in log.records[PREDICTIONS, partition]:
                start, x = event.time // HOUR, event.data["features"]["x"]
                if event.data["model_version"] == "toy-1":
                    worst[start] = max(worst.get(start, x), x)
        judged = {e.data["window_start"] // HOUR for e in log.records[QUALITY_REPORTS, 0]}
        expected = {at for at in judged if worst[at] > 2.0} - {5} | {2}
        assert {span.from_time // HOUR for span in spans} == expected
        outcomes.add(len(expected))
    assert len(outcomes) > 1, "the histories differ"
