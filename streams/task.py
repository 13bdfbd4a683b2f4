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
from streams.task_policies import (
    FAIRNESS_METRICS,
    GATE_RULES,
    HOUR_MS,
    LABEL_STRATEGIES,
    LABEL_TRIGGERS,
    STRATEGIES,
    DriftPolicy,
    Fairness,
    GatePolicy,
    LabelPolicy,
    RetrainPolicy,
    RolloutPolicy,
)

__all__ = [
    "DAY_MS",
    "FAIRNESS_METRICS",
    "GATE_RULES",
    "HOUR_MS",
    "LABEL",
    "LABEL_STRATEGIES",
    "LABEL_TRIGGERS",
    "MULTIVARIATE",
    "RESERVED",
    "SCORE",
    "STRATEGIES",
    "TEXT",
    "Ask",
    "Category",
    "DriftPolicy",
    "Fairness",
    "Feature",
    "GatePolicy",
    "LabelPolicy",
    "Moment",
    "Numeric",
    "Observation",
    "Observed",
    "Rate",
    "Recipe",
    "RetrainPolicy",
    "RolloutPolicy",
    "Source",
    "Task",
    "TaskError",
    "Text",
    "Truth",
]

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
