"""The table and the goals."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.drift_windows.contenders import FLOOR, FRAMEWORK, OURS, REPLAY
from benchmarks.drift_windows.run import Outcome
from benchmarks.harness import Goal

HEADER = (
    "contender",
    "events/s",
    "x floor",
    "x best\nframework",
    "peak MB",
    "CPU s",
    "brokers'\nCPU s",
    "scores",
)
OVER_FLOOR = 1.0
OVER_KAFKA_STREAMS = 2.0
OVER_FRAMEWORKS = 30.0
MOST_MB = 600.0
MOST_WORKER_MB = 500.0
REPLAYED = 500_000.0
"""Events a second."""


def best_framework(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The fastest stream framework in Python."""
    ran = [o for o in outcomes if o.contender.kind == FRAMEWORK and o.turns]
    return max(ran, key=lambda outcome: outcome.rate or 0, default=None)


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row a contender, the fastest first; what did not run stands last."""
    floor = next((o.rate for o in outcomes if o.contender.kind == FLOOR), None)
    framework = best_framework(outcomes)
    most = max((outcome.events for outcome in outcomes), default=0)
    table = []
    for outcome in sorted(outcomes, key=lambda one: -(one.rate or 0)):
        title = outcome.contender.title
        if not outcome.turns:
            table.append([title, "not run", *[""] * 6])
            continue
        if outcome.events < most:
            title += f" (on {outcome.events:,})"
        turn, rate = outcome.middle, outcome.rate or 0
        table.append(
            [
                title,
                f"{rate:,.0f}",
                _ratio(rate, floor),
                _ratio(rate, framework.rate if framework else None),
                f"{outcome.peak_mb:,.0f}",
                f"{turn.used.cpu_s:.1f}",
                f"{turn.broker_cpu_s:.1f}",
                "" if outcome.contender.kind == FLOOR else "equal" if outcome.equal else "differ",
            ]
        )
    return table


def _ratio(rate: float, other: float | None) -> str:
    return f"{rate / other:.2f}" if other else ""


def goals(outcomes: Sequence[Outcome]) -> list[Goal]:
    """What could be judged with the contenders that were asked for."""
    ours = next((o for o in outcomes if o.contender.kind == OURS), None)
    found = [_equal(outcomes), *_replayed(outcomes)]
    if ours is None:
        return found
    rates = {o.contender.name: o.rate for o in outcomes if o.turns}
    framework = best_framework(outcomes)
    for words, name, factor, rate in (
        ("driftlog is at least as fast as the floor", "floor", OVER_FLOOR, rates.get("floor")),
        (
            f"driftlog is at least {OVER_KAFKA_STREAMS:g}x Kafka Streams with two threads",
            "streams-2",
            OVER_KAFKA_STREAMS,
            rates.get("streams-2"),
        ),
        (
            f"driftlog is at least {OVER_FRAMEWORKS:g}x the best Python stream framework",
            framework.contender.name if framework else "",
            OVER_FRAMEWORKS,
            framework.rate if framework else None,
        ),
    ):
        if rate is None:
            continue
        figures = f"{name}: {rate:,.0f} events/s"
        if ours.rate is None:
            found.append(Goal(words, f"driftlog did not run; {figures}", met=False))
        else:
            times = ours.rate / rate
            figures = f"{ours.rate:,.0f} events/s, {times:.2f}x {figures}"
            found.append(Goal(words, figures, times >= factor))
    if ours.turns:
        words = f"driftlog's memory stays below {MOST_MB:.0f} MB"
        found.append(Goal(words, f"{ours.peak_mb:.0f} MB", ours.peak_mb < MOST_MB))
        most = max((turn.worker_mb or 0.0 for turn in ours.turns), default=0.0)
        if most:
            words = f"its window worker's stays below {MOST_WORKER_MB:.0f} MB"
            figures = f"{most:.0f} MB, {ours.events:,} events behind"
            found.append(Goal(words, figures, most < MOST_WORKER_MB))
    return found


def _replayed(outcomes: Sequence[Outcome]) -> list[Goal]:
    words = f"replay to the live run's fingerprints at {REPLAYED:,.0f} events/s or more"
    return [
        Goal(words, one.note or f"{one.rate:,.0f} events/s", (one.rate or 0.0) >= REPLAYED)
        for one in outcomes
        if one.contender.kind == REPLAY
    ]


def _equal(outcomes: Sequence[Outcome]) -> Goal:
    judged = [o for o in outcomes if o.turns and o.contender.kind != FLOOR]
    wrong = [outcome.contender.name for outcome in judged if not outcome.equal]
    figures = f"{len(judged) - len(wrong)} of {len(judged)}"
    if wrong:
        figures += f"; not {', '.join(wrong)}"
    return Goal("every contender's scores equal the truth within 1e-9", figures, not wrong)
