"""The retrain policy: past facts in, requests and alerts out, whichever topic was read first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import pairwise
from typing import Any

import fastavro
from hypothesis import given, settings
from hypothesis import strategies as st

from schemas.catalogue import DRIFT_SCORES, PERFORMANCE_SCORES, QUALITY_REPORTS, load_schema
from schemas.event import Event, derive
from streams.canonical import fingerprint
from streams.fold import Projector, Reactor
from streams.policy import PolicyState, RetrainReactor
from streams.task import Numeric, RetrainPolicy, Task

DAY = 86_400_000
FEATURES = ("a", "b", "c", "d")
TASK = Task(
    "toy",
    tuple(Numeric(name) for name in FEATURES),
    "late",
    retrain=RetrainPolicy(
        first_labels=2500,
        new_labels=2000,
        cooldown_hours=24 * 5,
        votes=2,
        of_windows=3,
        refresh=None,
    ),
)
POLICY = RetrainReactor(TASK)
REFRESHING = RetrainReactor(replace(TASK, retrain=replace(TASK.retrain, refresh=0.1, follow_ups=1)))
"""Once in six days, a tenth of the training time."""


def window(day: int, version: str) -> dict[str, Any]:
    return {
        "caused_by": None,
        "task": "toy",
        "model_version": version,
        "window_start": day * DAY,
        "window_end": (day + 1) * DAY,
    }


def drift(
    day: int, *drifted: str, version: str = "toy-1", revision: int = 0, count: int = 1000
) -> list[Event]:
    """The DriftScored events of one window, the score last."""
    return [
        derive(
            DRIFT_SCORES,
            "DriftScored",
            *("toy", version, day, feature, revision),
            time=(day + 1) * DAY,
            **window(day, version),
            feature=feature,
            revision=revision,
            count=count,
            reference_count=9000,
            psi=0.41 if feature in drifted else 0.02,
            ks=0.1,
            js=0.1,
            threshold=0.18,
            drifted=feature in drifted,
        )
        for feature in (*FEATURES, "score")
    ]


def performance(
    day: int,
    loss: float = 0.5,
    version: str = "toy-1",
    expected: float | None = 0.49,
    revision: int = 0,
    labelled: int = 1000,
    change: bool = False,
) -> Event:
    threshold = None if expected is None else 0.52
    return derive(
        PERFORMANCE_SCORES,
        "PerformanceMeasured",
        *("toy", version, day, revision),
        time=(day + 2) * DAY,
        **window(day, version),
        revision=revision,
        count=labelled + 10,
        labelled=labelled,
        log_loss=loss,
        expected_log_loss=expected,
        threshold=threshold,
        degraded=threshold is not None and loss > threshold,
        change_detected=change,
    )


def quality(day: int, *failures: str, revision: int = 0) -> Event:
    return derive(
        QUALITY_REPORTS,
        "QualityChecked",
        *("toy", day, revision),
        time=(day + 1) * DAY,
        **window(day, "toy-1"),
        revision=revision,
        count=1000,
        passed=not failures,
        failures=list(failures),
    )


def run(*events: Event | list[Event], policy: RetrainReactor = POLICY) -> list[Event]:
    return play(flat(events), policy)[0]


def play(
    events: Iterable[Event], policy: RetrainReactor = POLICY
) -> tuple[list[Event], PolicyState]:
    state, answers = policy.initial(), []
    for event in events:
        state = policy.apply(state, (event,))
        answers += policy.react(state, event)
    return answers, state


def flat(events: Iterable[Event | list[Event]]) -> list[Event]:
    return [one for event in events for one in (event if isinstance(event, list) else [event])]


def requests(answers: Iterable[Event]) -> list[dict[str, Any]]:
    return [dict(event.data) for event in answers if event.type == "RetrainRequested"]


def alerts(answers: Iterable[Event]) -> list[tuple[str, str]]:
    return [(e.type, e.data["subject"]) for e in answers if e.type.startswith("Alert")]


def day(number: int, *drifted: str, loss: float = 0.5, **fields: Any) -> list[Event]:
    version = fields.get("version", "toy-1")
    return [*drift(number, *drifted, version=version), performance(number, loss, **fields)]


def test_it_is_a_reactor() -> None:
    assert isinstance(POLICY, Reactor) and POLICY.name == "toy.policy"


def test_quiet_windows_lead_to_nothing() -> None:
    assert run(*[day(n) for n in range(10)]) == []


def test_two_drifted_days_of_three_ask_for_a_model_and_say_why() -> None:
    last = performance(3, 0.53)
    (request,) = requests(run(day(0), day(1, "a", "b"), day(2), drift(3, "a", "b"), last))
    assert request["trigger"] == "drift" and request["actor"] == "policy"
    assert request["reason"] == (
        "2 of 4 columns drifted in 2 of the last 3 days: a PSI 0.41 > 0.18, b PSI 0.41 > 0.18;"
        " log-loss 0.530 > 0.520"
    )
    assert request["labels_until"] == request["event_time"] == 5 * DAY
    assert request["caused_by"] == last.id
    evidence = request["evidence"]
    assert evidence["psi.a"] == 0.41 and evidence["threshold.a"] == 0.18
    assert evidence["labels"] == 4000 and evidence["drift_votes"] == 2 and evidence["columns"] == 4


def test_one_drifted_day_of_three_is_not_enough() -> None:
    assert requests(run(*[day(n, *(["a", "b"] if n % 3 == 0 else [])) for n in range(9)])) == []


def test_too_few_columns_do_not_vote_but_the_score_alone_does() -> None:
    assert requests(run(*[day(n, "a") for n in range(9)])) == []
    (request,) = requests(run(day(0, "score"), day(1, "score")))
    assert request["reason"].startswith("the score and 0 of 4 columns drifted in 2 of the last 2")


def test_windows_of_too_few_rows_do_not_vote() -> None:
    few = [[*drift(n, "a", "b", count=99), performance(n, labelled=99)] for n in range(30)]
    assert run(*few) == []


def test_lasting_degradation_asks_for_a_model() -> None:
    (request,) = requests(run(day(0), day(1, loss=0.53), day(2, loss=0.54)))
    assert request["trigger"] == "performance"
    assert request["reason"] == "log-loss 0.540 > 0.520, a vote in 2 of the last 3 days"
    assert request["tried_since"] == [DAY]


def test_a_single_day_beyond_chance_is_no_reason_and_one_far_beyond_it_is() -> None:
    calm = [day(0), day(1)]
    assert requests(run(*calm, day(2, loss=0.54), day(3))) == []
    # 0.55 is twice as far above the expected 0.49 as the threshold 0.52
    (request,) = requests(run(*calm, day(2, loss=0.55), day(3)))
    assert request["trigger"] == "performance" and request["event_time"] == 4 * DAY
    assert request["reason"] == (
        "log-loss 0.550 > 0.520, so far beyond chance that one day suffices"
    )
    assert request["tried_since"] == [2 * DAY]
    patient = RetrainReactor(replace(TASK, retrain=replace(TASK.retrain, sure_at=None)))
    assert requests(run(*calm, day(2, loss=0.9), day(3), policy=patient)) == []


def test_a_day_of_few_labels_does_not_suffice() -> None:
    assert requests(run(day(0), day(1), day(2, loss=2.0, labelled=99), day(3))) == []


def test_a_sure_day_is_no_reason_once_calm_days_follow() -> None:
    patient = replace(TASK, retrain=replace(TASK.retrain, new_labels=3500))
    days = [day(0), day(1, loss=0.6), day(2), day(3), day(4)]
    assert requests(run(*days, policy=RetrainReactor(patient))) == []


def test_without_since_change_no_shorter_training_time_is_tried() -> None:
    whole = RetrainReactor(replace(TASK, retrain=replace(TASK.retrain, since_change=False)))
    (request,) = requests(run(day(0), day(1, loss=0.6), policy=whole))
    assert request["tried_since"] == []


def test_a_model_is_refreshed_after_a_share_of_its_training_time() -> None:
    first, *more = requests(run(*grown_year(30), policy=REFRESHING))
    assert first["trigger"] == "first_labels" and first["event_time"] == 4 * DAY
    assert [r["trigger"] for r in more] == ["refresh"] * 4
    assert [r["event_time"] // DAY for r in more] == [10, 16, 22, 28]
    assert more[0]["reason"] == "no training for 6 of the 60 days that one reads"
    assert more[0]["tried_since"] == [10 * DAY - 15 * DAY, 10 * DAY - 30 * DAY]


def test_a_refreshed_model_that_expects_another_loss_is_followed_up() -> None:
    def after(expected: float) -> list[tuple[str, int]]:
        calm = grown_year(9)  # asked for a refresh on day 10
        better = [day(n, version="toy-2", expected=expected) for n in range(9, 18)]
        asked = requests(run(*calm, *better, policy=REFRESHING))
        return [(r["trigger"], r["event_time"] // DAY) for r in asked if r["event_time"] > 4 * DAY]

    assert after(0.48) == [("refresh", 10), ("refresh", 16)]
    followed = [("refresh", 10), ("follow_up", 13), ("refresh", 19)]
    assert after(0.5 * 0.89) == after(0.5 * 1.11) == followed


def test_a_change_is_followed_up_that_a_vain_refresh_came_before() -> None:
    """Every window in sight votes when the loss does, and still the refresh knew of no change."""
    worse = [day(n, loss=0.51 if n == 10 else 0.53) for n in (10, 11, 12)]
    calm = [day(n, version="toy-2") for n in range(13, 18)]
    one_vote = replace(REFRESHING.task.retrain, of_windows=2)
    policy = RetrainReactor(replace(TASK, retrain=one_vote))
    asked = requests(run(*grown_year(10), *worse, *calm, policy=policy))
    assert [(r["trigger"], r["event_time"] // DAY) for r in asked] == [
        ("first_labels", 4),
        ("refresh", 10),
        ("performance", 14),
        ("follow_up", 15),
    ]


def test_a_claim_need_not_wait_after_a_refresh() -> None:
    worse = [day(n, loss=0.6) for n in (10, 11)]
    asked = requests(run(*grown_year(10), *worse, policy=REFRESHING))
    assert [(r["trigger"], r["event_time"] // DAY) for r in asked] == [
        ("first_labels", 4),
        ("refresh", 10),
        ("performance", 12),
    ]
    assert asked[-1]["tried_since"] == [10 * DAY]


def test_page_hinkley_s_alarms_vote_like_degradations() -> None:
    (request,) = requests(run(day(0, change=True), day(1), day(2, change=True)))
    assert "rising (Page-Hinkley, 0.490 expected)" in request["reason"]


def test_the_first_model_is_asked_for_once_there_are_labels_enough() -> None:
    cold = [performance(n, 0.69, "toy-0", None) for n in range(4)]
    assert requests(run(*cold[:2])) == []
    (request,) = requests(run(*cold))
    assert request["trigger"] == "first_labels" and request["event_time"] == 4 * DAY
    assert "3000 predictions have their labels" in request["reason"]


def successors(days: int, **fields: Any) -> list[list[Event]]:
    """Days that all drift, of versions that answer for five days each."""
    return [day(n, "a", "b", version=f"toy-{1 + (n + 2) // 5}", **fields) for n in range(days)]


def test_after_a_request_there_is_a_cool_down_in_event_time() -> None:
    asked = requests(run(*successors(14)))
    assert [request["event_time"] // DAY for request in asked] == [3, 8, 13]


def test_after_a_request_new_labels_must_have_come() -> None:
    few = [day(n, "a", "b", labelled=1000 if n < 2 else 100) for n in range(16)]
    assert len(requests(run(*few))) == 1
    more = [*successors(3), *successors(20, labelled=350)[3:]]
    asked = requests(run(*more))
    assert [request["event_time"] // DAY for request in asked] == [3, 8, 14, 21]


def test_drift_that_no_new_model_helped_against_is_no_reason_any_more() -> None:
    assert len(requests(run(*[day(n, "a", "b") for n in range(40)]))) == 1


def test_a_loss_that_stays_high_asks_again_without_a_cool_down() -> None:
    few = RetrainReactor(replace(TASK, retrain=replace(TASK.retrain, retry_labels=1500)))
    asked = requests(run(*[day(n, loss=0.6) for n in range(8)], policy=few))
    # the first window that begins after the request on day 3 is known on day 5
    assert [request["event_time"] // DAY for request in asked] == [3, 5, 7, 9]
    assert {request["trigger"] for request in asked} == {"performance"}


def test_a_model_of_before_the_change_is_followed_up_as_labels_of_after_it_come() -> None:
    change = [day(n, loss=0.6) for n in (0, 1)]
    calm = [day(n, version="toy-2") for n in range(2, 30)]
    first, *more = requests(run(*change, *calm))
    assert first["trigger"] == "performance"
    # two windows of 1,000 labels knew of it: then 3,000, 5,000 (4,500 are passed within a day) and 8,000
    assert [(r["trigger"], r["event_time"] // DAY) for r in more] == [
        ("follow_up", 4),
        ("follow_up", 6),
        ("follow_up", 9),
    ]
    assert more[0]["reason"] == (
        "3,000 labels since the change: 2,000 of them were known to the last request"
    )


def test_drift_without_loss_is_not_followed_up() -> None:
    drifted = [day(n, "a", "b") for n in (0, 1)]
    calm = [day(n, version="toy-2") for n in range(2, 30)]
    assert len(requests(run(*drifted, *calm))) == 1


def growing(growth: float | None) -> RetrainReactor:
    return RetrainReactor(replace(TASK, retrain=replace(TASK.retrain, growth=growth)))


def grown_year(last_day: int) -> list[Event]:
    """A cold start, the first model after 3,000 labels, then calm days of 1,000 labels each."""
    cold = [performance(n, 0.69, "toy-0", None) for n in range(3)]
    return flat([*cold, *[day(n) for n in range(3, last_day)]])


def test_many_more_labels_than_at_the_last_request_are_a_reason_of_their_own() -> None:
    first, *grown = requests(run(*grown_year(40), policy=growing(2.0)))
    assert first["trigger"] == "first_labels"
    # 3,000 labels, so again at 9,000, and at 27,000
    assert [r["trigger"] for r in grown] == ["growth", "growth"]
    assert [r["event_time"] // DAY for r in grown] == [10, 28]
    assert grown[0]["reason"] == (
        "6,000 labels came since the last request: 200 % more than the 3,000 before it"
    )
    assert grown[0]["evidence"]["labels"] == 6000


def test_growth_asks_for_new_labels_and_the_cool_down_too() -> None:
    asked = requests(run(*grown_year(12), policy=growing(0.01)))
    assert [r["event_time"] // DAY for r in asked] == [4, 9]


def test_without_growth_calm_days_lead_to_no_request_after_the_first() -> None:
    assert len(requests(run(*grown_year(40), policy=growing(None)))) == 1


def test_drift_comes_before_growth_as_the_reason() -> None:
    drifted = flat([*grown_year(8), day(8, "a", "b"), day(9, "a", "b")])
    asked = requests(run(*drifted, policy=growing(2.2)))
    assert [r["trigger"] for r in asked] == ["first_labels", "drift"]


def test_a_replaced_version_does_not_vote_any_more() -> None:
    old = [day(n, "a", "b") for n in (2, 3)]
    assert requests(run(day(0), day(1), day(2, version="toy-2"), *old)) == []


def test_a_new_version_starts_with_a_clean_record() -> None:
    answers = run(day(0), day(1, "a", "b"), *[day(n, "a", "b", version="toy-2") for n in (2,)])
    assert requests(answers) == []


def test_after_a_rollback_the_older_version_is_watched_again() -> None:
    assert requests(run(day(0), day(1, version="toy-2"), *[day(n, loss=0.6) for n in (2, 3, 4)]))


def test_an_alert_is_raised_once_and_resolved_once() -> None:
    days = [day(n, *(["a", "b"] if 2 <= n <= 5 else [])) for n in range(12)]
    assert alerts(run(*days)) == [("AlertRaised", "drift"), ("AlertResolved", "drift")]
    raised, resolved = (e.data for e in run(*days) if e.type.startswith("Alert"))
    assert raised["event_time"] == 5 * DAY and resolved["event_time"] == 10 * DAY
    assert raised["message"].startswith("toy-1: 2 of 4 columns drifted in 2 of the last 3 days")


def test_degradation_raises_an_alert_of_its_own() -> None:
    days = [day(n, loss=0.6 if n < 3 else 0.5) for n in range(6)]
    assert alerts(run(*days)) == [("AlertRaised", "performance"), ("AlertResolved", "performance")]


def test_failed_quality_is_an_alert_until_a_window_passes() -> None:
    answers = run(
        quality(0), quality(1, "volume: 3 rows"), quality(2, "volume: 2 rows"), quality(3)
    )
    assert alerts(answers) == [("AlertRaised", "quality"), ("AlertResolved", "quality")]
    assert answers[0].data["message"] == "toy-1: volume: 3 rows"


def test_a_restated_window_never_fires_twice() -> None:
    first = flat([day(0, "a", "b"), day(1, "a", "b")])
    again = [
        *drift(1, "a", "b", revision=1),
        performance(1, 0.9, revision=1),
        *drift(0, "a", "b", revision=1),
        performance(0, 0.9, revision=1),
    ]
    answers, state = play([*first, *again])
    assert len(requests(answers)) == 1
    assert fingerprint(state) == fingerprint(play(first)[1])


def test_performance_waits_for_the_drift_of_its_window() -> None:
    assert run(performance(0, 0.6), performance(1, 0.6)) == []
    answers = run(performance(0, 0.6), performance(1, 0.6), drift(0), drift(1))
    assert len(requests(answers)) == 1


def test_drift_that_will_never_come_holds_nobody_up() -> None:
    lost = [performance(n, 0.6) for n in (0, 1)]
    assert len(requests(run(*lost, drift(3)))) == 1


def test_drift_that_came_when_it_had_been_given_up_counts_in_no_order() -> None:
    drifts = flat([drift(3, version="toy-2"), drift(0, "a", "b"), drift(1, "a", "b")])
    performances = [performance(0), performance(1)]
    first, before = play([*drifts, *performances])
    second, after = play([*performances, *drifts])
    assert first == second == [] and fingerprint(before) == fingerprint(after)


def test_drift_of_a_model_without_expectation_leaves_no_trace_once_its_window_is_decided() -> None:
    cold = performance(0, 0.69, expected=None)
    _, before = play([*drift(0, "a"), cold])
    _, after = play([cold, *drift(0, "a")])
    assert fingerprint(before) == fingerprint(after) and not before.drift["toy-1"].facts


def test_other_tasks_are_not_our_business() -> None:
    other = RetrainReactor(replace(TASK, name="other"))
    assert run(*[day(n, "a", "b", loss=0.9) for n in range(5)], policy=other) == []


def test_repeated_records_change_nothing() -> None:
    events = flat([day(n, "a", "b") for n in range(6)])
    once, twice = Projector([POLICY]), Projector([POLICY])
    answers = [answer for event in events for answer in once.react(event)]
    doubled = [answer for event in events for _ in range(2) for answer in twice.react(event)]
    assert answers == doubled and once.fingerprint("toy.policy") == twice.fingerprint("toy.policy")


@st.composite
def topics(draw: st.DrawFn) -> tuple[list[Event], list[Event], list[Event]]:
    """The three topics of a history with versions that overlap, gaps, restatements and a cold start."""
    drifts: list[Event] = []
    performances: list[Event] = []
    qualities: list[Event] = []
    switches = sorted(draw(st.lists(st.integers(1, 14), min_size=2, max_size=2)))
    for number in range(15):
        newest = sum(number >= switch for switch in switches)
        versions = [newest - 1, newest] if number in switches and newest else [newest]
        for version in versions:
            name = f"toy-{version}"
            drifted = draw(st.sampled_from([(), (), ("a",), ("a", "b"), ("score",)]))
            loss = draw(st.sampled_from([0.5, 0.5, 0.6]))
            restated = draw(st.integers(0, 6)) == 0
            if version and draw(st.integers(0, 9)):
                drifts += drift(number, *drifted, version=name)
                drifts += drift(number, "a", "b", version=name, revision=1) if restated else []
            if draw(st.integers(0, 9)):
                expected = 0.49 if version else None
                performances.append(performance(number, loss, name, expected))
                if restated:
                    performances.append(performance(number, 0.6, name, expected, revision=1))
        qualities.append(quality(number, *draw(st.sampled_from([(), (), ("volume: 3 rows",)]))))
    return drifts, performances, qualities


@settings(max_examples=150, deadline=None)
@given(topics(), st.sampled_from([POLICY, REFRESHING]), st.randoms(use_true_random=False))
def test_how_far_each_topic_was_read_does_not_matter(
    lanes: tuple[list[Event], ...], policy: RetrainReactor, random: Any
) -> None:
    def ends(events: list[Event]) -> tuple[dict[str, Any], str]:
        answers, state = play(events, policy)
        assert len({answer.id for answer in answers}) == len(answers)
        return {answer.id: answer for answer in answers}, fingerprint(state)

    order = [i for i, lane in enumerate(lanes) for _ in lane]
    random.shuffle(order)
    rest = [iter(lane) for lane in lanes]
    one_by_one = ends([event for lane in lanes for event in lane])
    other_way = ends([event for lane in reversed(lanes) for event in lane])
    shuffled = ends([next(rest[i]) for i in order])
    assert one_by_one == other_way == shuffled


@settings(max_examples=50, deadline=None)
@given(topics())
def test_requests_keep_their_distance(lanes: tuple[list[Event], ...]) -> None:
    answers, _ = play([event for lane in lanes for event in lane])
    asked = requests(answers)
    for one, other in pairwise(asked):
        soon = other["trigger"] in ("follow_up", "performance")
        least = 500 if soon else 2000
        assert other["evidence"].get("labels", 0) >= least
        assert soon or other["event_time"] - one["event_time"] >= 5 * DAY


@settings(max_examples=30, deadline=None)
@given(topics())
def test_recovery_in_one_batch_rebuilds_the_same_state(lanes: tuple[list[Event], ...]) -> None:
    events = [event for lane in lanes for event in lane]
    batch = POLICY.apply(POLICY.initial(), events)
    assert fingerprint(batch) == fingerprint(play(events)[1])


def test_what_is_decided_fits_the_schemas() -> None:
    answers = run(*[day(n, *(["a", "b"] if n < 4 else [])) for n in range(9)])
    assert {e.type for e in answers} == {"RetrainRequested", "AlertRaised", "AlertResolved"}
    for event in answers:
        assert fastavro.validate(event.data, load_schema(event.type), strict=True)
