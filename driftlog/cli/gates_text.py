"""How past promotions look under another gate policy: a table, and the same as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from driftlog.words import moment

if TYPE_CHECKING:
    from models.rejudge import Rejudged

WORDS = {True: "promoted", False: "refused"}
PIPED_WIDTH = 200


def row(judged: Rejudged) -> dict[str, Any]:
    """One decision for `--json`."""
    decision, verdict = judged.decision, judged.verdict
    return {
        "model_version": decision.version,
        "previous_version": decision.previous,
        "event_id": decision.event_id,
        "event_time": decision.time,
        "then": WORDS[judged.promoted_then],
        "now": WORDS[verdict.passed],
        "changed": judged.changed,
        "reason_then": decision.reason,
        "reason": verdict.reason,
        "gates": [dict(gate) for gate in verdict.gates],
    }


def print_table(judged: Sequence[Rejudged], differs: dict[str, str]) -> None:
    """What was decided, what would be, and why; those that differ in yellow."""
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console = Console(width=PIPED_WIDTH)
    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in ("version", "decided", "then", "now", "why"):
        table.add_column(name, overflow="fold")
    for each in judged:
        decision, verdict = each.decision, each.verdict
        table.add_row(
            decision.version,
            moment(decision.time),
            WORDS[each.promoted_then],
            WORDS[verdict.passed],
            verdict.reason.partition(": ")[2],
            style="yellow" if each.changed else None,
        )
    console.print(table)
    policy = ", ".join(f"{name} = {value}" for name, value in differs.items())
    changed = sum(each.changed for each in judged)
    under = f"under {policy}" if policy else "under the policy of the task"
    console.print(f"{changed} of {len(judged)} decisions would be others {under}", highlight=False)
