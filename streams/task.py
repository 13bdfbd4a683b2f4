"""The Task: everything that a user says about one prediction problem, in one Python file.

Nothing in driftlog names a particular task; topics, schemas, folds and services are derived from this.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from schemas.catalogue import Topic, task_topics

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
_NAME = re.compile(r"[a-z][a-z0-9_]{0,40}")


SCORE = "score"
"""Name of the prediction among the columns whose drift is watched."""
LABEL = "label"
"""Name of the truth among them."""
RESERVED = frozenset({SCORE, LABEL, "event_id", "event_time"})
MULTIVARIATE = "multivariate"
"""Name of the group of all numeric features."""


class TaskError(ValueError):
    """A Task that cannot work; the message says what to change."""


@dataclass(frozen=True, slots=True)
class Numeric:
    """A number that the caller gives with each request."""

    name: str
    doc: str = ""


@dataclass(frozen=True, slots=True)
class Category:
    """A category (text) that the caller gives with each request."""

    name: str
    doc: str = ""


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


Feature = Numeric | Category | Rate | Observed


@dataclass(frozen=True, slots=True)
class Recipe:
    """How to train: a recipe of `models.recipes` by name, its parameters, how many days it learns from."""

    name: str = "gradient_boosting"
    parameters: Mapping[str, Any] = field(default_factory=dict)
    training_days: int = 60
    seed: int = 7


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
    performance if the log-loss passed its threshold or Page-Hinkley raised an alarm. A model that comes soon
    after the loss has risen has learned mostly from before: up to `follow_ups` more are asked for, each once
    there are half as many labels more since the rise began. If the loss votes and a request brought no
    better model, another is made after `retry_labels` more labels, cooldown or not; drift that a new model
    did not help against is no reason any more. Without any vote, `growth` times as many new labels as were
    known at the last request are a reason, too (None: never): a young model has more to gain from data
    than from the newest data.
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


@dataclass(frozen=True, slots=True)
class GatePolicy:
    """What a challenger must show: ratios of its log-loss to the champion's on the same rows.

    The golden set guards what was learned long ago. Where the rules themselves change, holding on to it
    would keep every good challenger out: `max_golden_ratio=None` says so.
    """

    recent_days: int = 7
    max_recent_ratio: float = 1.0
    max_golden_ratio: float | None = 1.05
    golden_share: float = 0.05
    min_rows: int = 200


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
    source: Source | None = None
    doc: str = ""

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
                if key not in self.given:
                    raise TaskError(
                        f"task {self.name}: {feature.name} is looked up by {key!r},"
                        " which is no Numeric or Category feature of the task"
                    )
        if isinstance(self.drift, DriftPolicy):  # else `task check` says so
            _check_groups(self.name, self.drift, self.vector)

    @property
    def given(self) -> tuple[str, ...]:
        """Features that the caller sends."""
        return tuple(f.name for f in self.features if isinstance(f, Numeric | Category))

    @property
    def vector(self) -> dict[str, str]:
        """The served vector: feature name -> 'double' or 'string', in order."""
        return {f.name: "string" if isinstance(f, Category) else "double" for f in self.features}

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
        """`<task>.predictions`, `.labels`, `.features`, with schemas derived from the features."""
        return task_topics(self.name, self.vector, self.observed_values, partitions)


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


def _keys(feature: Feature) -> tuple[str, ...]:
    if isinstance(feature, Rate):
        return feature.by
    return (feature.by,) if isinstance(feature, Observed) else ()
