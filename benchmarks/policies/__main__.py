"""Retrain policies on streams with known drift and on real flights: is the default worth its retrains?

    python -m benchmarks.policies [--quick] [--json FILE] [--evidently PYTHON] [--processes N]
        [--stream NAME ...] [--seed N] [--flights-days N]

All arms share data, features, recipe, trainer, gates and first model; only what asks for a model differs.
Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.policies.evidently_test import EvidentlyTest, PeerFailed
from driftlog.cli.simulate import row
from driftlog.simulate.arms import Arm, arm, run_arms
from driftlog.simulate.history import History, read_history
from driftlog.simulate.measures import Measures, measure
from driftlog.simulate.picture import draw
from driftlog.simulate.streams import SEED, stream
from examples.flights import task as flights_task
from streams.task import Recipe, RetrainPolicy, Task

SYNTHETIC = (
    "sea-abrupt",
    "sea-gradual",
    "agrawal-abrupt",
    "agrawal-recurring",
    "led-gradual",
    "led-recurring",
)
QUICK = ("agrawal-abrupt",)
FLIGHTS = "flights"
POLICIES = ("task", "never", "daily", "weekly", "adwin")
WITHIN = 0.02
"""Share of the best log-loss within which a policy counts as as good."""
SMALL = Recipe(
    "gradient_boosting",
    {"iterations": 15, "learning_rate": 0.25, "leaves": 8, "min_leaf": 200},
    training_days=60,
)
"""For the flights: hundreds of daily trainings in minutes. All arms have it."""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="policies", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one synthetic stream, no peers")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    parser.add_argument("--plots", type=Path, metavar="FOLDER", help="a picture of each stream")
    parser.add_argument("--evidently", type=Path, metavar="PYTHON", help="a Python that has it")
    parser.add_argument("--stream", nargs="+", choices=(*SYNTHETIC, FLIGHTS), metavar="NAME")
    parser.add_argument("--flights-days", type=int, help="only so many days of the flights year")
    parser.add_argument("--seed", type=int, default=SEED, help="other rows of the same streams")
    parser.add_argument("--processes", type=int, default=2)
    asked = parser.parse_args(arguments)
    console = Console(width=120 if not sys.stdout.isatty() else None)
    report: list[dict[str, Any]] = []
    if asked.evidently is None:
        console.print("evidently: no Python was named that has it (--evidently); left out")
    for name in asked.stream or (QUICK if asked.quick else (*SYNTHETIC, FLIGHTS)):
        began = time.monotonic()
        task, changes, spread = _subject(name, asked.seed)
        history = read_history(task, asked.flights_days if name == FLIGHTS else None)
        arms = _arms(task, asked.evidently)
        runs = run_arms(history, arms, asked.processes, _say(name))
        found = measure(task, history, runs, changes, spread)
        if asked.plots:
            asked.plots.mkdir(parents=True, exist_ok=True)
            draw(asked.plots / f"{name}.png", name, history, runs, changes)
        report.append(_stream_report(name, found, runs, time.monotonic() - began))
        show(report[-1], found, console)
        if asked.json:
            asked.json.write_text(json.dumps(report, indent=1) + "\n")
    met = [each["goal"]["met"] for each in report]
    console.print(
        "every goal was met" if all(met) else f"{met.count(False)} of {len(met)} goals missed"
    )
    return 0 if all(met) else 1


def _say(stream_name: str) -> Callable[[str, int, int], None]:
    return lambda name, done, total: print(f"{stream_name}: {name}", file=sys.stderr)


def _subject(name: str, seed: int) -> tuple[Task, Sequence[int], int]:
    """The task, with the retrain policy that a task has if it says nothing; flights keep their own."""
    if name == FLIGHTS:
        return replace(flights_task, recipe=SMALL), (), 0
    made = stream(name, seed)
    assert made.task.retrain == RetrainPolicy()
    return made.task, made.changes, made.spread_ms


def _arms(task: Task, evidently: Path | None) -> list[Arm]:
    arms = [arm(task, word) for word in POLICIES]
    arms[0] = replace(arms[0], name="driftlog")
    if evidently:

        def make(history: History) -> EvidentlyTest:
            return EvidentlyTest(task, history, evidently)

        arms.append(Arm("evidently", task, make))
    return arms


def _stream_report(
    name: str, found: Sequence[Measures], runs: Sequence[Any], seconds: float
) -> dict[str, Any]:
    return {
        "stream": name,
        "seconds": round(seconds, 1),
        "policies": [asdict(each) for each in found],
        "retrains": {run.name: [asdict(retrain) for retrain in run.retrains] for run in runs},
        "goal": goal(found),
    }


def goal(found: Sequence[Measures]) -> dict[str, Any]:
    """Best, or within 2 % of the best loss, with the fewest retrains among those that are."""
    best = min(each.log_loss for each in found)
    good = [each for each in found if each.log_loss <= best * (1 + WITHIN)]
    fewest = min(good, key=lambda each: (each.retrains, each.log_loss))
    ours = next(each for each in found if each.policy == "driftlog")
    return {
        "behind": round(ours.log_loss / best - 1, 5),
        "retrains": ours.retrains,
        "good": {each.policy: each.retrains for each in good},
        "met": ours in good and ours.retrains <= fewest.retrains,
    }


def show(made: dict[str, Any], found: Sequence[Measures], console: Console) -> None:
    table = Table(
        "policy",
        title=f"{made['stream']}: {found[0].rows:,} labelled answers",
        title_justify="left",
    )
    for name in (
        *("log-loss", "regret", "delay, days", "seen", "false alarms", "retrains", "promoted"),
        "labels",
    ):
        table.add_column(name, justify="right")
    for each in found:
        table.add_row(*row(each))
    console.print(table)
    what = made["goal"]
    mark = "[green]met   [/]" if what["met"] else "[red]missed[/]"
    good = ", ".join(f"{name} ({count})" for name, count in what["good"].items())
    console.print(
        f"{mark} within {WITHIN:.0%} of the best loss with the fewest retrains: driftlog"
        f" {what['behind']:+.1%} with {what['retrains']}; within it (retrains): {good};"
        f" {made['seconds']:.0f} s",
        highlight=False,
        soft_wrap=True,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except PeerFailed as failure:
        sys.exit(f"policies: {failure}")
