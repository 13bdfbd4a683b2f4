"""Gates: what a challenger must show on the same rows as the champion before it may answer (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from streams.task import GatePolicy

CLIP = 1e-6
"""Scores are held this far from 0 and 1, so that one sure and wrong answer costs 13.8 and not infinity."""
DECIMALS = 9


@dataclass(frozen=True, slots=True)
class Losses:
    """Mean log-loss of both models on `count` rows."""

    challenger: float
    champion: float
    count: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """`gates`: GateResult records; `reason` in words, with the numbers."""

    passed: bool
    gates: tuple[dict[str, Any], ...]
    reason: str


def judge(
    policy: GatePolicy,
    golden: Losses | None,
    recent: Losses,
    *,
    challenger: str,
    champion: str,
    first: bool = False,
) -> Verdict:
    """Whether `challenger` may take the place of `champion`.

    `golden` is None while the task has no golden set, and is not asked where the policy has no ratio for
    it. `first`: the champion is the cold-start constant, which must be beaten whatever ratio the policy
    allows. Fewer than `min_rows` rows prove nothing.
    """
    most = min(policy.max_recent_ratio, 1.0) if first else policy.max_recent_ratio
    gates = [_gate("recent_log_loss", recent, most, policy.min_rows)]
    if golden is not None and policy.max_golden_ratio is not None:
        most = min(policy.max_golden_ratio, 1.0) if first else policy.max_golden_ratio
        gates.append(_gate("golden_log_loss", golden, most, policy.min_rows))
    failed = [gate for gate in gates if not gate["passed"]]
    said = "; ".join(_words(gate, policy.min_rows) for gate in failed or gates)
    verb = "stays behind" if failed else "passed its gates against"
    return Verdict(not failed, tuple(gates), f"{challenger} {verb} {champion}: {said}")


def log_loss(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean of -ln P(label), scores held `CLIP` away from 0 and 1; 0.0 without rows."""
    y, p = _pair(labels, scores)
    if not len(y):
        return 0.0
    return round(float(-np.where(y, np.log(p), np.log1p(-p)).mean()), DECIMALS)


def brier(labels: ArrayLike, scores: ArrayLike) -> float:
    """Mean squared error of the score (Brier 1950); 0.0 without rows."""
    y, p = _pair(labels, scores)
    return round(float(((p - y) ** 2).mean()), DECIMALS) if len(y) else 0.0


def auc(labels: ArrayLike, scores: ArrayLike) -> float:
    """Area under the ROC curve by ranks, ties count half (Mann & Whitney 1947); 0.5 without both classes."""
    y, p = _pair(labels, scores)
    positives = int(y.sum())
    pairs = positives * (len(y) - positives)
    if not pairs:
        return 0.5
    _, index, counts = np.unique(p, return_inverse=True, return_counts=True)
    ranks = np.cumsum(counts) - (counts - 1) / 2
    wins = float(ranks[index][y].sum()) - positives * (positives + 1) / 2
    return round(wins / pairs, DECIMALS)


def _pair(labels: ArrayLike, scores: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.float64]]:
    y = np.asarray(labels).astype(np.bool_)
    return y, np.clip(np.asarray(scores, dtype=np.float64), CLIP, 1 - CLIP)


def _gate(name: str, losses: Losses, most: float, min_rows: int) -> dict[str, Any]:
    threshold = round(losses.champion * most, DECIMALS)
    enough = losses.count >= min_rows
    return {
        "name": name,
        "value": losses.challenger,
        "baseline": losses.champion,
        "threshold": threshold,
        "count": losses.count,
        "passed": bool(enough and losses.challenger <= threshold),
    }


def _words(gate: dict[str, Any], min_rows: int) -> str:
    name = gate["name"].replace("_", " ").replace("log loss", "log-loss")
    if gate["count"] < min_rows:
        return f"{name} is known for {gate['count']} rows only, {min_rows} are asked for"
    relation = "<=" if gate["passed"] else ">"
    return (
        f"{name} {gate['value']:.4f} {relation} {gate['threshold']:.4f}"
        f" (champion {gate['baseline']:.4f}, {gate['count']} rows)"
    )


def metrics(labels: Sequence[int] | NDArray[Any], scores: NDArray[np.float64]) -> dict[str, float]:
    """log_loss, brier, auc and the number of rows behind them."""
    return {
        "log_loss": log_loss(labels, scores),
        "brier": brier(labels, scores),
        "auc": auc(labels, scores),
        "rows": float(len(scores)),
    }
