"""Rollouts: what peeking costs in false aborts, how soon a regression is found, and what an event costs.

    python -m benchmarks.rollouts [--quick] [--json FILE]

Streams of labels without any difference between two versions are looked at after every label, by the
rollout's always-valid test and by the usual z-test at the same alpha. Then a bad version is promoted past its
gates, five answers a second, each with its label two seconds later: how long in event time until it is taken
back. Last, the reactor's CPU time an event beside the feature fold's with one rate, the same events in one
process. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist, median

from benchmarks.harness import Goal, console, finish, show_table
from schemas.catalogue import DEPLOYMENTS, ROLLOUTS, labels_topic, predictions_topic
from schemas.event import Event, derive
from streams.features import FeatureFold
from streams.fold import Fold, Projector
from streams.rollout import RolloutReactor
from streams.rollout_state import policy_text
from streams.sequential import Sums, difference, loss
from streams.task import Category, Numeric, Rate, RolloutPolicy, Task

STREAMS, QUICK_STREAMS = 1_000, 100
LABELS = 2_000
EVENTS, QUICK_EVENTS = 40_000, 4_000
ALPHA, LEAST = 0.05, 30
WITHIN_S = 30.0
MOST_COST = 2.0
"""Goal: a policy with nothing on its way costs at most so many times what the features cost."""
HOUR = 3_600_000
START = 1_000 * HOUR
ANSWER_MS, LABEL_MS = 200, 2_000
TASK = Task(
    name="bench",
    label="late",
    label_delay_hours=6,
    features=(Numeric("x"), Category("c"), Rate("rate", by=("c",))),
)
CANARY = RolloutPolicy(
    "canary", (0.25, 1.0), min_labels=10**8, alpha=1e-9, max_score_psi=None, watch_hours=24
)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="rollouts", description=__doc__)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_STREAMS} streams")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    streams, events = (QUICK_STREAMS, QUICK_EVENTS) if asked.quick else (STREAMS, EVENTS)
    out = console()
    peeks = [peeked(seed, 0.0) for seed in range(streams)]
    harms = [peeked(seed, 1.0) for seed in range(min(streams, 200))]
    false = {name: sum(one[name] is not None for one in peeks) / streams for name in TESTS}
    found = {name: median(one[name] or math.inf for one in harms) for name in TESTS}
    rows = [(name, f"{false[name]:.1%}", f"{found[name]:.0f}") for name in TESTS]
    title = f"{streams:,} streams of {LABELS:,} labels, alpha {ALPHA:g}, looked at after each label"
    show_table(out, title, ("test", "false aborts", "labels until harm is found, median"), rows)
    delays = [taken_back_s(seed) for seed in range(20)]
    words = f"{median(delays):.1f} s, at most {max(delays):.1f} s"
    show_table(out, "a bad promotion, event time after 100 labels", ("taken back",), [(words,)])
    costs = cost(events)
    table = [(name, f"{micros:.1f}") for name, micros in costs.items()]
    show_table(out, f"{2 * events:,} answers and labels", ("fold", "us an event"), table)
    ratio = costs[IDLE] / costs[FEATURES]
    goals = [
        Goal(f"false aborts at most {ALPHA:.0%}", f"{false[OURS]:.1%}", false[OURS] <= ALPHA),
        Goal(f"taken back within {WITHIN_S:g} s", f"{max(delays):.1f}", max(delays) < WITHIN_S),
        Goal(f"idle: {MOST_COST:g} x features at most", f"{ratio:.1f}", ratio <= MOST_COST),
    ]
    report = {
        "false_aborts": false,
        "labels_until_found": found,
        "taken_back_s": delays,
        "microseconds": costs,
    }
    return finish(out, goals, report, asked.json)


OURS, PEER = "always valid", "z-test"
TESTS = (OURS, PEER)
FEATURES, IDLE, WATCH, ROLLING = "features", "policy, idle", "policy, watch", "policy, canary"


def peeked(seed: int, harm: float) -> dict[str, int | None]:
    """Labels until each test calls the challenger worse (`harm` 1: it scores the opposite); None: never."""
    rng = random.Random(seed)
    mine, theirs = Sums(), Sums()
    called: dict[str, int | None] = dict.fromkeys(TESTS)
    limit = NormalDist().inv_cdf(1 - ALPHA)
    for count in range(1, LABELS + 1):
        chance = rng.choice((0.1, 0.3, 0.5, 0.8))
        label = int(rng.random() < chance)
        if rng.random() < 0.5:
            mine.add(loss(chance + harm * (1 - 2 * chance), label))
        else:
            theirs.add(loss(chance, label))
        found = difference([(mine, theirs)], LEAST)
        if found is None:
            continue
        if called[OURS] is None and found.above(ALPHA) > 0:
            called[OURS] = count
        if called[PEER] is None and found.mean > limit * math.sqrt(found.error):
            called[PEER] = count
        if None not in called.values():
            break
    return called


class _World:
    """A reactor whose events come back."""

    def __init__(self, folds: Sequence[Fold]) -> None:
        self.projector = Projector(folds)
        self.said: list[Event] = []

    def put(self, *events: Event) -> None:
        waiting = list(events)
        while waiting:
            answers = self.projector.react(waiting.pop(0))
            self.said += answers
            waiting += answers


def taken_back_s(seed: int) -> float:
    """Event time from the 100th label of a bad version to the decision against it (s)."""
    policy = RolloutPolicy(watch_hours=24, min_labels=100)
    world = _World([RolloutReactor(replace(TASK, rollout=policy), 1)])
    world.put(_promoted("bench-0", START - HOUR, None), _promoted("bench-1", START, "bench-0"))
    rng = random.Random(seed)
    enough = 0
    seen = 0
    bad_at = START + 3_000 * ANSWER_MS
    labels: list[Event] = []
    for number in range(20_000):
        now = START + number * ANSWER_MS
        if now == bad_at:
            world.put(_promoted("bench-2", now, "bench-1"))
        chance = rng.choice((0.1, 0.3, 0.5, 0.8))
        bad = now >= bad_at
        score = 1 - chance if bad else chance
        world.put(_answer(f"{seed}-{number}", now, "bench-2" if bad else "bench-1", score, None))
        labels.append(_label(f"{seed}-{number}", now + LABEL_MS, int(rng.random() < chance)))
        while labels and labels[0].time <= now:
            label = labels.pop(0)
            seen += label.time >= bad_at + LABEL_MS
            enough = label.time if seen == policy.min_labels and not enough else enough
            world.put(label)
        if world.said:
            return (world.said[0].time - enough) / 1_000
    return math.inf


def cost(events: int) -> dict[str, float]:
    """CPU microseconds an event of each fold, above what the projector takes alone."""
    rolled = replace(TASK, rollout=replace(CANARY, min_labels=30))
    # One that never ends, however much evidence there is.
    endless = replace(TASK, rollout=CANARY)
    start = _started(START)
    plain = list(_stream(events, None))
    begin = [_promoted("bench-0", START - HOUR, None), _promoted("bench-1", START - 1, "bench-0")]
    settled = [_promoted("bench-1", START - 900 * HOUR, None)]
    before = list(_stream(1_000, None, "bench-0", START - HOUR // 2))
    alone = _timed([_Nothing()], [], plain)
    found = {
        FEATURES: _timed([FeatureFold(TASK, 1)], [], plain),
        IDLE: _timed([RolloutReactor(rolled, 1)], settled, plain),
        WATCH: _timed([RolloutReactor(rolled, 1)], [begin[0], *before, begin[1]], plain),
        ROLLING: _timed(
            [RolloutReactor(endless, 1)], [*begin, start], list(_stream(events, start.id))
        ),
    }
    return {name: micros - alone for name, micros in found.items()}


class _Nothing:
    name = "nothing"
    topics = (predictions_topic("bench"), labels_topic("bench"))

    def initial(self) -> int:
        return 0

    def apply(self, state: int, batch: Sequence[Event]) -> int:  # noqa: ARG002
        return state


def _timed(folds: Sequence[Fold], before: Sequence[Event], events: Sequence[Event]) -> float:
    """Best of three."""
    best = math.inf
    for _ in range(3):
        world = _World(folds)
        world.put(*before)
        begin = time.process_time_ns()
        for event in events:
            world.projector.react(event)
        best = min(best, (time.process_time_ns() - begin) / 1e3 / len(events))
    return best


def _stream(
    events: int, rollout: str | None, champion: str = "bench-1", start: int = START
) -> Iterator[Event]:
    rng = random.Random(1)
    for number in range(events):
        now, chance = start + number * ANSWER_MS, rng.choice((0.1, 0.3, 0.5, 0.8))
        version, route = champion, None
        if rollout is not None:
            arm, version = (
                ("challenger", "bench-2") if rng.random() < 0.25 else ("champion", "bench-1")
            )
            route = f"{rollout}/1/{arm}"
        name = f"{champion}:{number}"
        yield _answer(name, now, version, chance, route)
        yield _label(name, now + LABEL_MS, int(rng.random() < chance))


def _answer(name: str, now: int, version: str, score: float, route: str | None) -> Event:
    data = {
        "event_id": name,
        "event_time": now,
        "model_version": version,
        "score": score,
        "features": {"c": name[-1]},
        "route": route,
    }
    return Event(predictions_topic("bench"), "PredictionMade", data)


def _label(of: str, now: int, value: int) -> Event:
    data = {"event_id": f"l{of}", "event_time": now, "prediction_id": of, "label": value}
    return Event(labels_topic("bench"), "LabelObserved", data)


def _promoted(version: str, now: int, previous: str | None) -> Event:
    return derive(
        DEPLOYMENTS,
        "ModelPromoted",
        version,
        time=now,
        caused_by=None,
        task="bench",
        model_version=version,
        previous_version=previous,
        reason="past its gates",
        actor="trainer",
    )


def _started(now: int) -> Event:
    return derive(
        ROLLOUTS,
        "RolloutStarted",
        now,
        time=now,
        caused_by=None,
        task="bench",
        model_version="bench-2",
        previous_version="bench-1",
        strategy=CANARY.strategy,
        policy=policy_text(CANARY),
        reason="past its gates",
        actor="trainer",
        request_id=None,
        gates=[],
    )


if __name__ == "__main__":
    sys.exit(main())
