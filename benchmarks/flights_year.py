"""A year of flights in virtual time: does the loop earn its keep beside frozen, monthly and daily models?

    python -m benchmarks.flights_year [--quick] [--json FILE]

The folds, the reactors and the training are those of the live system; the log is in memory. Exit status 0
if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.year_run import run_arms
from driftlog.simulate.history import UNLABELLED, History
from driftlog.simulate.loop import LATENCY_MS, Run
from examples.flights import task
from models.gates import auc, log_loss
from streams.task import HOUR_MS

ARMS: dict[str, int | None] = {"loop": None, "frozen": None, "monthly": 30, "daily": 1}
"""Arm -> days between its trainings; None: by the policy, or never."""
QUICK_DAYS = 90
NEW_YORK_MS = -5 * HOUR_MS
"""Months begin at midnight of New York's winter time."""
BETTER_THAN_FROZEN = 0.01
"""Log-loss that the loop must gain over the frozen first model: half of what that one gains itself over
answering every request with the year's share of late flights."""
AS_GOOD_AS_DAILY = 0.002
"""Log-loss within which two arms count as equally good."""
SHARE_OF_RETRAINS = 0.1


@dataclass(frozen=True)
class Measure:
    """One arm over some of its rows."""

    rows: int
    log_loss: float
    auc: float


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="flights_year", description=__doc__)
    parser.add_argument(
        "--quick", action="store_true", help="three months, without the daily arm, in a minute"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    arms = {name: days for name, days in ARMS.items() if name != "daily" or not asked.quick}
    began = time.monotonic()
    year, runs, seconds = run_arms(task, arms, QUICK_DAYS if asked.quick else None)
    report = summarise(year, runs, seconds)
    report["seconds_all"] = round(time.monotonic() - began, 1)
    show(report, Console(width=120 if not sys.stdout.isatty() else None))
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(goal["met"] for goal in report["goals"]) else 1


def summarise(year: History, runs: dict[str, Run], seconds: dict[str, float]) -> dict[str, Any]:
    """All figures as plain data. Every arm is measured on the same rows: labelled, after the first model."""
    labelled = year.data.labels != UNLABELLED
    for run in runs.values():
        labelled &= ~np.isnan(run.scores)
    local = (year.data.times + NEW_YORK_MS).astype("datetime64[ms]")
    months = local.astype("datetime64[M]").astype(str)
    arms = {}
    for name, run in runs.items():
        arms[name] = {
            **asdict(_measure(year, run, labelled)),
            "retrains": len(run.retrains),
            "promotions": sum(retrain.promoted for retrain in run.retrains),
            "labels": int(run.read.sum()),
            "rows_trained_on": sum(retrain.rows for retrain in run.retrains),
            "seconds": round(seconds[name], 1),
        }
    return {
        "task": task.name,
        "predictions": len(year.data),
        "seconds_vectors": round(seconds["vectors"], 1),
        "latency_minutes": LATENCY_MS // 60_000,
        "arms": arms,
        "months": [
            {
                "month": month,
                "positives": round(float(year.data.labels[rows].mean()), 4),
                **{name: asdict(_measure(year, run, rows)) for name, run in runs.items()},
            }
            for month in sorted(set(months[labelled]))
            if (rows := labelled & (months == month)).any()
        ],
        "retrains": [asdict(retrain) for retrain in runs["loop"].retrains],
        "goals": goals(arms),
    }


def _measure(year: History, run: Run, rows: np.ndarray[Any, Any]) -> Measure:
    labels, scores = year.data.labels[rows], run.scores[rows]
    return Measure(
        int(rows.sum()), round(log_loss(labels, scores), 5), round(auc(labels, scores), 5)
    )


def goals(arms: dict[str, Any]) -> list[dict[str, Any]]:
    """What the loop is there for, each with its figures and whether it holds."""
    loop, frozen, daily = arms["loop"], arms["frozen"], arms.get("daily")
    gain = frozen["log_loss"] - loop["log_loss"]
    found = [
        _goal(
            f"the loop's log-loss is at least {BETTER_THAN_FROZEN} below the frozen first model's",
            f"{loop['log_loss']:.4f} against {frozen['log_loss']:.4f}: {gain:.4f} below",
            gain >= BETTER_THAN_FROZEN,
        )
    ]
    if daily:
        behind = loop["log_loss"] - daily["log_loss"]
        share = loop["retrains"] / daily["retrains"]
        found += [
            _goal(
                f"the loop's log-loss is within {AS_GOOD_AS_DAILY} of a daily retrain's",
                f"{loop['log_loss']:.4f} against {daily['log_loss']:.4f}: {behind:+.4f}",
                behind <= AS_GOOD_AS_DAILY,
            ),
            _goal(
                f"with at most {SHARE_OF_RETRAINS:.0%} of its retrains",
                f"{loop['retrains']} of {daily['retrains']}: {share:.1%}",
                share <= SHARE_OF_RETRAINS,
            ),
        ]
    return found


def _goal(text: str, figures: str, met: bool) -> dict[str, Any]:
    return {"goal": text, "figures": figures, "met": bool(met)}


def show(report: dict[str, Any], console: Console) -> None:
    arms = list(report["arms"])
    table = Table(
        "month", "flights", "late", title="log-loss and AUC by month", title_justify="left"
    )
    for measure in ("log-loss", "AUC"):
        for name in arms:
            table.add_column(f"{measure}\n{name}", justify="right")
    whole = {name: report["arms"][name] for name in arms}
    shares = [(month["positives"], month["loop"]["rows"]) for month in report["months"]]
    late = sum(share * rows for share, rows in shares) / sum(rows for _, rows in shares)
    for row in [*report["months"], {"month": "all", "positives": late, **whole}]:
        table.add_row(
            row["month"],
            f"{row['loop']['rows']:,}",
            f"{row['positives']:.1%}",
            *(f"{row[name]['log_loss']:.4f}" for name in arms),
            *(f"{row[name]['auc']:.3f}" for name in arms),
            end_section=row is report["months"][-1],
        )
    console.print(table)
    totals = Table("arm", title="what it took", title_justify="left")
    for column in ("retrains", "promotions", "labels", "rows trained on", "seconds"):
        totals.add_column(column, justify="right")
    for name, arm in report["arms"].items():
        counts = (arm[key] for key in ("retrains", "promotions", "labels", "rows_trained_on"))
        totals.add_row(name, *(f"{count:,}" for count in counts), f"{arm['seconds']:.0f}")
    console.print(totals)
    console.print("The loop's retrains", style="italic", highlight=False)
    for retrain in report["retrains"]:
        day = datetime.fromtimestamp(retrain["time"] / 1000, UTC).strftime("%b %d")
        fate = "promoted" if retrain["promoted"] else "rejected"
        line = f"  {day}  {retrain['trigger']:<12} {fate}  {retrain['reason']}"
        console.print(line, highlight=False, soft_wrap=True)
    console.print(
        f"{report['predictions']:,} vectors in {report['seconds_vectors']:.0f} s, all in"
        f" {report['seconds_all']:.0f} s; a model answers {report['latency_minutes']} virtual minutes"
        " after it was asked for",
        highlight=False,
    )
    for goal in report["goals"]:
        mark = "[green]met   [/]" if goal["met"] else "[red]missed[/]"
        console.print(f"{mark} {goal['goal']}: {goal['figures']}", highlight=False, soft_wrap=True)
    missed = sum(not goal["met"] for goal in report["goals"])
    console.print(
        "every goal was met" if not missed else f"{missed} of {len(report['goals'])} goals missed"
    )


if __name__ == "__main__":
    sys.exit(main())
