"""What a Task says about when and how the system acts: drift, retrain, gates, rollout, labelling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HOUR_MS = 3_600_000


@dataclass(frozen=True, slots=True)
class DriftPolicy:
    """When a column's window counts as drifted.

    `alpha` is the chance of a false alarm per window over all columns together; `min_psi` the least
    PSI that matters, however many rows prove it; windows of fewer than `min_rows` are not judged.

    `groups` (name -> numeric features) are watched together, too: column '<name>.error', how far rows lie
    from the reference's principal components, shows a correlation that changes while every feature keeps
    its distribution. `multivariate` makes one such group, 'multivariate', of all numeric features.
    `embeddings` (name -> its coordinates, numeric features) are watched by '<name>.distance' (cosine, to
    the reference's centroid) and '<name>.error' alone: a single coordinate means nothing.
    """

    window_hours: float = 24
    grace_minutes: float = 60
    bins: int = 10
    alpha: float = 0.01
    min_psi: float = 0.1
    min_rows: int = 100
    groups: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    multivariate: bool = False
    embeddings: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RetrainPolicy:
    """When to ask for a new model: `votes` of the last `of_windows` judged windows must agree.

    A window votes for drift if at least `drifted_share` of the columns (or the score) drifted, for
    performance if the log-loss passed its threshold or Page-Hinkley raised an alarm. A loss that exceeds the
    expected by `sure_at` times what the threshold allows is no chance: that window suffices alone (None: none
    does). A model that comes soon after the loss has risen has learned mostly from before: the rows since are
    tried alone, too (`since_change`), and up to `follow_ups` more models are asked for, each once there are
    half as many labels more since the rise began. If the loss votes and a request brought no
    better model, another is made after `retry_labels` more labels, cooldown or not; drift that a new model
    did not help against is no reason any more. Without any vote, `growth` times as many new labels as were
    known at the last request are a reason, too (None: never): a young model has more to gain from data
    than from the newest data. So is a share of `refresh` of the training time that has passed since (None:
    never): a world that has become easier raises nobody's loss; the newest quarter and half are tried alone.
    """

    first_labels: int = 5_000
    new_labels: int = 2_000
    cooldown_hours: int = 24 * 7
    votes: int = 2
    of_windows: int = 3
    drifted_share: float = 0.3
    max_log_loss_ratio: float = 1.05
    growth: float | None = None
    follow_ups: int = 3
    retry_labels: int = 500
    sure_at: float | None = 2.0
    since_change: bool = True
    refresh: float | None = 0.5


FAIRNESS_METRICS = ("demographic_parity", "equalized_odds")


@dataclass(frozen=True, slots=True)
class Fairness:
    """How far apart the groups that feature `group` names may lie in what is decided about them.

    `metric`: 'demographic_parity' (share decided 1) or 'equalized_odds' (true and false positive rates).
    `max_gap`: the difference between the best and the worst group, or the champion's where that is larger
    already. Groups of fewer than `min_rows` held-out rows are left out.
    """

    group: str
    max_gap: float = 0.1
    metric: str = "equalized_odds"
    min_rows: int = 200


GATE_RULES = ("ratio", "not_worse", "gain")


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What a challenger must show on the same rows as the champion, none of which either learned from.

    `rule` for the newest `recent_days`, all about the log-loss: 'ratio', at most `max_recent_ratio` of the
    champion's; 'not_worse', at most `margin` (a share of the champion's) above it with `confidence`; 'gain',
    below it with `confidence`, or not worse and cheaper: at most `cheaper` of its bytes or latency.

    The golden set guards what was learned long ago. Where the rules themselves change, holding on to it
    would keep every good challenger out: `max_golden_ratio=None` says so. A newer one is cut when it is
    `golden_days` old (None: the first one stays).

    The rest is asked for unless it is None: `min_maturity`, share of the recent labels that must be known;
    `max_calibration_error`, beyond chance; `slices`, categories none of whose values may lose more than
    `max_slice_ratio` says, beyond chance; latency and size as ratios to the champion's; `fairness`.
    """

    recent_days: int = 7
    max_recent_ratio: float = 1.0
    max_golden_ratio: float | None = 1.05
    golden_share: float = 0.05
    min_rows: int = 200
    rule: str = "ratio"
    confidence: float = 0.95
    margin: float = 0.02
    cheaper: float = 0.9
    min_maturity: float | None = None
    max_calibration_error: float | None = None
    slices: tuple[str, ...] = ()
    max_slice_ratio: float = 1.1
    fairness: Fairness | None = None
    max_latency_ratio: float | None = None
    max_size_ratio: float | None = None
    golden_days: int | None = None


STRATEGIES = ("immediate", "shadow", "canary", "ab", "blue_green")


@dataclass(frozen=True, slots=True)
class RolloutPolicy:
    """How a challenger that passed its gates becomes the champion (docs/rollout.md).

    `steps`: shares of a canary; at 1.0 it is promoted. `share`: of the challenger in an A/B test. A step
    takes `step_hours` of event time and `min_labels` labels of each arm at least; a rollout without a
    verdict after `max_hours` is aborted. `alpha`: chance of a false abort (and of a false verdict) over a
    whole rollout, and of a false return over a whole watch, however often the evidence is looked at.
    `max_regression`: so much more log-loss (relative) is tolerated where no harm is proven.
    `sticky_by`: the given feature whose value decides who answers (default: the event id).
    `watch_hours` after any promotion a regression against the level of the version before in its last
    `baseline_hours` leads back; None: 24 unless the strategy is 'immediate'. `shadow_previous` lets the
    version before go on scoring meanwhile: the comparison is paired then.
    """

    strategy: str = "immediate"
    steps: tuple[float, ...] = (0.05, 0.25, 0.5, 1.0)
    share: float = 0.5
    min_labels: int = 100
    step_hours: float = 1.0
    max_hours: float = 24.0 * 14
    alpha: float = 0.01
    max_regression: float = 0.05
    max_null_share: float = 0.01
    max_score_psi: float | None = 2.0
    sticky_by: str | None = None
    manual_approval: bool = False
    watch_hours: float | None = None
    baseline_hours: float = 24.0 * 7
    shadow_previous: bool = False

    @property
    def immediate(self) -> bool:
        return self.strategy == "immediate"

    @property
    def watch_ms(self) -> int:
        """How long a promotion is watched, ms of event time; 0: not at all."""
        hours = self.watch_hours
        if hours is None:
            hours = 0 if self.immediate else 24
        return round(hours * HOUR_MS)

    @property
    def baseline_ms(self) -> int:
        return round(self.baseline_hours * HOUR_MS)

    @property
    def weighs_evidence(self) -> bool:
        """Whether anybody has to read predictions and labels for it."""
        return not self.immediate or self.watch_ms > 0


LABEL_TRIGGERS = ("drift", "estimate")
LABEL_STRATEGIES = ("uncertainty", "stratified", "random")


@dataclass(frozen=True, slots=True)
class LabelPolicy:
    """When labels are worth their price, and whose: at most `budget` predictions of a window are asked for.

    `triggers`: 'drift' (the window votes for drift, see `RetrainPolicy`), 'estimate' (its estimated log-loss
    passes the expected by `max_log_loss_ratio`). `strategy`: 'uncertainty' (drawn with the weight p (1 - p)),
    'stratified' (as many from each tenth of the score) or 'random'; all with `seed`.
    """

    budget: int = 100
    triggers: tuple[str, ...] = ("drift", "estimate")
    strategy: str = "stratified"
    max_log_loss_ratio: float = 1.05
    seed: int = 7
