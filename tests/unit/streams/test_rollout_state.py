"""The fold of rollouts under any history: ends are final, shares are those of the steps, topics may mix."""

from __future__ import annotations

import random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import ROLLOUTS
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.rollout_state import Rollouts, TaskRollouts, apply_to, policy_of, policy_text, traffic
from streams.task import RolloutPolicy
from tests.unit.streams.rollout_build import command, promoted, started

POLICY = RolloutPolicy("canary", watch_hours=24, shadow_previous=True)
VERSIONS = st.sampled_from(["toy-1", "toy-2", "toy-3"])
TIMES = st.integers(0, 50)


def move(type_: str, rollout: str, step: int, share: float, time: int) -> Event:
    return derive(
        ROLLOUTS,
        type_,
        *(rollout, step, type_, share),
        time=time,
        caused_by=None,
        task="toy",
        rollout_id=rollout,
        model_version="toy-2",
        step=step,
        share=share,
        reason=type_,
        actor="policy",
        evidence={},
    )


STARTS = [started(POLICY, time, f"toy-{n}", "toy-1") for n, time in ((2, 3), (3, 9))]
RUNS = st.sampled_from([event.id for event in STARTS])
ROLLED = st.sampled_from(STARTS) | st.builds(
    move,
    st.sampled_from(["RolloutAdvanced", "RolloutAborted", "RolloutFinished"]),
    RUNS,
    st.integers(1, 4),
    st.sampled_from([0.1, 0.5]),
    TIMES,
)
COMMANDS = st.builds(
    command,
    st.sampled_from(["hold", "resume", "approve", "abort", "freeze", "unfreeze"]),
    TIMES,
    RUNS,
)
DECISIONS = st.builds(
    promoted,
    VERSIONS,
    TIMES,
    VERSIONS | st.none(),
    st.sampled_from(["ModelPromoted", "ModelRolledBack", "PromotionRejected"]),
    st.sampled_from(["trainer", "policy"]),
)
HISTORIES = st.lists(ROLLED | COMMANDS | DECISIONS, max_size=25)


def unique(events: list[Event]) -> list[Event]:
    return list({event.id: event for event in reversed(events)}.values())[::-1]


@settings(max_examples=200, deadline=None)
@given(HISTORIES, st.integers(0, 1_000))
def test_how_topics_mix_makes_no_difference(events: list[Event], seed: int) -> None:
    events = unique(events)
    queues: dict[str, list[Event]] = {}
    for event in events:
        queues.setdefault(event.topic, []).append(event)
    rng, mixed = random.Random(seed), []
    while any(queues.values()):
        topic = rng.choice([name for name, queue in queues.items() if queue])
        mixed.append(queues[topic].pop(0))
    fold = Rollouts()
    first, second = fold.apply(fold.initial(), events), fold.apply(fold.initial(), mixed)
    assert fingerprint(first) == fingerprint(second)


@settings(max_examples=200, deadline=None)
@given(HISTORIES)
def test_an_end_is_final_and_a_share_is_that_of_the_last_step(events: list[Event]) -> None:
    state = TaskRollouts()
    ended: dict[str, str] = {}
    for event in unique(events):
        was: Any = state.active
        step = was.step if was else -1
        apply_to(state, event)
        for rollout in state.past:
            assert (
                ended.setdefault(f"{rollout.id}{rollout.started}", rollout.outcome)
                == rollout.outcome
            )
        now = state.active
        if now is not None:
            assert now.share == now.shares[-1] and now.step == len(now.shares) - 1
            assert now is not was or now.step in (step, step + 1)
        told = traffic(state, POLICY)
        if told is not None and now is not None:
            assert told.share <= now.share
        if told is not None:
            assert told.baseline == state.champion


@given(st.integers(30, 1_000), st.floats(0.001, 0.4), st.none() | st.text(max_size=9))
def test_a_policy_survives_its_event(labels: int, alpha: float, sticky: str | None) -> None:
    policy = RolloutPolicy("ab", min_labels=labels, alpha=alpha, sticky_by=sticky)
    assert policy_of(policy_text(policy)) == policy
    newer = policy_text(policy)[:-1] + ', "invented_later": 1}'
    assert policy_of(newer) == policy


def test_a_watch_has_the_version_before_in_its_shadow_while_it_lasts() -> None:
    state = TaskRollouts()
    for event in (promoted("toy-1", 1), promoted("toy-2", 5, "toy-1")):
        apply_to(state, event)
    told = traffic(state, POLICY)
    assert told is not None and (told.version, told.baseline, told.shadow) == (
        "toy-1",
        "toy-2",
        True,
    )
    assert told.until == 5 + POLICY.watch_ms
    assert traffic(state, RolloutPolicy()) is None
    apply_to(state, promoted("toy-1", 9, "toy-2", "ModelRolledBack", "policy"))
    assert traffic(state, POLICY) is None


def finished() -> tuple[TaskRollouts, Event]:
    """toy-2 has finished its rollout against toy-1; the promotion is still to be said."""
    state = TaskRollouts()
    start = started(POLICY, 3)
    for event in (promoted("toy-0", 1), promoted("toy-1", 2, "toy-0"), start):
        apply_to(state, event)
    apply_to(state, move("RolloutFinished", start.id, 1, 1.0, 4))
    done = state.unsettled()
    assert done is not None
    promotion = promoted("toy-2", 6, "toy-1", actor="policy")
    data = {**promotion.data, "event_id": done.promotion_id}
    return state, Event(promotion.topic, promotion.type, data)


def test_until_its_promotion_is_there_a_finished_challenger_answers_everything() -> None:
    state, promotion = finished()
    told = traffic(state)
    assert told is not None and (told.version, told.share) == ("toy-2", 1.0)
    apply_to(state, started(POLICY, 5, "toy-3"))  # a newer one changes nothing about that
    assert traffic(state) == told
    apply_to(state, promotion)
    assert state.unsettled() is None and state.champion == "toy-2"


def test_a_promotion_that_was_overtaken_is_not_due_when_the_old_champion_comes_back() -> None:
    for late in (True, False):
        state, promotion = finished()
        apply_to(state, promoted("toy-9", 5, "toy-1", actor="bob"))
        if late:
            apply_to(state, promotion)
            assert state.champion == "toy-9"
        apply_to(state, promoted("toy-1", 7, "toy-9", "ModelRolledBack", "bob"))
        assert state.champion == "toy-1"
        assert state.unsettled() is None and traffic(state) is None
