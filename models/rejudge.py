"""Past promotions and refusals under another gate policy, from the measures that the log kept (pure).

The models stay those of the log: had a promotion been refused, the next challenger would have met another
champion. So this tells what the policy would have said each time, not what would have followed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from models.gates import Verdict, judge_again
from models.measures import RECENT
from models.registry import PROMOTED, REJECTED, Decision, RegistryState
from streams.task import GatePolicy


@dataclass(frozen=True, slots=True)
class Rejudged:
    """A decision as logged, and the verdict of the other policy on the same numbers."""

    decision: Decision
    verdict: Verdict

    @property
    def promoted_then(self) -> bool:
        return self.decision.kind == PROMOTED

    @property
    def changed(self) -> bool:
        return self.promoted_then != self.verdict.passed


def rejudge(state: RegistryState, task: str, policy: GatePolicy) -> Iterator[Rejudged]:
    """Every decision of `task` that gates were asked about, in the order of the log.

    Left out: the cold start and what a person decided, since nothing was measured.
    """
    for decision in state.decisions.get(task, ()):
        measured = any(gate["name"] == RECENT for gate in decision.gates)
        if decision.kind not in (PROMOTED, REJECTED) or not measured:
            continue
        champion = state.versions.get(decision.previous or "")
        numbers = {
            "model_version": decision.version,
            "gates": decision.gates,
            "evidence": decision.evidence,
        }
        verdict = judge_again(
            *(policy, numbers),
            champion=decision.previous or "the prior",
            first=decision.previous is None or (champion is not None and champion.snapshot is None),
        )
        yield Rejudged(decision, verdict)
