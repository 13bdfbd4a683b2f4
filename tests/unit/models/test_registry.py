from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from models.registry import (
    Registry,
    RegistryState,
    before,
    champion,
    explain,
    next_version,
    versions,
)
from schemas.catalogue import SNAPSHOTS
from schemas.event import Event
from streams.canonical import fingerprint
from tests.unit.models.model_parts import asked, decided, registered


def fold(*events: Event) -> RegistryState:
    return Registry().apply(Registry().initial(), events)


HISTORY = (
    asked("r0", 9_000, trigger="cold_start"),
    registered("wear-0", 9_000, "r0"),
    decided("wear-0", 9_000, request_id="r0"),
    asked("r1", 100),
    registered("wear-1", 110, "r1", metrics={"log_loss": 0.4}),
    decided("wear-1", 110, previous="wear-0", request_id="r1"),
    asked("r2", 200),
    registered("wear-2", 210, "r2"),
    decided("wear-2", 210, "PromotionRejected", "wear-1", "r2"),
    asked("r3", 300),
    registered("wear-3", 310, "r3"),
    decided("wear-3", 310, previous="wear-1", request_id="r3"),
    decided("wear-1", 400, "ModelRolledBack", "wear-3"),
)


def live(state: RegistryState, at_ms: int | None = None) -> str | None:
    decision = champion(state, "wear", at_ms)
    return decision.version if decision else None


def test_the_version_that_answered_at_each_moment() -> None:
    state = fold(*HISTORY)
    answers = {at: live(state, at) for at in (0, 109, 110, 309, 310, 399, 400, 10_000)}
    assert answers == {
        0: "wear-0",
        109: "wear-0",
        110: "wear-1",
        309: "wear-1",
        310: "wear-3",
        399: "wear-3",
        400: "wear-1",
        10_000: "wear-1",
    }
    assert live(state) == "wear-1"
    assert live(fold(), 5) is None


def test_decisions_count_in_the_order_of_the_log() -> None:
    early = decided("wear-2", 50, previous="wear-1")
    state = fold(*HISTORY[:6], registered("wear-2"), early)
    assert live(state) == "wear-2"
    assert live(state, 109) == "wear-0", "it did not answer before the decision that it followed"


def test_why_a_version_answered() -> None:
    state = fold(*HISTORY)
    found = explain(state, "wear", 200)
    assert found is not None
    told = found.to_json()
    assert (told["model_version"], told["since"], told["until"]) == ("wear-1", 110, 310)
    assert (told["trigger"], told["request_reason"]) == ("drift", "because of r1")
    assert told["metrics"] == {"log_loss": 0.4}
    first = explain(state, "wear", 0)
    assert first is not None and (first.since, first.until) == (None, 110)
    now = explain(state, "wear")
    assert now is not None and (now.since, now.until) == (400, None)
    assert explain(state, "other") is None


def test_a_rollback_leads_to_the_version_before() -> None:
    assert before(fold(*HISTORY[:3]), "wear") is None
    assert before(fold(*HISTORY[:12]), "wear") == "wear-1"
    assert before(fold(*HISTORY), "wear") == "wear-3"


def test_versions_are_numbered_by_their_count() -> None:
    many = [registered(f"wear-{n}") for n in range(12)]
    state = fold(*many, registered("other-0"))
    assert [v.version for v in versions(state, "wear")] == [f"wear-{n}" for n in range(12)]
    assert next_version(state, "wear") == "wear-12"
    assert next_version(state, "other") == "other-1"
    assert next_version(state, "new") == "new-0"


def test_a_request_knows_its_steps_and_its_end() -> None:
    state = fold(*HISTORY[:5])
    request = state.requests["r1"]
    assert request.step("ModelRegistered", model_version="wear-1") is not None
    assert request.step("ModelRegistered", model_version="wear-2") is None
    assert request.ended is None
    ended = fold(*HISTORY).requests["r2"].ended
    assert ended and ended[0] == "PromotionRejected"


def test_the_first_golden_set_stays() -> None:
    def taken(sha256: str, purpose: str) -> Event:
        data = {"event_id": sha256, "event_time": 0, "task": "wear", "request_id": "r1"}
        more = {"purpose": purpose, "snapshot": sha256}
        return Event(SNAPSHOTS, "SnapshotTaken", data | more)

    state = fold(taken("a", "training"), taken("b", "golden"), taken("c", "golden"))
    assert state.golden["wear"]["snapshot"] == "b"


@given(st.permutations(sorted({event.topic for event in HISTORY})), st.data())
def test_repeats_and_the_order_of_the_topics_make_no_difference(
    topics: list[str], data: st.DataObject
) -> None:
    """Within a topic the order is kept, as in the log."""
    mixed: list[Event] = []
    for topic in topics:
        events = [event for event in HISTORY if event.topic == topic]
        repeated = data.draw(st.integers(0, len(events) - 1))
        mixed += [*events, events[repeated]]
    assert fingerprint(plain(fold(*mixed))) == fingerprint(plain(fold(*HISTORY)))


def plain(state: RegistryState) -> object:
    """The state without the order in which a request's steps arrived."""
    steps = {key: sorted(request.steps) for key, request in state.requests.items()}
    return [sorted(state.versions), state.decisions, steps]


def test_a_policy_that_was_overtaken_installs_nobody() -> None:
    by_policy = decided("wear-1", 410, "ModelRolledBack", "wear-2")
    late = Event(by_policy.topic, by_policy.type, {**by_policy.data, "actor": "policy"})
    state = fold(*HISTORY[:-1], late)
    assert live(state) == "wear-3", "wear-2 was not the champion any more"
    right = Event(late.topic, late.type, {**late.data, "previous_version": "wear-3"})
    assert live(fold(*HISTORY[:-1], right)) == "wear-1"
