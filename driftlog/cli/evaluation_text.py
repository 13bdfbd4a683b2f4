"""How an evaluation is shown: numbers with their intervals, calibration, slices and groups as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from driftlog.words import moment

Data = Mapping[str, Any]


def show(data: Data) -> None:
    """Print what `models.evaluation.evaluate` says."""
    from rich.console import Console

    console = Console(highlight=False)
    span = f"{moment(data['from_time'])} to {moment(data['to_time'])}"
    console.print(
        f"{data['model_version']} on {data['rows']:,} golden rows ({data['positives']:,} positive), {span}"
    )
    metrics = data["metrics"]
    console.print(
        f"  log-loss {_with_band(metrics)}, AUC {metrics['auc']:.4f}, Brier {metrics['brier']:.4f}"
    )
    told = data["calibration"]
    console.print(
        f"  calibration error {told['error']:.4f} ({told['by_chance']:.4f} by chance),"
        f" slope {told['slope']:.3f}, intercept {told['intercept']:+.3f}"
    )
    console.print(_calibration(told["bins"]))
    if data["slices"]:
        console.print(_slices(data["slices"]))
    for group in data["fairness"]:
        console.print(_groups(group))


def _calibration(bins: list[Data]) -> Any:
    table = _table("score from", "rows", "mean score", "positive")
    for each in bins:
        table.add_row(
            f"{each['from']:.1f}",
            f"{each['rows']:,}",
            f"{each['mean_score']:.3f}",
            f"{each['positive_rate']:.3f}",
        )
    return table


def _slices(slices: list[Data]) -> Any:
    table = _table("feature", "value", "rows", "positive", "log-loss")
    for each in slices:
        table.add_row(
            each["feature"],
            each["value"],
            f"{each['rows']:,}",
            f"{each['positive_rate']:.1%}",
            _with_band(each),
        )
    return table


def _groups(group: Data) -> Any:
    gaps = ", ".join(
        f"{name.replace('_', ' ')} gap {group[f'{name}_gap']:.4f}"
        for name in ("demographic_parity", "equalized_odds")
    )
    table = _table(group["feature"], "rows", "decided 1", "true positive", "false positive")
    table.title, table.title_justify = gaps, "left"
    for name, row in group["groups"].items():
        rates = ("selection_rate", "true_positive_rate", "false_positive_rate")
        table.add_row(name, f"{row['rows']:,.0f}", *(f"{row[rate]:.1%}" for rate in rates))
    return table


def _with_band(data: Data) -> str:
    if data["log_loss_low"] is None:
        return f"{data['log_loss']:.4f}"
    return f"{data['log_loss']:.4f} ({data['log_loss_low']:.4f} to {data['log_loss_high']:.4f})"


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    text = ("feature", "value", "score from")
    for place, name in enumerate(columns):
        table.add_column(name, justify="left" if place == 0 or name in text else "right")
    return table
