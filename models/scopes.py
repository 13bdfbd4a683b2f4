"""Which rows a challenger learns from: all of the training time, or those since the world changed (pure).

A training set that spans a change teaches two worlds at once, and a calendar's models are such a mixture for
as long as the training time is. Few rows of the new world are often worth more, and soon; but not always: the
change may be small, passed, or none. So nobody assumes it: both are fitted without the newest rows, and
these decide (a hold-out choice between windows, as in Klinkenberg & Joachims, Detecting Concept Drift with
Support Vector Machines, ICML 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

from models import gates
from models.dataset import Dataset
from models.evidence import Judged

SINCE_CHANGE = "since_change_log_loss"
ALL_ROWS = "all_rows_log_loss"
CHANGED_AT = "changed_at"


@dataclass(frozen=True, slots=True)
class Compared:
    """Mean log-loss, on the same held-out rows, of the honest fits on all rows and on those since a change."""

    all_rows: float
    since_change: float
    rows: int
    """Training rows since the change."""
    changed_at: int

    @property
    def newer(self) -> bool:
        return self.since_change < self.all_rows

    @property
    def measured(self) -> dict[str, float]:
        """What ModelRegistered keeps of it; `changed_at` (ms) only if the rows since then were chosen."""
        found = {ALL_ROWS: self.all_rows, SINCE_CHANGE: self.since_change}
        return found | ({CHANGED_AT: float(self.changed_at)} if self.newer else {})

    @property
    def words(self) -> str:
        """E.g. 'learned from the 1,012 rows since the change: log-loss 0.4101 (0.6512 with all rows)'."""
        if self.newer:
            return (
                f"learned from the {self.rows:,} rows since the change: log-loss"
                f" {self.since_change:.4f} ({self.all_rows:.4f} with all rows)"
            )
        return (
            f"learned from all rows: log-loss {self.all_rows:.4f} ({self.since_change:.4f} with the"
            f" {self.rows:,} since the change)"
        )


def since_change(training: Dataset, changed_at: int | None, least: int) -> Dataset | None:
    """The rows since the change; None if there is none, if they are all rows, or fewer than `least`."""
    if changed_at is None:
        return None
    newer = training.times >= changed_at
    found = int(newer.sum())
    return training.where(newer) if least <= found < len(training) else None


def compared(all_rows: Judged, since: Judged, rows: int, changed_at: int) -> Compared:
    """Both fits on the same rows; `rows`: that there are since the change."""
    labels = all_rows.rows.labels
    return Compared(
        gates.log_loss(labels, all_rows.challenger),
        gates.log_loss(labels, since.challenger),
        rows,
        changed_at,
    )
