"""Will the loan officers refuse this application? The office changes its rules twice, and nobody says so.

The data are *generated*, not real: 150 days of applications from river's Agrawal generator (R. Agrawal,
T. Imielinski, A. Swami: Database Mining: A Performance Perspective, IEEE TKDE 5(6), 1993), seeded, so that
every run sees the same. It is the clear case beside the flights' messy one: when drift begins is known.

- Days 0-50: refused is who could not afford the loan (Agrawal's function 7).
- Days 50-100: what counts is whether the salary fits the age (function 2).
- Days 100-150: age, salary and amount together (function 5).
- From day 75 a campaign draws the young: of applicants of 50 and older only every third applies.

The label is the officers' decision, 2 hours to some days after the application. One in 20 decisions is by
whim, one in 30 applications is withdrawn and never decided.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Iterator

from river.datasets.synth import Agrawal

from driftlog import (
    Ask,
    Category,
    DriftPolicy,
    GatePolicy,
    Numeric,
    Rate,
    Recipe,
    RetrainPolicy,
    Task,
    Truth,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
DAYS = 150
A_DAY = 300
SEED = 11
RULES = (6, 1, 4)
"""Agrawal's classification functions as river counts them, from 0; each holds for 50 days."""
RULE_DAYS = 50
CHANGE_DAYS = 4
"""A new rule needs so long until all officers follow it."""
CAMPAIGN_DAY = 75
DECIDED_AFTER_HOURS = 2
MEAN_WAIT_HOURS = 12


def moments() -> Iterator[Ask | Truth]:
    """Applications and decisions by time. Times are ms since the epoch."""
    rng = random.Random(SEED)  # noqa: S311 - the same data in every run is what is wanted
    applicants = [
        iter(
            Agrawal(rule, seed=SEED + rule, perturbation=0.05)
        )  # perturbs 5 % of the numbers' range
        for rule in RULES
    ]
    open_cases: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(DAYS * A_DAY):
        time += round(rng.expovariate(A_DAY / DAY_MS))
        day = (time - START_MS) / DAY_MS
        found, refused = next(applicants[_rule(day, rng)])
        while day >= CAMPAIGN_DAY and found["age"] >= 50 and rng.random() < 2 / 3:
            found, refused = next(applicants[_rule(day, rng)])
        while open_cases and open_cases[0][0] <= time:
            yield Truth(*heapq.heappop(open_cases))
        id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"loans/{number}"))
        yield Ask(time, id_, _instance(found))
        wait = DECIDED_AFTER_HOURS + rng.expovariate(1 / MEAN_WAIT_HOURS)
        if rng.random() < 1 / 20:
            refused = rng.randrange(2)
        if rng.random() >= 1 / 30:
            heapq.heappush(open_cases, (time + round(wait * HOUR_MS), id_, int(refused)))
    while open_cases:
        yield Truth(*heapq.heappop(open_cases))


def _rule(day: float, rng: random.Random) -> int:
    """Position in RULES of what an officer goes by on that day: the new rule spreads over CHANGE_DAYS."""
    period = min(int(day // RULE_DAYS), len(RULES) - 1)
    spread = (day - period * RULE_DAYS) / CHANGE_DAYS
    return period - 1 if period and rng.random() > spread else period


def _instance(found: dict[str, float]) -> dict[str, float | str]:
    """Agrawal's nine attributes; three of them are codes, not quantities."""
    return {
        "salary": float(found["salary"]),
        "commission": float(found["commission"]),
        "age": float(found["age"]),
        "education": f"level-{found['elevel']}",
        "car": f"maker-{found['car']}",
        "zip_code": f"zip-{found['zipcode']}",
        "house_value": float(found["hvalue"]),
        "house_years": float(found["hyears"]),
        "loan": float(found["loan"]),
    }


task = Task(
    name="loans",
    label="application is refused",
    doc="Refused loan applications, asked when they come in. Generated data with two changes of rules.",
    features=(
        Numeric("salary", "A year."),
        Numeric("commission", "A year, on top of the salary."),
        Numeric("age", "Years."),
        Category("education", "Level 0 to 4."),
        Category("car", "Maker of the car, 1 to 20."),
        Category("zip_code", "Town, 0 to 8."),
        Numeric("house_value"),
        Numeric("house_years", "Years that the house has been owned."),
        Numeric("loan", "Amount applied for."),
        Rate("refused_72h", by=(), hours=72),
    ),
    label_delay_hours=72,  # 99.7 % of the decisions are there by then
    prior_score=0.4,
    recipe=Recipe("gradient_boosting", {"iterations": 80, "min_leaf": 20}, training_days=14),
    drift=DriftPolicy(window_hours=24, min_rows=100),
    retrain=RetrainPolicy(first_labels=1_500, new_labels=900, cooldown_hours=72),
    # No golden set: what was right before the rules changed is wrong after it.
    gate=GatePolicy(recent_days=3, max_golden_ratio=None, min_rows=100),
    source=moments,
)
