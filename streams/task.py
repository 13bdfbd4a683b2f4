"""The Task: everything that a user says about one prediction problem, in one Python file.

Nothing in driftlog names a particular task; topics, schemas, folds and services are derived from this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import Topic, task_topics
from streams.expectations import Expect, QualityPolicy
from streams.personal import Personal, problem_of

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


SCORE = "score"
"""Name of the prediction among the columns whose drift is watched."""
LABEL = "label"
"""Name of the truth among them."""
RESERVED = frozenset({SCORE, LABEL, "event_id", "event_time"})
TEXT = "text"
"""Kind of a feature of free text."""
MULTIVARIATE = "multivariate"
"""Name of the group of all numeric features."""


class TaskError(ValueError):
    """A Task that cannot work; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number that the caller gives with each request."""

    name: str
    doc: str = ""
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class Category:
    """A category (text) that the caller gives with each request."""

    name: str
    doc: str = ""
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class Text:
    """Free text of at most `max_length` characters that the caller gives: a message, a review.

    It is no category: nothing is looked up by it, and its drift is watched by three numbers of each text
    (see `streams.texts`): columns '<name>.length', '<name>.unknown' and '<name>.surprise'.
    """

    name: str
    doc: str = ""
    max_length: int = 4_096
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class Rate:
    """Share of positive labels over the last `hours` before the request, per value of `by`.

    Folded from the log out of predictions and their labels. Rates of rare keys are shrunk towards the
    rate over all keys with `strength` pseudo-observations. `by=()` is the rate over all.
    """

    name: str
    by: tuple[str, ...]
    hours: int = 24
    strength: float = 20.0
    doc: str = ""
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class Observed:
    """The newest observed `value` about the entity that feature `by` names (weather of an airport).

    Only observations at or before the request's event time and not older than `max_age_hours` count.
    """

    name: str
    by: str
    value: str
    max_age_hours: int = 3
    doc: str = ""
    expect: Expect | None = None


Feature = Numeric | Category | Text | Rate | Observed


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: a recipe of `models.recipes` by name, its parameters, how many days it learns from.

    More than `max_rows` rows (None: no limit) are sampled: 'reservoir' gives each row the same chance,
    'stratified' keeps the proportion of each label in each drift window, 'weighted' halves the chance of
    a row with every `half_life_days` of its age (see `models.sampling`).
    `search` (parameter -> (low, high), (low, high, "log") or a list of choices): `trials` times other
    parameters are tried on folds in the order of time, and the best train (see `models.search`).
    `costs` (of a false 1, of a false 0): the version brings the decision threshold that is cheapest on
    its held-out rows, instead of the task's.
    """

    name: str = "gradient_boosting"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    training_days: int = 60
    seed: int = 7
    max_rows: int | None = None
    sampling: str = "stratified"
    half_life_days: float = 30.0
    search: Mapping[str, Any] = field(default_factory=dict)
    trials: int = 20
    costs: tuple[float, float] | None = None


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


@dataclass(frozen=True, slots=True)
class Ask:
    """The source wants a prediction at `time` (ms): `instance` holds the given features."""

    time: int
    id: str
    instance: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Truth:
    """The source knows the label of a prediction since `time`."""

    time: int
    prediction_id: str
    label: int


@dataclass(frozen=True, slots=True)
class Observation:
    """The source observed `values` about an entity at `time`."""

    time: int
    entity: str
    key: str
    values: Mapping[str, float | None]


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


LABEL_TRIGGERS = ("drift", "estimate")
LABEL_STRATEGIES = ("uncertainty", "stratified", "random")
GATE_RULES = ("ratio", "not_worse", "gain")
FAIRNESS_METRICS = ("demographic_parity", "equalized_odds")

Moment = Ask | Truth | Observation
Source = Callable[[], Iterator[Moment]]
"""Yields moments in event-time order, with the same ids on every call: a restart repeats itself."""


@dataclass(frozen=True)
class Task:
    """One binary prediction problem.

    `label_delay_hours`: how long after the request a label may come and still count.
    `decision_threshold`: scores at or above it decide 1. `prior_score`: what the cold-start model answers.
    """

    name: str
    features: tuple[Feature, ...]
    label: str
    label_delay_hours: int = 24
    decision_threshold: float = 0.5
    prior_score: float = 0.5
    recipe: Recipe = field(default_factory=Recipe)
    drift: DriftPolicy = field(default_factory=DriftPolicy)
    retrain: RetrainPolicy = field(default_factory=RetrainPolicy)
    gate: GatePolicy = field(default_factory=GatePolicy)
    quality: QualityPolicy = field(default_factory=QualityPolicy)
    rollout: RolloutPolicy = field(default_factory=RolloutPolicy)
    source: Source | None = None
    doc: str = ""
    labelling: LabelPolicy | None = None
    """None: labels come by themselves, or not."""
    personal: Personal | None = None
    """What requests say about a person beside the features: logged encrypted, never a model's input."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", tuple(self.features))
        if not _NAME.fullmatch(self.name) or self.name == "driftlog":
            raise TaskError(
                f"task name {self.name!r}: use lower-case letters, digits and _ (at most 41),"
                " starting with a letter; 'driftlog' is taken"
            )
        if not self.features:
            raise TaskError(f"task {self.name}: it has no features")
        names = [feature.name for feature in self.features]
        for name in names:
            if not _NAME.fullmatch(name):
                raise TaskError(f"task {self.name}: feature name {name!r}: use a-z, 0-9 and _")
            if names.count(name) > 1:
                raise TaskError(f"task {self.name}: feature {name!r} is declared twice")
            if name in RESERVED:
                raise TaskError(f"task {self.name}: feature name {name!r} is reserved")
        for feature in self.features:
            by: object = feature.by if isinstance(feature, Rate) else ()
            if isinstance(by, str):  # a forgotten comma: it would be read letter by letter
                raise TaskError(
                    f"task {self.name}: {feature.name}: by={by!r} is text, not a tuple: write ({by!r},)"
                )
            for key in _keys(feature):
                if key not in self.given or key in self.texts:
                    raise TaskError(
                        f"task {self.name}: {feature.name} is looked up by {key!r},"
                        " which is no Numeric or Category feature of the task"
                    )
        if isinstance(self.drift, DriftPolicy):  # else `task check` says so
            _check_groups(self.name, self.drift, self.vector)
        if isinstance(self.gate, GatePolicy):
            _check_gate(self.name, self.gate, self.kinds)
        _check_personal(self)

    @property
    def given(self) -> tuple[str, ...]:
        """Features that the caller sends."""
        return tuple(f.name for f in self.features if isinstance(f, Numeric | Category | Text))

    @property
    def private(self) -> tuple[str, ...]:
        """What the caller sends beside the features: texts that are logged encrypted."""
        return () if self.personal is None else self.personal.sealed

    @property
    def vector(self) -> dict[str, str]:
        """The served vector: feature name -> 'double' or 'string', in order."""
        return {n: "string" if kind == TEXT else kind for n, kind in self.kinds.items()}

    @property
    def kinds(self) -> dict[str, str]:
        """As `vector`, with free texts told from categories: 'double', 'string' or 'text'."""
        told = {Category: "string", Text: TEXT}
        return {f.name: told.get(type(f), "double") for f in self.features}

    @property
    def texts(self) -> tuple[str, ...]:
        """Features that are free text."""
        return tuple(f.name for f in self.features if isinstance(f, Text))

    @property
    def expected(self) -> dict[str, Expect]:
        """Feature name -> what its values must satisfy, of the features that say so."""
        return {f.name: f.expect for f in self.features if f.expect is not None}

    @property
    def observed_values(self) -> tuple[str, ...]:
        return tuple(sorted({f.value for f in self.features if isinstance(f, Observed)}))

    @property
    def window_ms(self) -> int:
        return round(self.drift.window_hours * HOUR_MS)

    @property
    def grace_ms(self) -> int:
        return round(self.drift.grace_minutes * 60_000)

    @property
    def label_delay_ms(self) -> int:
        return self.label_delay_hours * HOUR_MS

    def topics(self, partitions: int = 4) -> tuple[Topic, ...]:
        """`<task>.predictions`, `.labels`, `.features`, `.shadows`; schemas derived from the features."""
        observed, private = self.observed_values, self.private
        return task_topics(self.name, self.vector, observed, partitions, private)


def _check_groups(task: str, policy: DriftPolicy, vector: Mapping[str, str]) -> None:
    """Raises TaskError for groups or embeddings that cannot be watched together."""
    taken = {MULTIVARIATE} if policy.multivariate else set()
    for kind, groups in (("groups", policy.groups), ("embeddings", policy.embeddings)):
        if not isinstance(groups, Mapping):
            raise TaskError(
                f"task {task}: drift.{kind}: {groups!r} is no mapping: write {{'name': ('a', 'b')}}"
            )
        for name, members in groups.items():
            where = f"task {task}: drift.{kind}: {name!r}"
            if not isinstance(name, str) or not _NAME.fullmatch(name):
                raise TaskError(f"{where}: a name of a group: use a-z, 0-9 and _")
            if name in taken:
                raise TaskError(f"{where} names two groups: each needs a name of its own")
            taken.add(name)
            letters: object = members
            if isinstance(letters, str):  # it would be read letter by letter
                raise TaskError(f"{where}: {members!r} is text, not a tuple of features")
            for member in members:
                if vector.get(member) != "double":
                    raise TaskError(f"{where}: {member!r} is no numeric feature of the task")
            if len(set(members)) != len(members) or len(members) < 2:
                raise TaskError(f"{where}: needs two or more features, each once")
    coordinates = {member for members in policy.embeddings.values() for member in members}
    numeric = {name for name, kind in vector.items() if kind == "double"} - coordinates
    if policy.multivariate and len(numeric) < 2:
        raise TaskError(
            f"task {task}: drift.multivariate: needs two or more numeric features that are not of an"
            " embedding; leave it out"
        )


def _check_personal(task: Task) -> None:
    """Raises TaskError for personal fields that cannot be kept apart from the features."""
    wrong = None if task.personal is None else problem_of(task.personal, task.kinds, RESERVED)
    if wrong:
        raise TaskError(f"task {task.name}: personal: {wrong}")


def _check_gate(task: str, policy: GatePolicy, kinds: Mapping[str, str]) -> None:
    """Raises TaskError for slices or groups that are no category of the task."""
    slices: object = policy.slices
    if not isinstance(slices, tuple):  # a forgotten comma: it would be read letter by letter
        raise TaskError(f"task {task}: gate.slices: {slices!r} is no tuple: write ('name',)")
    named = [("slices", name) for name in policy.slices]
    if isinstance(policy.fairness, Fairness):  # else `task check` says so
        named.append(("fairness", policy.fairness.group))
    for field_name, name in named:
        if kinds.get(name) != "string":
            raise TaskError(f"task {task}: gate.{field_name}: {name!r} is no Category of the task")


def _keys(feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Rate):
        return feature.by
    return (feature.by,) if isinstance(feature, Observed) else ()
