"""Are leaks found before anything is trained, and honest training sets left alone? And what does it cost?

    python -m benchmarks.training_checks [--quick] [--json FILE]

Honest training sets are cut out of the flights (real) and the loans (generated, with two changes of their
rules) every few days, as the trainer would. Then a feature that knows the future is planted in samples of
them. The floor beside it is the AUC of the feature's own values against the same ceiling, which is what
a plain check of single features does. Exit status 0 if every goal was met, 1 if not.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table

from driftlog.simulate.history import read_history
from examples import flights, loans
from models import training
from models.dataset import Dataset
from models.gates import auc
from models.leakage import single_feature_checks
from models.sampling import reservoir
from models.training_checks import feature_aucs, refusal, training_checks
from streams.quality import verdict
from streams.task import DAY_MS, Task

Plant = Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]
SIZES = (300, 1_000, 5_000)
ENOUGH = 1_000
"""Rows from which on every leak must be found; with fewer the chance is only shown."""
SHARE_OF_TRAINING = 0.2
"""Of the seconds of a training, over all training sets of the flights together."""
FOUND = 0.99
NAME = "planted"


def _noisy(noise: float) -> Plant:
    return lambda labels, chance: labels + chance.normal(0, noise, len(labels))


def _u_shaped(labels: NDArray[Any], chance: np.random.Generator) -> NDArray[Any]:
    far = chance.choice([-1.0, 1.0], len(labels)) * (2 + chance.random(len(labels)))
    return np.where(labels == 1, far, chance.uniform(-1, 1, len(labels)))


def _missing(labels: NDArray[Any], chance: np.random.Generator) -> NDArray[Any]:
    return np.where(labels == 1, np.nan, chance.normal(size=len(labels)))


def _category(labels: NDArray[Any], chance: np.random.Generator) -> NDArray[Any]:
    codes = chance.integers(0, 10, len(labels))
    return np.array([f"{a}-{b}" for a, b in zip(labels, codes, strict=True)], dtype=object)


LEAKS: dict[str, Plant] = {
    "label + noise 0.1": _noisy(0.1),
    "label + noise 0.3": _noisy(0.3),
    "U-shaped": _u_shaped,
    "missing if 1": _missing,
    "category": _category,
}
HARMLESS: dict[str, Plant] = {
    "label + noise 1.0": _noisy(1.0),  # AUC 0.76: an honest feature may be as good
    "noise": lambda labels, chance: chance.normal(size=len(labels)),
    "ids": lambda labels, _: np.array([f"id-{n}" for n in range(len(labels))], dtype=object),
}


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="training_checks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer training sets and draws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the same figures there")
    asked = parser.parse_args(arguments)
    warnings.filterwarnings("ignore", category=FutureWarning)
    draws = 5 if asked.quick else 40
    spans = [(flights.task, 60, 20), (loans.task, 60, 6)]
    if not asked.quick:
        spans = [(flights.task, 120, 10), (loans.task, 150, 3)]
    honest, planted = [], []
    for task, days, step in spans:
        sets = list(training_sets(task, days, step))
        honest.append(judge_honest(task, sets))
        planted += plant(task, sets[-1], draws)
    report = {"honest": honest, "planted": planted, "goals": goals(honest, planted)}
    show(report)
    if asked.json:
        asked.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return 0 if all(goal["met"] for goal in report["goals"]) else 1


def training_sets(task: Task, days: int, step: int) -> Iterator[tuple[int, Dataset]]:
    """(labels known until, rows) of a training every `step` days."""
    year = read_history(task, days)
    for day in range(step, days + 1, step):
        until = int(year.data.times[0]) + day * DAY_MS
        rows = year.known(until - task.recipe.training_days * DAY_MS, until)
        if len(rows) >= task.retrain.first_labels // 2:
            yield until, rows


def judge_honest(task: Task, sets: Sequence[tuple[int, Dataset]]) -> dict[str, Any]:
    """Refusals and alerts over the training sets of a task, and the seconds beside those of training."""
    refused, alerts = [], []
    checking = fitting = strongest = 0.0
    before: dict[str, float] = {}
    for number, (until, rows) in enumerate(sets):
        began = time.perf_counter()
        checks = training_checks(task, rows, training.fit_and_score(task), before)
        checking += time.perf_counter() - began
        said = verdict(checks)
        if reason := refusal(said):
            refused.append(reason)
        alerts += [check.message for check in checks if not check.passed]
        before = feature_aucs(said)
        strongest = max(strongest, *before.values())
        began = time.perf_counter()
        training.train(task, rows, until, None, None, f"{task.name}-{number}")
        fitting += time.perf_counter() - began
    return {
        "task": task.name,
        "training_sets": len(sets),
        "refused": refused,
        "alerts": alerts,
        "strongest_feature_auc": strongest,
        "check_seconds": round(checking, 2),
        "train_seconds": round(fitting, 2),
    }


def plant(task: Task, newest: tuple[int, Dataset], draws: int) -> list[dict[str, Any]]:
    """How often a planted feature is found, by its kind and the number of rows."""
    found = []
    for kind, make in {**LEAKS, **HARMLESS}.items():
        for size in SIZES:
            hits = floor = 0
            for seed in range(draws):
                rows = newest[1].where(reservoir(newest[1].ids, size, seed))
                values = make(rows.labels, np.random.default_rng(seed))
                alone = dataclasses.replace(rows, columns={NAME: values})
                checks = single_feature_checks(alone, task.quality, {})
                hits += any(not check.passed for check in checks)
                floor += _plain(values, rows.labels) > task.quality.max_feature_auc
            about = {"task": task.name, "leak": kind, "rows": size, "planted": kind in LEAKS}
            found.append({**about, "found": hits / draws, "plain": floor / draws})
    return found


def _plain(values: NDArray[Any], labels: NDArray[Any]) -> float:
    if values.dtype == object or np.isnan(values).any():
        return 0.5  # it knows numbers only
    _, place = np.unique(values, return_inverse=True)
    value = auc(labels, (place + 1) / (len(values) + 1))
    return max(value, 1 - value)


def goals(honest: list[dict[str, Any]], planted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    sets = sum(one["training_sets"] for one in honest)
    refused = sum(len(one["refused"]) for one in honest)
    leaks = [one["found"] for one in planted if one["planted"] and one["rows"] >= ENOUGH]
    harmless = [one["found"] for one in planted if not one["planted"]]
    (year,) = [one for one in honest if one["task"] == flights.task.name]
    share = year["check_seconds"] / year["train_seconds"]
    return [
        _goal("no honest training set is refused", f"{refused} of {sets}", refused == 0),
        _goal(
            f"each kind of leak is found in {FOUND:.0%} of the draws, from {ENOUGH:,} rows on",
            f"{min(leaks):.0%} at worst",
            min(leaks) >= FOUND,
        ),
        _goal(
            "no harmless feature is taken for a leak",
            f"{max(harmless):.0%} at worst",
            max(harmless) == 0,
        ),
        _goal(
            f"the checks take at most {SHARE_OF_TRAINING:.0%} of the flights' training time",
            f"{year['check_seconds']:.1f} s beside {year['train_seconds']:.1f} s: {share:.0%}",
            share <= SHARE_OF_TRAINING,
        ),
    ]


def _goal(text: str, figures: str, met: bool) -> dict[str, Any]:
    return {"goal": text, "figures": figures, "met": bool(met)}


def show(report: dict[str, Any]) -> None:
    console = Console(width=120 if not sys.stdout.isatty() else None)
    table = Table("task", "planted", "rows", "found", "plain AUC of the values", show_edge=False)
    for one in report["planted"]:
        table.add_row(
            one["task"],
            one["leak"] + ("" if one["planted"] else " (harmless)"),
            f"{one['rows']:,}",
            f"{one['found']:.0%}",
            f"{one['plain']:.0%}",
        )
    console.print(table)
    for one in report["honest"]:
        console.print(
            f"{one['task']}: {one['training_sets']} honest training sets, {len(one['refused'])} refused,"
            f" {len(one['alerts'])} alerts; strongest feature's AUC {one['strongest_feature_auc']:.3f};"
            f" checks {one['check_seconds']:.1f} s, training {one['train_seconds']:.1f} s",
            highlight=False,
        )
        for line in (*one["refused"], *sorted(set(one["alerts"]))):
            console.print(f"  {line}", highlight=False)
    for goal in report["goals"]:
        mark = "[green]met   [/]" if goal["met"] else "[red]missed[/]"
        console.print(f"{mark} {goal['goal']}: {goal['figures']}", highlight=False, soft_wrap=True)
    missed = sum(not goal["met"] for goal in report["goals"])
    console.print("every goal was met" if not missed else f"{missed} goals missed")


if __name__ == "__main__":
    sys.exit(main())
