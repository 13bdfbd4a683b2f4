"""The gate of a compressed model: it may cost a little quality and may hardly answer otherwise (pure)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class CompressionPolicy:
    """`max_loss_ratio`: of its log-loss to the original's on the same rows that neither learned from.

    `max_difference`: mean distance of its scores from the original's. `min_rows` prove anything.
    """

    max_loss_ratio: float = 1.02
    max_difference: float = 0.02
    min_rows: int = 50


def gates(
    policy: CompressionPolicy, loss: float, original: float, difference: float, rows: int
) -> list[dict[str, Any]]:
    """GateResult records of a variant's log-loss and of its scores' mean distance from the original's."""
    enough = rows >= policy.min_rows
    most = round(original * policy.max_loss_ratio, 9)
    return [
        _gate("compressed_log_loss", loss, original, most, rows, enough),
        _gate("score_difference", difference, None, policy.max_difference, rows, enough),
    ]


def verdict(policy: CompressionPolicy, found: list[dict[str, Any]]) -> str:
    """Why the variant is refused, in words; empty if it passes."""
    if found and found[0]["count"] < policy.min_rows:
        return f"{found[0]['count']} rows to judge by, {policy.min_rows} are asked for"
    failed = [gate for gate in found if not gate["passed"]]
    return "; ".join(
        f"{gate['name'].replace('_', ' ')} {gate['value']:.4f} > {gate['threshold']:.4f}"
        for gate in failed
    )


def _gate(
    name: str, value: float, baseline: float | None, threshold: float, rows: int, enough: bool
) -> dict[str, Any]:
    return {
        "name": name,
        "value": value,
        "baseline": baseline,
        "threshold": threshold,
        "count": rows,
        "passed": bool(enough and value <= threshold),
    }
