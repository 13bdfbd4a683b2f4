"""What a Task expects of its data: per feature (`Expect`), per window and training set (`QualityPolicy`)."""

from __future__ import annotations

from dataclasses import dataclass

ALERT, QUARANTINE, STOP = "alert", "quarantine", "stop"
"""What a failed check leads to: an alert alone; the window stays out of training; the training ends."""

WINDOW_CHECKS = (
    "schema", "volume", "rows", "freshness", "range", "missing", "unseen", "categories", "distribution",
)  # fmt: skip
"""Names of the checks of a window."""
SNAPSHOT_CHECKS = (
    "balance", "duplicates", "constant", "single_feature", "importance_spike", "shuffled_labels",
    "time_reversed",
)  # fmt: skip
"""Names of the checks of a training set."""


@dataclass(frozen=True, slots=True)
class Expect:
    """What the values of one feature must satisfy in every window; None: not asked.

    `minimum`, `maximum`: bounds of a number, both allowed. `max_missing`, `max_unseen`: largest share (0..1)
    of missing values, and of categories that the model's training data did not have; more than the limit
    by what chance explains in so many rows is a failure. `max_categories`: different categories in a window.
    `severity`: 'quarantine' keeps a window that fails out of training, 'alert' only says so.
    """

    minimum: float | None = None
    maximum: float | None = None
    max_missing: float | None = None
    max_unseen: float | None = None
    max_categories: int | None = None
    severity: str = QUARANTINE

    @property
    def bounded(self) -> bool:
        """Whether it asks for the least and the greatest value of a window."""
        return self.minimum is not None or self.maximum is not None


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """What a window, and a training set, must be like; None: not asked.

    Of a window (rows of all model versions together): `max_volume_ratio` times more or fewer rows than in the
    usual one; at least `min_rows` rows; at most `max_gap_hours` without any row before it; no column with a
    PSI above `max_psi`. `quarantine` names the checks (of WINDOW_CHECKS) whose failure keeps the window out
    of training; the others only alert. (What a feature's `Expect` asks has the severity that stands there.)

    Of a training set, before anything is trained: the rarer label has at least `min_class_share` of the rows;
    at most `max_duplicates` of the rows repeat another's features and label; with `leakage`, no feature alone
    separates the labels with an AUC above `max_feature_auc`, and see `models.leakage` for the other tests.
    `stop` names the checks (of SNAPSHOT_CHECKS) whose failure ends the training.
    """

    max_volume_ratio: float = 2.0
    min_rows: int | None = None
    max_gap_hours: float | None = None
    max_psi: float | None = None
    quarantine: tuple[str, ...] = ()
    min_class_share: float = 0.005
    max_duplicates: float = 0.5
    leakage: bool = True
    max_feature_auc: float = 0.95
    stop: tuple[str, ...] = ("single_feature", "importance_spike", "shuffled_labels")

    def severity(self, check: str) -> str:
        """Of a failed check of a window or of a training set."""
        if check in self.stop:
            return STOP
        return QUARANTINE if check in self.quarantine else ALERT
