"""Monitors: do false alarms stay at their stated level, and how soon is a planted shift found beside peers?

    python -m benchmarks.monitors [--quick] [--json FILE] [--only false-alarms|delays]
        [--streams N] [--shifted N] [--pace abrupt|gradual] [--evidently PYTHON]
        [--nannyml PYTHON] [--kswin] [--processes N]

Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from benchmarks.monitors import delays, false_alarms, report

SHIFT_STREAMS, QUICK_SHIFT_STREAMS = 20, 5


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="monitors", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer streams and sizes, no peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    parser.add_argument("--only", choices=("false-alarms", "delays"), help="one of the two tables")
    parser.add_argument("--evidently", type=Path, metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--nannyml", type=Path, metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--streams", type=int, metavar="N", help="calm streams of each size")
    parser.add_argument("--shifted", type=int, metavar="N", help="streams of each planted shift")
    parser.add_argument("--pace", choices=delays.PACES, help="only shifts of one pace")
    parser.add_argument("--kswin", action="store_true", help="river's KSWIN too: slow")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(arguments)
    console = Console(width=120 if not sys.stdout.isatty() else None)
    found: dict[str, Any] = {}
    if asked.only != "delays":
        found["false_alarms"] = _false_alarms(asked, console)
    if asked.only != "false-alarms":
        found["delays"] = _delays(asked, console)
    goals = report.goals(found)
    if asked.json:
        asked.json.write_text(json.dumps({**found, "goals": goals}, indent=1) + "\n")
    report.show_goals(goals, console)
    return 0 if all(goal["met"] for goal in goals) else 1


def _false_alarms(asked: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    sizes = false_alarms.QUICK_SIZES if asked.quick else false_alarms.SIZES
    default = false_alarms.QUICK_STREAMS if asked.quick else false_alarms.STREAMS
    streams = asked.streams or default
    rates: list[false_alarms.Rate] = []
    for of_size in false_alarms.measured(streams, sizes, asked.processes):
        rates += of_size
        print(f"{streams} streams of windows of {of_size[0].size} rows", file=sys.stderr)
        if asked.json:  # so far: the large sizes take minutes
            found = {"false_alarms": [report.rate_json(rate) for rate in rates]}
            asked.json.write_text(json.dumps(found, indent=1) + "\n")
    report.show_rates(rates, sizes, streams, console)
    return [report.rate_json(rate) for rate in rates]


def _delays(asked: argparse.Namespace, console: Console) -> list[dict[str, Any]]:
    streams = asked.shifted or (QUICK_SHIFT_STREAMS if asked.quick else SHIFT_STREAMS)
    peers = {} if asked.quick else {"evidently": asked.evidently, "nannyml": asked.nannyml}
    say = lambda line: print(line, file=sys.stderr)  # noqa: E731
    paces = (asked.pace,) if asked.pace else delays.PACES
    rows = delays.measured(
        streams, peers, say, paces=paces, kswin=asked.kswin, at_once=asked.processes
    )
    report.show_delays(rows, streams, console)
    return rows


if __name__ == "__main__":
    sys.exit(main())
