"""The tables of the monitors' benchmark, and which goals were met."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.monitors.false_alarms import CONFIDENCE, TESTED, Rate

ALONE = "PSI: "
"""Monitors of one column, judged alone; the product judges all columns together."""


def rate_json(rate: Rate) -> dict[str, Any]:
    low, high = rate.interval
    return {
        "monitor": rate.monitor,
        "window_rows": rate.size,
        "alarms": rate.alarms,
        "windows": rate.windows,
        "level": rate.level,
        "rate": rate.alarms / rate.windows,
        "low": low,
        "high": high,
        "holds": rate.holds,
    }


def show_rates(rates: Sequence[Rate], sizes: Sequence[int], streams: int, to: Console) -> None:
    """A line for each monitor: % of windows with an alarm; a cell above its level beyond doubt is marked."""
    level = rates[0].level
    table = Table(
        "monitor",
        title=f"false alarms without drift, % of windows ({level:.0%} stated; {streams:,} streams of"
        f" each size, {TESTED} windows each; ! above it at {CONFIDENCE:.0%} confidence)",
        title_justify="left",
    )
    for size in sizes:
        table.add_column(f"{size:,} rows", justify="right")
    table.add_column("verdict")
    for monitor in dict.fromkeys(rate.monitor for rate in rates):
        mine = [rate for rate in rates if rate.monitor == monitor]
        cells = [
            f"{rate.alarms / rate.windows:.2%}".rstrip("%") + (" " if rate.holds else "!")
            for rate in mine
        ]
        table.add_row(monitor, *cells, "PASS" if all(r.holds for r in mine) else "FAIL")
    to.print(table)
    worst = max(rates, key=lambda rate: rate.windows and rate.interval[1] - rate.interval[0])
    low, high = worst.interval
    to.print(
        f"widest interval: {worst.monitor} at {worst.size:,} rows, {worst.alarms} of"
        f" {worst.windows} windows: {low:.2%} .. {high:.2%}",
        highlight=False,
    )


def show_delays(rows: Sequence[dict[str, Any]], streams: int, to: Console) -> None:
    """A line for each shift: median rows to the alarm (share found if not all)."""
    monitors = list(dict.fromkeys(row["monitor"] for row in rows))
    for gradual in sorted({row["gradual"] for row in rows if row["shift"] != "none"}):
        how = "gradual" if gradual else "abrupt"
        table = Table(
            "shift",
            title=f"{how} shifts: median rows until an alarm (share of {streams} streams in which it was"
            " found); first line: share of calm windows with an alarm",
            title_justify="left",
        )
        for monitor in monitors:
            table.add_column(monitor, justify="right")
        for shift in dict.fromkeys(row["shift"] for row in rows if row["gradual"] == gradual):
            cells = {
                row["monitor"]: _delay_cell(row)
                for row in rows
                if row["shift"] == shift and row["gradual"] == gradual
            }
            best = min(
                (
                    row["score"]
                    for row in rows
                    if row["shift"] == shift and row["gradual"] == gradual
                ),
                default=0,
            )
            table.add_row(
                shift,
                *(
                    f"[bold]{cells[m]}[/]"
                    if any(
                        r["monitor"] == m
                        and r["shift"] == shift
                        and r["gradual"] == gradual
                        and r["score"] == best
                        and r["shift"] != "none"
                        for r in rows
                    )
                    else cells.get(m, "-")
                    for m in monitors
                ),
            )
        to.print(table)


def _delay_cell(row: dict[str, Any]) -> str:
    if row["shift"] == "none":
        return f"{row['false_alarms']:.1%}"
    if row["found"] == 0:
        return "-"
    share = "" if row["found"] == 1 else f" ({row['found']:.0%})"
    return f"{row['median_rows']:,.0f}{share}"


def goals(found: dict[str, Any]) -> list[dict[str, Any]]:
    """What the monitors promise, and whether the figures hold it."""
    made = []
    if rates := found.get("false_alarms"):
        broken = sorted({r["monitor"] for r in rates if not r["holds"]})
        families = [name for name in broken if not name.startswith(ALONE)]
        made.append(
            {
                "goal": "false alarms of every monitor stay at the stated level at every size",
                "figures": f"above it: {', '.join(families) or 'none'}",
                "met": not families,
            }
        )
        alone = [name for name in broken if name.startswith(ALONE)]
        made.append(
            {
                "goal": "so do those of each column judged alone",
                "figures": f"above it: {', '.join(alone) or 'none'}",
                "met": not alone,
            }
        )
    if rows := found.get("delays"):
        ours = [r for r in rows if r["monitor"] == "driftlog" and r["shift"] != "none"]
        best = 0
        for mine in ours:
            same = [
                r["score"]
                for r in rows
                if (r["shift"], r["gradual"]) == (mine["shift"], mine["gradual"])
            ]
            best += mine["score"] <= min(same)
        calm = next(r for r in rows if r["monitor"] == "driftlog" and r["shift"] == "none")
        made.append(
            {
                "goal": "calm windows with an alarm of driftlog's stay at 2 % (drift and loss, 1 % each)",
                "figures": f"{calm['false_alarms']:.1%}; first or level on {best} of {len(ours)} shifts",
                "met": calm["false_alarms"] <= 0.02,
            }
        )
    return made


def show_goals(made: Sequence[dict[str, Any]], to: Console) -> None:
    for goal in made:
        mark = "[green]met   [/]" if goal["met"] else "[red]missed[/]"
        to.print(f"{mark} {goal['goal']}: {goal['figures']}", highlight=False, soft_wrap=True)
    missed = sum(not goal["met"] for goal in made)
    to.print("every goal was met" if not missed else f"{missed} of {len(made)} goals missed")
