"""The rollout reactor: predictions, labels and what was decided so far -> what is decided next.

Every decision of a rollout is an event whose id depends on the rollout and the step alone, never on what
it says: whoever decides again after a crash, on evidence that came in another order, says something that
the log holds already, and the first saying counts. The state follows the log's decisions only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from schemas.catalogue import DEPLOYMENTS, ROLLOUT_COMMANDS, ROLLOUTS
from schemas.event import Event
from streams.canonical import transient
from streams.deployed import POLICY
from streams.rollout_evidence import Evidence, EvidenceState, level
from streams.rollout_rules import (
    ABORT,
    ADVANCE,
    FINISH,
    Move,
    Seen,
    first_move,
    harm,
    progress,
    regression,
    seen_of,
)
from streams.rollout_state import (
    WAITS,
    Reign,
    Rollout,
    TaskRollouts,
    apply_to,
    decision_id,
    return_id,
    watched,
)
from streams.sequential import Sums
from streams.task import Task

CONTROL_TOPICS = frozenset((ROLLOUTS, ROLLOUT_COMMANDS, DEPLOYMENTS))


@dataclass
class RolloutState:
    evidence: EvidenceState
    rollouts: TaskRollouts = field(default_factory=TaskRollouts)
    news: bool = transient(default=False)
    """Whether the last event can decide anything."""
    said: set[str] = transient(default_factory=set)
    """Decisions on their way: not said again while they have not come back."""
    baseline: tuple[str, int, Sums] | None = transient(default=None)
    """(promotion, revision, losses of the version before it): summed up once."""


class RolloutReactor:
    """Reactor: answers and labels -> RolloutAdvanced, RolloutAborted, RolloutFinished; ModelPromoted after
    the latter; ModelRolledBack where a watched promotion turns out worse.

    While the task is frozen it says nothing. Driven by the batch runner, for tasks whose `rollout` needs
    evidence.
    """

    def __init__(self, task: Task, partitions: int) -> None:
        self.task = task
        self.name = f"{task.name}.rollout"
        self._evidence = Evidence(task, partitions)
        self.topics = (*self._evidence.topics, *sorted(CONTROL_TOPICS))

    def initial(self) -> RolloutState:
        return RolloutState(self._evidence.initial())

    def apply(self, state: RolloutState, batch: Sequence[Event]) -> RolloutState:
        state.news = False
        for event in batch:
            if event.topic not in CONTROL_TOPICS:
                state.news |= self._evidence.add(state.evidence, event)
            elif event.data["task"] == self.task.name:
                apply_to(state.rollouts, event)
                state.said.discard(event.id)
                state.news = True
        return state

    def settle(self, state: RolloutState) -> RolloutState:
        self._evidence.settle(state.evidence)
        return state

    def react(self, state: RolloutState, event: Event) -> list[Event]:
        if not state.news or state.rollouts.frozen is not None:
            return []
        due = [self._promotion(state), self._step(state, event), self._watch(state, event)]
        found = [one for one in due if one is not None and one.id not in state.said]
        state.said.update(one.id for one in found)
        return found

    def _promotion(self, state: RolloutState) -> Event | None:
        """A finished rollout whose ModelPromoted is not in the log yet."""
        done = state.rollouts.unsettled()
        if done is None:
            return None
        data = {
            "event_id": done.promotion_id,
            "event_time": max(done.since, self._floor(state)),
            "caused_by": done.last_id,
            "task": self.task.name,
            "model_version": done.version,
            "previous_version": done.baseline,
            "reason": f"rolled out ({done.strategy}): {done.reason}",
            "actor": POLICY,
            "request_id": done.request_id,
            "gates": done.gates,
        }
        return Event(DEPLOYMENTS, "ModelPromoted", data)

    def _step(self, state: RolloutState, cause: Event) -> Event | None:
        now = state.rollouts.active
        if now is None or decision_id(now) in state.said:
            return None
        actor, move = self._next(state, now)
        if move is None:
            return None
        data = {
            "event_id": decision_id(now),
            "event_time": max(cause.time, now.since),
            "caused_by": cause.id,
            "task": self.task.name,
            "rollout_id": now.id,
            "model_version": now.version,
            "step": now.step + 1,
            "share": move.share,
            "reason": move.reason,
            "actor": actor,
            "evidence": move.numbers,
        }
        return Event(ROLLOUTS, move.type, data)

    def _next(self, state: RolloutState, now: Rollout) -> tuple[str, Move | None]:
        """Who decides what: people first, then harm, then what goes on."""
        rollouts = state.rollouts
        for command in ("abort", "reject"):
            order = rollouts.order(now, command)
            if order is not None:
                return order.actor, Move(ABORT, 0.0, f"{command}: {order.reason}")
        if rollouts.champion == now.baseline:
            return self._judged(state, now)
        if rollouts.replaced_since(now):
            return POLICY, Move(ABORT, 0.0, f"{rollouts.champion} became champion meanwhile")
        return POLICY, None  # deployments are read less far than rollouts

    def _judged(self, state: RolloutState, now: Rollout) -> tuple[str, Move | None]:
        seen = seen_of(now, state.evidence)
        worse = harm(now, seen) if now.step else None
        if worse is not None or state.rollouts.order(now, "hold") is not None:
            return POLICY, worse
        approval = state.rollouts.order(now, "approve")
        move = self._onward(now, seen, state.evidence.answered.high())
        if move is None or move.type != FINISH or not now.rules.manual_approval:
            return POLICY, move
        if approval is not None:
            reason = f"approved: {approval.reason}; {move.reason}"
            return approval.actor, Move(FINISH, 1.0, reason, move.numbers)
        if now.waits:
            return POLICY, None
        numbers = {**move.numbers, WAITS: 1.0}
        return POLICY, Move(ADVANCE, now.share, f"waits for approval; {move.reason}", numbers)

    @staticmethod
    def _onward(now: Rollout, seen: Seen, time: int) -> Move | None:
        if now.waits:
            return Move(FINISH, 1.0, now.reason.removeprefix("waits for approval; "))
        if now.step:
            return progress(now, seen, time)
        ready = f"{now.version} replaces {now.baseline} at once, which stays warm beside it"
        return first_move(now) or Move(FINISH, 1.0, ready)

    def _watch(self, state: RolloutState, cause: Event) -> Event | None:
        reign = state.rollouts.reigns[-1] if state.rollouts.reigns else None
        if reign is None or not watched(reign) or not self.task.rollout.watch_ms:
            return None
        event_id = return_id(reign.id)
        if event_id in state.said:
            return None
        over = reign.since + self.task.rollout.watch_ms + self.task.label_delay_ms
        if state.evidence.answered.high() > over:
            return None
        baseline = self._baseline(state, reign)
        move = regression(self.task.rollout, reign, state.evidence, baseline)
        if move is None:
            return None
        numbers = move.numbers
        data = {
            "event_id": event_id,
            "event_time": max(cause.time, reign.since),
            "caused_by": cause.id,
            "task": self.task.name,
            "model_version": reign.previous,
            "previous_version": reign.version,
            "reason": move.reason,
            "actor": POLICY,
            "request_id": None,
            "gates": [
                {
                    "name": "log_loss since the promotion, lower bound",
                    "value": round(numbers["lower"], 6),
                    "baseline": round(numbers["baseline_log_loss"], 6),
                    "threshold": round(numbers["limit"], 6),
                    "count": int(numbers["labels"]),
                    "passed": False,
                }
            ],
        }
        return Event(DEPLOYMENTS, "ModelRolledBack", data)

    def _baseline(self, state: RolloutState, reign: Reign) -> Sums:
        """Losses of the version before, in the last hours before the promotion."""
        assert reign.previous is not None
        revision = state.evidence.revisions.get(reign.previous, 0)
        known = state.baseline
        if known is None or known[:2] != (reign.id, revision):
            first = reign.since - self.task.rollout.baseline_ms
            sums = level(state.evidence, reign.previous, first, reign.since)
            known = state.baseline = reign.id, revision, sums
        return known[2]

    def _floor(self, state: RolloutState) -> int:
        """Decisions count in the order of the log: none is dated before the last."""
        reigns = state.rollouts.reigns
        return reigns[-1].since if len(reigns) > 1 else 0
