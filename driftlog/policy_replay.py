"""What another policy would have decided: the same reactors over the logged events, beside what was logged.

The models stay those of the log: a model that would have been trained earlier has answered nobody. So this
tells when a policy would have asked, alerted and let in, not what would have followed from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from driftlog.references import References
from models.gates import judge_again
from schemas.catalogue import (
    ALERTS,
    DEPLOYMENTS,
    DRIFT_SCORES,
    MODEL_VERSIONS,
    PERFORMANCE_ESTIMATES,
    PERFORMANCE_SCORES,
    QUALITY_REPORTS,
    RETRAIN_REQUESTS,
    SKETCHES,
)
from schemas.event import Event, Position, derived_id
from streams.cascade import Cascade
from streams.fold import Fold, Projector
from streams.folds import control_folds
from streams.outcomes import OutcomeWindows
from streams.task import Task
from streams.window_rows import InputWindows

DERIVED = (DRIFT_SCORES, PERFORMANCE_SCORES, QUALITY_REPORTS, PERFORMANCE_ESTIMATES)
LOGGED = (ALERTS, RETRAIN_REQUESTS, DEPLOYMENTS)
GATED = ("ModelPromoted", "PromotionRejected")
BOTH, ONLY_THEN, ONLY_NOW = "both", "only_then", "only_now"


@dataclass(frozen=True, slots=True)
class Decision:
    """Something decided. `at`: where it is logged, or the logged record that led to it in the replay."""

    id: str
    type: str
    subject: str
    time: int
    reason: str
    at: Position | None


@dataclass(frozen=True, slots=True)
class Compared:
    """A decision as logged (`then`) and as replayed (`now`); at least one of them is there."""

    then: Decision | None
    now: Decision | None

    @property
    def either(self) -> Decision:
        found = self.now or self.then
        assert found is not None
        return found

    @property
    def verdict(self) -> str:
        if self.then and self.now:
            return BOTH
        return ONLY_NOW if self.now else ONLY_THEN


@dataclass(slots=True)
class PolicyReplay:
    """What came out of it. `drifted_then` / `drifted_now`: drift scores beyond their thresholds."""

    decisions: list[Compared]
    events: int
    scores_then: int = 0
    scores_now: int = 0
    drifted_then: int = 0
    drifted_now: int = 0

    def summary(self) -> dict[str, float]:
        counts = dict.fromkeys((BOTH, ONLY_THEN, ONLY_NOW), 0)
        for compared in self.decisions:
            counts[compared.verdict] += 1
        return {
            **{name: float(count) for name, count in counts.items()},
            "drift_scores_then": float(self.scores_then),
            "drift_scores_now": float(self.scores_now),
            "drifted_then": float(self.drifted_then),
            "drifted_now": float(self.drifted_now),
        }


def reactors_of(task: Task, partitions: int, again: bool) -> tuple[list[Fold], tuple[str, ...]]:
    """The reactors that decide for `task`, and the topics that they themselves give.

    `again`: windows are summarised anew from predictions and labels, instead of read as sketches.
    """
    control = control_folds([task], partitions)
    if not again:
        return control, DERIVED
    windows = InputWindows(task), OutcomeWindows(task, partitions)
    return [*windows, *control], (SKETCHES, *DERIVED)


def topics_of(reactors: Sequence[Fold], instead: Sequence[str]) -> list[str]:
    """What a policy replay reads: what its reactors need, and the decisions of the log."""
    return sorted({*Cascade(reactors, instead).topics, *LOGGED, MODEL_VERSIONS, DRIFT_SCORES})


@dataclass
class _Sides:
    """Decisions by id, in the order in which they were met."""

    then: dict[str, Decision] = field(default_factory=dict)
    now: dict[str, Decision] = field(default_factory=dict)


def replay_policy(
    history: Iterable[Event],
    task: Task,
    reactors: Sequence[Fold],
    instead: Sequence[str],
    references: Mapping[str, list[dict[str, Any]]] | None = None,
    keep: Callable[[Event], bool] = lambda event: True,
) -> PolicyReplay:
    """Decide again over `history` (all of `topics_of`, as a replay reads it), under the policy of `task`.

    `references`: versions whose reference is another one now. Events that `keep` refuses count nowhere.
    """
    cascade = Cascade(reactors, instead)
    needed = frozenset(cascade.topics)
    seen = Projector([])
    untrained: set[str] = set()
    sides = _Sides()
    result = PolicyReplay([], 0)
    for logged in history:
        if not keep(logged) or not seen.fresh(logged):
            continue
        event = _with_reference(logged, references or {})
        if event.topic == MODEL_VERSIONS and event.data.get("snapshot") is None:
            untrained.add(event.data["model_version"])
        _note_logged(result, sides, event, task, untrained)
        if event.topic in needed:
            for answer in cascade.feed(event):
                _note_answer(result, sides, answer, event)
    result.events = seen.events
    ids = dict.fromkeys([*sides.then, *sides.now])
    compared = [Compared(sides.then.get(each), sides.now.get(each)) for each in ids]
    result.decisions = sorted(compared, key=lambda c: (c.either.time, c.either.type, c.either.id))
    return result


def _with_reference(event: Event, references: References | Mapping[str, Any]) -> Event:
    if event.topic != MODEL_VERSIONS or event.data["model_version"] not in references:
        return event
    reference = references[event.data["model_version"]]
    return replace(event, data={**event.data, "reference": reference})


def _note_logged(
    result: PolicyReplay, sides: _Sides, event: Event, task: Task, untrained: set[str]
) -> None:
    data = event.data
    if data.get("task") != task.name:
        return
    if event.topic == DRIFT_SCORES:
        result.scores_then += 1
        result.drifted_then += data["drifted"]
    elif event.topic == ALERTS or (event.topic == RETRAIN_REQUESTS and data["actor"] == "policy"):
        sides.then[event.id] = _decision(event, event.at)
    elif event.type in GATED and _has_losses(data):
        then, now = gated_again(event, task, data["previous_version"] in untrained)
        sides.then[then.id], sides.now[now.id] = then, now


def _note_answer(result: PolicyReplay, sides: _Sides, answer: Event, cause: Event) -> None:
    if answer.topic == DRIFT_SCORES:
        result.scores_now += 1
        result.drifted_now += answer.data["drifted"]
    elif answer.topic in (ALERTS, RETRAIN_REQUESTS):
        sides.now.setdefault(answer.id, _decision(answer, cause.at))


def _decision(event: Event, at: Position | None) -> Decision:
    data = event.data
    if event.type == "RetrainRequested":
        return Decision(event.id, event.type, data["trigger"], event.time, data["reason"], at)
    return Decision(event.id, event.type, data["subject"], event.time, data["message"], at)


def _has_losses(data: Mapping[str, Any]) -> bool:
    """Whether a gate's numbers stand in it; a first model and a person's word have none."""
    return any(gate["baseline"] is not None for gate in data["gates"])


def gated_again(event: Event, task: Task, first: bool) -> tuple[Decision, Decision]:
    """A promotion or its refusal as logged, and as the gate policy of `task` has it with the same losses.

    `first`: the champion had been trained on nothing.
    """
    data = event.data
    verdict = judge_again(
        task.gate,
        data,
        champion=data["previous_version"] or "the prior",
        first=first or data["previous_version"] is None,
    )
    then = Decision(
        event.id, event.type, data["model_version"], event.time, data["reason"], event.at
    )
    type_ = "ModelPromoted" if verdict.passed else "PromotionRejected"
    # The same verdict is the same decision; the other one is another.
    id_ = event.id if type_ == event.type else derived_id(type_, event.id)
    return then, replace(then, id=id_, type=type_, reason=verdict.reason)
