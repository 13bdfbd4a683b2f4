"""Predictions and their labels, 6 to 18 hours later: the join over columns beside the one over events.

    python -m benchmarks.label_join [--quick] [--json FILE]

A day of predictions; 3 % never get a label, 1 % of everything comes twice, and all is out of order by up to
a minute. Repeats are dropped first, by each contender's own means. The joins are fed from memory with what
a decoder gives them: arrays, or texts and numbers. Then the whole path from Avro payloads to statements,
with a smaller history. Memory is what a process holds above what it is fed with; mapped files are page
cache, which the kernel takes back when it needs it. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import Goal, console, finish, measure, show_table
from benchmarks.label_join_arms import JOINS, MEMORY_BYTES, WHOLE

PREDICTIONS, QUICK_PREDICTIONS = 1_000_000, 100_000
WHOLE_PREDICTIONS, QUICK_WHOLE_PREDICTIONS = 300_000, 30_000
GOAL_PER_S = 50_000
OURS = "columns on the LSM tree"
LABEL_JOIN = "LabelJoin (dict)"
ROOM_MB = 64
"""For the two tables that recognise repeats, the alive bits of runs and the arrays of one batch."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="label_join", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    out = console()
    joins = {name: run(name, QUICK_PREDICTIONS if asked.quick else PREDICTIONS) for name in JOINS}
    size = QUICK_WHOLE_PREDICTIONS if asked.quick else WHOLE_PREDICTIONS
    whole = {name: run(name, size) for name in WHOLE}
    show(out, "the join alone", joins, LABEL_JOIN)
    show(out, "from Avro payloads to statements", whole, list(WHOLE)[1])
    return finish(out, goals(joins, whole), {"joins": joins, "whole": whole}, asked.json)


def run(name: str, count: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        argv = [sys.executable, "-m", "benchmarks.label_join_arms", name, str(count)]
        found, used = measure(argv, Path(folder) / "stderr.log", timeout_s=550)
        return {**found, "peak_mb": used.peak_mb}


def show(out: Any, title: str, results: dict[str, dict[str, Any]], peer: str) -> None:
    base = results[peer]["cpu"] / results[peer]["events"]
    rows = [
        [
            name,
            f"{found['events'] / found['seconds']:,.0f}",
            f"{found['events'] / found['cpu']:,.0f}",
            f"{base / (found['cpu'] / found['events']):.1f}x",
            f"{found['cpu']:.1f}",
            f"{found['held_mb']:.0f}",
            f"{found['mapped_mb']:.0f}",
        ]
        for name, found in results.items()
    ]
    events = next(iter(results.values()))["events"]
    header = ("contender", "events/s", "per CPU s", "by CPU", "CPU s", "memory MB", "mapped MB")
    show_table(out, f"{title}: {events:,} events", header, rows)


def goals(joins: dict[str, dict[str, Any]], whole: dict[str, dict[str, Any]]) -> list[Goal]:
    ours = joins[OURS]
    rate = ours["events"] / ours["seconds"]
    bound = MEMORY_BYTES / 2**20 + ROOM_MB
    found = joins[LABEL_JOIN]["found"]
    equal = all(join["found"] == found for join in joins.values())
    columns, events = (whole[name] for name in WHOLE)
    whole_rate = columns["events"] / columns["seconds"]
    return [
        Goal(
            "every join finds the same matches",
            f"{found['count']:,} matched, {found['unmatched']:,} without label",
            equal and found["count"] > 0,
        ),
        Goal(f"{GOAL_PER_S:,} events/s on the LSM tree", f"{rate:,.0f}", rate >= GOAL_PER_S),
        Goal(
            f"in {MEMORY_BYTES >> 20} MB of memtables and {ROOM_MB} MB for the rest",
            f"{ours['held_mb']:.0f} MB; a dict takes {joins[LABEL_JOIN]['held_mb']:.0f} MB",
            ours["held_mb"] <= bound,
        ),
        Goal(
            "from Avro payloads: the same state by columns as by events",
            f"{columns['found']['matched']:,} matched",
            columns["found"]["print"] == events["found"]["print"],
        ),
        Goal(
            f"{GOAL_PER_S:,} events/s from Avro payloads",
            f"{whole_rate:,.0f}",
            whole_rate >= GOAL_PER_S,
        ),
    ]


if __name__ == "__main__":
    sys.exit(main())
