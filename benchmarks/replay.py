"""How fast a log is folded again: every fold of a task, from zero, from a checkpoint, and plain reading.

    python -m benchmarks.replay [--quick] [--json FILE]

Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import harness
from benchmarks.harness import Goal
from benchmarks.replay_arms import ARMS, FLOOR, FOLDING, LOOP, RESTORED, SIDE_BY_SIDE, ZERO, Job
from benchmarks.replay_log import fill
from infra.settings import Settings

PREDICTIONS = 500_000
"""And as many labels."""
QUICK_PREDICTIONS = 50_000
LOOP_SHARE = 0.25
"""What folding may leave of the rate of a loop that only decodes."""
RESTORED_RATE = 500_000
HEADER = ("reader", "events/s", "x floor", "x fastavro", "seconds", "peak MB", "CPU s", "state")


@dataclass
class Outcome:
    """What a reader did; `states`: fold -> fingerprint."""

    name: str
    seconds: list[float] = field(default_factory=list)
    used: list[harness.Used] = field(default_factory=list)
    states: dict[str, str] = field(default_factory=dict)
    events: int = 0
    note: str = ""

    @property
    def rate(self) -> float:
        return self.events / statistics.median(self.seconds) if self.seconds else 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.replay", description=__doc__)
    add: Any = parser.add_argument
    add("--quick", action="store_true", help=f"{QUICK_PREDICTIONS:,} predictions, one run of each")
    add("--predictions", type=int, metavar="N", help=f"{PREDICTIONS:,} unless said otherwise")
    add("--runs", type=int, metavar="N", help="of each reader, 3 unless said otherwise")
    add("--port-offset", type=int, default=600, metavar="N")
    add("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    count = asked.predictions or (QUICK_PREDICTIONS if asked.quick else PREDICTIONS)
    runs = asked.runs or (1 if asked.quick else 3)
    outcomes = [Outcome(name) for name in ARMS]
    console = harness.console()
    with tempfile.TemporaryDirectory(prefix="replay-") as home:
        settings = Settings(
            home=Path(home), port_offset=asked.port_offset, cache=Settings().cache.expanduser()
        )
        with harness.cluster(settings):
            job = fill(settings, count)
            for _ in range(runs):
                for outcome in outcomes:
                    _turn(settings, job, outcome)
    title = (
        f"{count:,} predictions and as many labels, {job.partitions} partitions, read to the end"
    )
    harness.show_table(console, title, HEADER, rows(outcomes))
    for outcome in outcomes:
        if outcome.note:
            console.print(f"{outcome.name}: {outcome.note}", highlight=False)
    report = {
        "predictions": count,
        "readers": [
            {
                "name": outcome.name,
                "events_per_second": round(outcome.rate),
                "seconds": [round(seconds, 3) for seconds in outcome.seconds],
                "peak_mb": max((used.peak_mb for used in outcome.used), default=None),
                "cpu_s": outcome.used[-1].cpu_s if outcome.used else None,
                "states": outcome.states,
                "note": outcome.note,
            }
            for outcome in outcomes
        ],
    }
    return harness.finish(console, goals(outcomes), report, asked.json)


def _turn(settings: Settings, job: Job, outcome: Outcome) -> None:
    path = settings.home / "job.json"
    job.write(path)
    try:
        result, used = harness.measure(
            [sys.executable, "-m", "benchmarks.replay_arms", outcome.name, str(path)],
            settings.logs / f"{outcome.name}.log",
            timeout_s=1_200.0,
            env=settings.to_env(),
        )
    except harness.NotRun as reason:
        outcome.note = f"not run: {reason}"
        return
    outcome.seconds.append(result["ended"] - result["began"])
    outcome.used.append(used)
    outcome.events, outcome.states = result["events"], result["states"]


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    by_name = {outcome.name: outcome for outcome in outcomes}
    floor, loop = by_name[FLOOR].rate, by_name[LOOP].rate
    table = []
    for outcome in outcomes:
        if not outcome.seconds:
            table.append([outcome.name, *["-"] * (len(HEADER) - 1)])
            continue
        folded = sorted(set(outcome.states.values()))
        table.append(
            [
                outcome.name,
                f"{outcome.rate:,.0f}",
                f"{outcome.rate / floor:.2f}" if floor else "-",
                f"{outcome.rate / loop:.2f}" if loop else "-",
                f"{statistics.median(outcome.seconds):.2f}",
                f"{max(used.peak_mb for used in outcome.used):,.0f}",
                f"{outcome.used[-1].cpu_s:.1f}",
                f"{len(outcome.states)} folds" if folded else "-",
            ]
        )
    return table


def goals(outcomes: Sequence[Outcome]) -> list[Goal]:
    by_name = {outcome.name: outcome for outcome in outcomes}
    folding = [by_name[name] for name in FOLDING]
    states = [outcome.states for outcome in folding]
    equal = bool(states[0]) and all(state == states[0] for state in states)
    zero, loop = by_name[ZERO].rate, by_name[LOOP].rate
    counts = {outcome.events for outcome in outcomes}
    restored = by_name[RESTORED].rate
    return [
        Goal(
            "every way to the state leads to the same state",
            f"{len(states[0])} folds, {len(folding)} ways: {'equal' if equal else 'NOT equal'}",
            equal,
        ),
        Goal(
            "every reader met every record",
            " and ".join(f"{count:,}" for count in sorted(counts)),
            len(counts) == 1 and counts != {0},
        ),
        Goal(
            f"folding from zero keeps {LOOP_SHARE:.0%} of the rate of decoding alone",
            f"{zero:,.0f} and {loop:,.0f} events/s",
            zero >= LOOP_SHARE * loop > 0,
        ),
        Goal(
            "a second process helps",
            f"{by_name[SIDE_BY_SIDE].rate:,.0f} and {zero:,.0f} events/s",
            by_name[SIDE_BY_SIDE].rate > zero,
        ),
        Goal(
            f"with a checkpoint, {RESTORED_RATE:,} events/s to the log's end",
            f"{restored:,.0f} events/s",
            restored >= RESTORED_RATE,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
