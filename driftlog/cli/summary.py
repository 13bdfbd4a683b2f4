"""What the demo showed, told to a person."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich import box
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from driftlog.story import day

if TYPE_CHECKING:
    from rich.console import Console

    from driftlog.demo import Outcome
    from infra.settings import Settings


def show(console: Console, settings: Settings, outcome: Outcome, kept: bool) -> None:
    """Claims, the story of the models, what retraining gained, and what to try next."""
    console.print(_claims(outcome))
    console.rule("[bold]what happened", align="left")
    _drift(console, outcome)
    console.print(_models(outcome))
    _gain(console, outcome)
    console.print(
        Text("  ".join(f"{k} {v:.0f} s" for k, v in outcome.seconds.items()), style="dim")
    )
    console.print(_next(settings, outcome, kept))


def _claims(outcome: Outcome) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in outcome.checks:
        mark = "[green]ok[/]" if check.passed else "[bold red]FAILED[/]"
        plain = len(check.expected) != 64  # a fingerprint is shown by its beginning
        shown = check.expected if plain else f"equal, {check.expected[:12]}"
        if not check.passed:
            shown = f"expected {check.expected}, found {check.found}"
        elif check.expected in ("some", "at least one"):
            shown = check.found
        table.add_row(mark, Text(check.name), Text(f"{shown}  {check.detail}".rstrip()))
    return table


def _drift(console: Console, outcome: Outcome) -> None:
    story = outcome.story
    most = ", ".join(f"{name} ({count})" for name, count in list(story.drifted.items())[:5])
    console.print(
        f"{story.windows:,} windows scored on {story.scores:,} columns;"
        f" drifted most, in windows: {most or 'none'}"
    )


def _models(outcome: Outcome) -> Table:
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    for name in ("asked", "why", "rows", "version", "decision", "took"):
        table.add_column(name, justify="right" if name in ("rows", "took") else "left")
    for retrain in outcome.story.retrains.values():
        if not retrain.request:
            continue
        colour = {"promoted": "green", "rejected": "magenta"}.get(retrain.decision, "red")
        took = "" if retrain.seconds is None else f"{retrain.seconds:.1f} s"
        trigger = retrain.request["trigger"]
        reason = retrain.request["reason"].partition(";")[0]
        why = Text(f"{trigger}: {reason}")
        decision = Text(retrain.decision, style=colour)
        if retrain.decision != "promoted":
            decision.append(f": {retrain.reason}", style="default")
        table.add_row(
            "start" if trigger == "cold_start" else day(retrain.request["event_time"]),
            why,
            f"{retrain.rows:,}",
            retrain.version,
            decision,
            took,
        )
    return table


def _gain(console: Console, outcome: Outcome) -> None:
    if outcome.frozen is None:
        return
    table = Table(box=box.SIMPLE_HEAD, header_style="bold", pad_edge=False)
    table.add_column("answered by")
    for name in ("labelled", "log-loss", f"with {outcome.frozen_version} instead", "gain"):
        table.add_column(name, justify="right")
    for version, tally in outcome.frozen.by_version.items():
        if tally.labelled:
            logged, other = tally.logged_loss / tally.labelled, tally.other_loss / tally.labelled
            table.add_row(
                version,
                f"{tally.labelled:,}",
                f"{logged:.4f}",
                f"{other:.4f}",
                f"{(other - logged) / other:+.1%}",
            )
    console.print(table)


def _next(settings: Settings, outcome: Outcome, kept: bool) -> Panel:
    promoted = outcome.story.promoted
    version = promoted[-1] if promoted else "VERSION"
    lines = [] if kept else [".venv/bin/driftlog up --detach        # the same log, where it ended"]
    lines += [
        ".venv/bin/driftlog watch              # live: what reacts to what",
        ".venv/bin/driftlog feed --to 2013-04-01   # go on with the year",
        f".venv/bin/driftlog models show {version}",
        ".venv/bin/driftlog models at 2013-02-01",
        ".venv/bin/driftlog replay --to 2013-02-01   # any state, as of any moment",
        ".venv/bin/driftlog query 'SELECT model_version, count() FROM flights_predictions GROUP BY 1'",
        ".venv/bin/driftlog chaos kill broker-3 --for 10",
    ]
    where = (
        "The system is still up." if kept else f"Stopped; the data stay in {settings.home.name}/."
    )
    return Panel("\n".join(lines), title="try next", subtitle=where, box=box.ROUNDED)
