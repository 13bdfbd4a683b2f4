"""The rollout reactor, one history at a time: what it says, when, and what it never says."""

from __future__ import annotations

from pathlib import Path

import pytest

from schemas.catalogue import system_topics
from schemas.codec import Codec
from schemas.event import Event, Position
from streams import checkpoint
from streams.canonical import fingerprint
from streams.checkpoint import CountingProjector
from streams.fold import Projector
from streams.rollout import RolloutReactor
from streams.rollout_state import Rollouts, traffic
from streams.task import RolloutPolicy
from tests.unit.schemas.memory_registry import MemoryRegistry
from tests.unit.streams.rollout_build import (
    HOUR,
    SECOND,
    START,
    Life,
    answered,
    command,
    promoted,
    started,
)

CANARY = RolloutPolicy("canary", steps=(0.1, 0.5, 1.0), min_labels=60, alpha=0.05)
EQUAL = {"toy-0": 0.0, "toy-1": 1.0, "toy-2": 1.0}
WORSE = {"toy-0": 0.0, "toy-1": 1.0, "toy-2": -1.0}


def life(policy: RolloutPolicy, good: dict[str, float], asks: int = 0, seed: int = 1) -> Life:
    """A champion toy-1 that has answered for a while, and a rollout of toy-2 that has just begun."""
    made = Life(policy, good, seed)
    made.put(promoted("toy-0", START - HOUR), promoted("toy-1", START, "toy-0"))
    for _ in range(asks):
        made.ask()
    if not policy.immediate:
        made.put(started(policy, made.time))
    return made


def ask_until(made: Life, done: str, most: int = 20_000) -> None:
    for _ in range(most):
        if done in made.types():
            return
        made.ask()
    raise AssertionError(f"no {done} within {most} answers: {made.types()}")


def test_a_canary_without_harm_ramps_up_and_is_promoted() -> None:
    made = life(CANARY, EQUAL)
    ask_until(made, "ModelPromoted")
    assert made.types() == [
        "RolloutAdvanced",
        "RolloutAdvanced",
        "RolloutFinished",
        "ModelPromoted",
    ]
    shares = [event.data["share"] for event in made.said if "share" in event.data]
    assert shares == [0.1, 0.5, 1.0]
    first, second = (event for event in made.said if event.type == "RolloutAdvanced")
    assert second.time - first.time >= CANARY.step_hours * HOUR
    assert second.data["evidence"]["labels"] >= 2 * CANARY.min_labels
    promotion = made.said[-1]
    assert promotion.data["actor"] == "policy"
    assert promotion.data["request_id"] == "request of toy-2"
    assert made.rollouts.champion == "toy-2"


def test_a_harmful_canary_is_aborted_long_before_its_step_is_over() -> None:
    made = life(CANARY, WORSE)
    ask_until(made, "RolloutAborted")
    assert made.types() == ["RolloutAdvanced", "RolloutAborted"]
    aborted = made.said[-1]
    assert aborted.time - made.said[0].time < 3 * HOUR
    assert aborted.data["evidence"]["lower"] > 0
    assert "log-loss is higher" in aborted.data["reason"]
    assert made.rollouts.champion == "toy-1"
    assert made.route() == ("toy-1", None)


def test_shadow_promotes_what_is_not_worse_and_aborts_what_is() -> None:
    policy = RolloutPolicy("shadow", min_labels=100, alpha=0.05, max_score_psi=None)
    good = life(policy, {**EQUAL, "toy-1": 0.7})
    ask_until(good, "ModelPromoted")
    assert good.types() == ["RolloutAdvanced", "RolloutFinished", "ModelPromoted"]
    assert not any(event.data.get("route") for event in good.log)
    bad = life(policy, WORSE)
    ask_until(bad, "RolloutAborted")
    assert bad.types() == ["RolloutAdvanced", "RolloutAborted"]


def test_an_ab_test_ends_with_a_verdict_or_without_one_in_time() -> None:
    policy = RolloutPolicy("ab", (), 0.5, 50, alpha=0.05, max_hours=48, max_score_psi=None)
    better = life(policy, {"toy-0": 0.0, "toy-1": 0.0, "toy-2": 1.0})
    ask_until(better, "ModelPromoted")
    assert "better" in better.said[-1].data["reason"]
    undecided = life(policy, {**EQUAL, "toy-1": 0.99}, seed=2)
    ask_until(undecided, "RolloutAborted")
    assert "no verdict within 48 hours" in undecided.said[-1].data["reason"]


def test_blue_green_swaps_at_once_and_is_watched() -> None:
    made = life(RolloutPolicy("blue_green", min_labels=60, alpha=0.05), WORSE, asks=300)
    assert made.types() == ["RolloutFinished", "ModelPromoted"]
    ask_until(made, "ModelRolledBack", 300)
    assert made.rollouts.champion == "toy-1"


def test_a_regression_past_the_gate_is_rolled_back_by_the_label_that_proves_it() -> None:
    policy = RolloutPolicy(watch_hours=24, min_labels=60)
    made = life(policy, WORSE, asks=2_000)
    made.put(promoted("toy-2", made.time, "toy-1", actor="bob"))
    ask_until(made, "ModelRolledBack", 400)
    (back,) = made.said
    assert back.time == made.time + 2 * SECOND  # of the newest label
    assert (back.data["model_version"], back.data["previous_version"]) == ("toy-1", "toy-2")
    assert back.data["actor"] == "policy"
    (gate,) = back.data["gates"]
    assert gate["value"] > gate["threshold"] > gate["baseline"]
    made.ask()
    assert made.types() == ["ModelRolledBack"]


def test_a_change_of_the_world_is_no_regression_where_the_version_before_scores_on() -> None:
    paired = RolloutPolicy(watch_hours=24, min_labels=60, shadow_previous=True)
    alone = RolloutPolicy(watch_hours=24, min_labels=60)
    said = {}
    for policy in (paired, alone):
        made = life(policy, EQUAL, asks=1_000)
        made.put(promoted("toy-2", made.time, "toy-1"))
        made.upside_down = True
        for _ in range(400):
            made.ask()
        said[policy.shadow_previous] = made.types()
    assert said == {True: [], False: ["ModelRolledBack"]}
    bad = life(paired, WORSE, asks=100)
    bad.put(promoted("toy-2", bad.time, "toy-1"))
    ask_until(bad, "ModelRolledBack", 400)
    assert "paired with toy-1" in bad.said[-1].data["reason"]


def test_an_equal_model_survives_its_watch() -> None:
    made = life(RolloutPolicy(watch_hours=24), EQUAL, asks=1_000)
    made.put(promoted("toy-2", made.time, "toy-1"))
    for _ in range(1_000):
        made.ask()
    assert made.said == []


def test_frozen_nothing_is_said_and_all_of_it_afterwards() -> None:
    made = life(CANARY, WORSE)
    made.put(command("freeze", made.time))
    for _ in range(2_000):
        made.ask()
    assert made.types() == ["RolloutAdvanced"]
    assert made.rollouts.active.share == 0.1
    made.put(command("unfreeze", made.time))
    assert made.types() == ["RolloutAdvanced", "RolloutAborted"]


def test_held_it_stays_where_it_is_but_harm_still_ends_it() -> None:
    calm = life(CANARY, EQUAL)
    calm.put(command("hold", calm.time, calm.rollouts.active.id))
    for _ in range(2_500):
        calm.ask()
    assert calm.types() == ["RolloutAdvanced"]
    calm.put(command("resume", calm.time, calm.rollouts.active.id))
    assert calm.types() == ["RolloutAdvanced", "RolloutAdvanced"]
    bad = life(CANARY, WORSE)
    bad.put(command("hold", bad.time, bad.rollouts.active.id))
    ask_until(bad, "RolloutAborted")


@pytest.mark.parametrize(
    ("said", "outcome"), [("approve", "RolloutFinished"), ("reject", "RolloutAborted")]
)
def test_with_manual_approval_a_person_has_the_last_word(said: str, outcome: str) -> None:
    policy = RolloutPolicy("canary", (0.5, 1.0), min_labels=40, alpha=0.05, manual_approval=True)
    made = life(policy, EQUAL, seed=2)
    for _ in range(1_500):
        made.ask()
    assert made.types() == ["RolloutAdvanced", "RolloutAdvanced"]
    assert made.rollouts.active.waits
    assert made.rollouts.active.share == 0.5
    made.put(command(said, made.time, made.rollouts.active.id))
    assert made.types()[2] == outcome
    assert made.said[2].data["actor"] == "ann"
    assert (made.rollouts.champion == "toy-2") == (said == "approve")


def test_an_abort_is_final() -> None:
    made = life(CANARY, EQUAL)
    rollout = made.rollouts.active
    made.put(command("abort", made.time, rollout.id))
    aborted = made.said[-1]
    late = {**aborted.data, "event_id": "late", "step": rollout.step + 1, "share": 1.0}
    made.put(
        Event(aborted.topic, "RolloutAdvanced", late), Event(aborted.topic, "RolloutFinished", late)
    )
    for _ in range(1_000):
        made.ask()
    assert made.types() == ["RolloutAdvanced", "RolloutAborted"]
    assert made.rollouts.active is None
    assert traffic(made.rollouts) is None


def test_a_newer_challenger_supersedes_the_one_on_its_way() -> None:
    made = life(CANARY, {**EQUAL, "toy-3": 1.0})
    made.put(started(CANARY, made.time + 1, "toy-3"))
    assert made.rollouts.active.version == "toy-3"
    assert made.rollouts.past[-1].outcome == "superseded"
    ask_until(made, "ModelPromoted")
    assert made.rollouts.champion == "toy-3"


def test_a_champion_by_other_hands_ends_the_rollout() -> None:
    made = life(CANARY, {**EQUAL, "toy-3": 1.0})
    made.put(promoted("toy-3", made.time + 1, "toy-1", actor="bob"))
    assert made.types() == ["RolloutAdvanced", "RolloutAborted"]
    assert "toy-3 became champion" in made.said[-1].data["reason"]


def test_a_policy_that_was_overtaken_decides_nothing() -> None:
    fold = Rollouts()
    state = fold.apply(
        fold.initial(),
        [
            promoted("toy-1", 1),
            promoted("toy-2", 2, "toy-1", actor="bob"),
            promoted("toy-3", 3, "toy-1", actor="policy"),
        ],
    )
    assert state["toy"].champion == "toy-2"


def test_requests_that_were_dealt_otherwise_than_declared_abort_it() -> None:
    made = life(CANARY, EQUAL)
    rollout = made.rollouts.active
    for n in range(400):  # half of them instead of a tenth
        arm, version = (("challenger", "toy-2"), ("champion", "toy-1"))[n % 2]
        made.put(answered(f"q{n}", made.time + n, version, 0.5, f"{rollout.id}/1/{arm}"))
    assert made.types() == ["RolloutAdvanced", "RolloutAborted"]
    assert "sample ratio mismatch" in made.said[-1].data["reason"]


def test_a_challenger_without_answers_is_aborted() -> None:
    made = life(CANARY, EQUAL)
    rollout = made.rollouts.active
    for n in range(100):
        arm = "null" if n % 10 == 0 else "champion"
        made.put(answered(f"q{n}", made.time + n, "toy-1", 0.5, f"{rollout.id}/1/{arm}"))
    assert "no finite score" in made.said[-1].data["reason"]


def test_scores_of_another_kind_abort_it_before_any_label() -> None:
    made = life(CANARY, EQUAL)
    rollout = made.rollouts.active
    for n in range(1_000):
        arm, version, score = ("champion", "toy-1", 0.2 + 0.6 * (n % 7) / 7)
        if n % 10 == 0:
            arm, version, score = "challenger", "toy-2", 0.99
        made.put(answered(f"q{n}", made.time + n, version, score, f"{rollout.id}/1/{arm}"))
    assert "distributed otherwise" in made.said[-1].data["reason"]


def test_replay_from_any_prefix_says_the_same() -> None:
    made = life(CANARY, WORSE, asks=50)
    ask_until(made, "RolloutAborted")
    wanted = [event.id for event in made.said]
    for cut in range(0, len(made.log), 37):
        again = Projector([RolloutReactor(made.task, 1)])
        again.feed(made.log[:cut])
        said = {e.id: e for event in made.log[cut:] for e in again.react(event)}
        known = {event.id for event in made.log[:cut]}
        later = [id_ for id_ in wanted if id_ not in known]
        assert set(later) <= set(said) <= set(wanted)
        assert all(said[e.id].data == e.data for e in made.said if e.id in later)
        assert again.fingerprint("toy.rollout") == made.projector.fingerprint("toy.rollout")


def test_every_event_fits_its_schema() -> None:
    made = life(CANARY, WORSE, asks=100)
    ask_until(made, "RolloutAborted")
    made.put(
        command("hold", made.time, made.said[-1].data["rollout_id"]), command("freeze", made.time)
    )
    schemas = Codec(MemoryRegistry(), [*system_topics(), *made.task.topics()])
    for event in made.log:
        back = schemas.decode(Position(event.topic, 0, 0), schemas.encode(event))
        assert (back.type, dict(back.data)) == (event.type, {**back.data, **event.data})


def test_the_order_of_topics_makes_no_difference_to_the_state() -> None:
    made = life(CANARY, WORSE, asks=30)
    ask_until(made, "RolloutAborted")
    by_topic: dict[str, list[Event]] = {}
    for event in made.log:
        by_topic.setdefault(event.topic, []).append(event)
    reactor = RolloutReactor(made.task, 1)
    for names in (sorted(by_topic), sorted(by_topic, reverse=True)):
        projector = Projector([reactor, Rollouts()])
        projector.feed([event for name in names for event in by_topic[name]])
        assert projector.fingerprint(reactor.name) == made.projector.fingerprint(reactor.name)
        assert fingerprint(projector.states["rollouts"]["toy"]) == fingerprint(made.rollouts)


@pytest.mark.parametrize("good", [EQUAL, WORSE])
def test_a_checkpoint_anywhere_goes_on_as_if_nothing_had_been(
    good: dict[str, float], tmp_path: Path
) -> None:
    made = life(CANARY, good, asks=40)
    for _ in range(400):
        made.ask()
    made.put(
        command("hold", made.time, made.said[0].data["rollout_id"]), command("freeze", made.time)
    )
    folds = [RolloutReactor(made.task, 1), Rollouts()]
    for cut in (1, len(made.log) // 3, len(made.log)):
        whole = CountingProjector(folds)
        whole.feed(made.log[:cut])
        checkpoint.save(whole, tmp_path)
        back = checkpoint.newest(folds, tmp_path, None, dict(whole.offsets), {}, pytest.fail)
        assert back is not None
        for projector in (whole, back):
            projector.feed(made.log[cut:])
        for fold in folds:
            assert back.fingerprint(fold.name) == whole.fingerprint(fold.name)
