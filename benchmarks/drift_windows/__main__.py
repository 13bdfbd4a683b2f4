"""Drift windows: every contender reads one topic of predictions and scores the drift of every window.

    python -m benchmarks.drift_windows [--quick] [--peers] [--only NAME] [--json FILE]

Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)

from benchmarks import harness
from benchmarks.drift_windows import workload
from benchmarks.drift_windows.contenders import CONTENDERS, Contender
from benchmarks.drift_windows.report import HEADER, goals, rows
from benchmarks.drift_windows.run import Outcome, Stage
from infra.settings import Settings

EVENTS = 2_000_000
QUICK_EVENTS = 200_000


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _parser().parse_args(arguments)
    events = asked.events or (QUICK_EVENTS if asked.quick else EVENTS)
    taking_part = chosen(asked.only, asked.quick)
    console = harness.console()
    with ExitStack() as stack:
        settings = _settings(asked, stack)
        stack.enter_context(harness.cluster(settings))
        stage = Stage(
            settings,
            asked.cache.expanduser() / "benchmarks",
            asked.partitions,
            asked.replication,
            asked.peers,
        )
        outcomes = run_all(stage, taking_part, events, asked.runs)
    report = {
        "events": events,
        "partitions": asked.partitions,
        "replication": asked.replication,
        "contenders": [outcome.as_dict() for outcome in outcomes],
    }
    title = (
        f"drift windows: {events:,} predictions, {asked.partitions} partitions, replication"
        f" {asked.replication}, {len(workload.COLUMNS)} columns,"
        f" {-(-events // workload.EVENTS_PER_WINDOW)} windows of {len(workload.MODELS)} models"
    )
    harness.show_table(console, title, HEADER, rows(outcomes))
    for outcome in outcomes:
        if outcome.note:
            console.print(f"{outcome.contender.name}: {outcome.note}", highlight=False)
    return harness.finish(console, goals(outcomes), report, asked.json)


def chosen(only: Sequence[str], quick: bool) -> list[Contender]:
    """Those named; without names all of them, or the quick ones."""
    if only:
        return [contender for contender in CONTENDERS if contender.name in only]
    return [contender for contender in CONTENDERS if contender.quick or not quick]


def run_all(
    stage: Stage, contenders: Sequence[Contender], events: int, runs: int | None
) -> list[Outcome]:
    """Round by round, so that a busy minute of the machine is not one contender's bad luck."""
    outcomes = [Outcome(contender) for contender in contenders]
    columns = TextColumn("{task.description:<32}"), BarColumn(30), MofNCompleteColumn()
    with Progress(*columns, TimeElapsedColumn(), console=_errors()) as bars:
        sizes = {contender.events_of(events) for contender in contenders}
        for size in sorted(sizes, reverse=True):
            bar = bars.add_task(f"producing {size:,}", total=None)
            stage.fill(size, partial(_show, bars, bar))
        total = sum(runs or contender.runs for contender in contenders)
        bar = bars.add_task("contenders", total=total)
        for turn in range(max(runs or contender.runs for contender in contenders)):
            for outcome in outcomes:
                if turn < (runs or outcome.contender.runs):
                    bars.update(bar, description=outcome.contender.title)
                    stage.run(outcome, outcome.contender.events_of(events))
                    bars.advance(bar)
        bars.update(bar, description="contenders")
    return outcomes


def _show(bars: Progress, bar: TaskID, done: int, total: int) -> None:
    bars.update(bar, completed=done, total=total)


def _settings(asked: argparse.Namespace, stack: ExitStack) -> Settings:
    cache = asked.cache.expanduser()
    if asked.keep:
        home = cache / "benchmarks" / "drift-windows"
    else:
        home = Path(tempfile.mkdtemp(prefix="drift-windows-"))
        stack.callback(shutil.rmtree, home, ignore_errors=True)
    home.mkdir(parents=True, exist_ok=True)
    return Settings(
        home=home, port_offset=asked.port_offset, cache=cache, partitions=asked.partitions
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.drift_windows", description=__doc__.splitlines()[0]
    )
    add: Any = parser.add_argument
    names = [contender.name for contender in CONTENDERS]
    add("--quick", action="store_true", help=f"{QUICK_EVENTS:,} events, without the slow ones")
    add("--peers", action="store_true", help="install what is missing of the contenders")
    add("--only", action="append", default=[], choices=names, metavar="NAME", help=", ".join(names))
    add("--events", type=int, metavar="N", help=f"{EVENTS:,} unless said otherwise")
    add("--partitions", type=int, default=4, metavar="N")
    add("--replication", type=int, default=3, choices=(1, 2, 3))
    add("--runs", type=int, metavar="N", help="of each contender; the median counts")
    add("--keep", action="store_true", help="keep the topics for the next call with --keep")
    add("--port-offset", type=int, default=600, metavar="N")
    add("--cache", type=Path, default=Settings().cache, metavar="FOLDER")
    add("--json", type=Path, metavar="FILE", help="write the same figures there")
    return parser


def _errors() -> Any:
    from rich.console import Console

    return Console(stderr=True)


if __name__ == "__main__":
    sys.exit(main())
