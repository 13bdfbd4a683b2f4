"""Synthetic streams with known change points, as Tasks: river's SEA, Agrawal and LED generators.

All are seeded: every run sees the same rows. Changes are abrupt, gradual or recurring: one concept gives
way to another, at once or over `SPREAD_DAYS` in which either may have made a row, and the second change
leads back to the first concept. The label is known some hours after the question.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from streams.task import (
    DAY_MS,
    HOUR_MS,
    Ask,
    Category,
    Feature,
    GatePolicy,
    Numeric,
    Recipe,
    Task,
    Truth,
)

START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
A_DAY = 500
DAYS = 80
SEED = 5
SPREAD_DAYS = 10
LABEL_DELAY_HOURS = 24
MEAN_WAIT_HOURS = 4
IRRELEVANT = 8
"""LED features that never matter, of the 17 that river adds."""

Rows = Iterator[tuple[Mapping[str, Any], int]]
Concept = Callable[[int], Rows]
"""Endless rows of one concept, given a seed."""


def _sea(variant: int, seed: int) -> Rows:
    from river.datasets.synth import SEA

    for x, y in SEA(variant, noise=0.1, seed=seed):
        yield {f"x{place}": float(value) for place, value in x.items()}, int(y)


def _agrawal(function: int, seed: int) -> Rows:
    from river.datasets.synth import Agrawal

    for x, y in Agrawal(function, seed=seed, perturbation=0.05):
        coded = {"elevel": "education", "car": "car", "zipcode": "zip_code"}
        row = {
            coded.get(name, name): f"{name}-{value}" if name in coded else float(value)
            for name, value in x.items()
        }
        yield row, int(y)


def _led(swapped: int, seed: int) -> Rows:
    """Is the digit 5 or more? `swapped` of the seven segments trade places with irrelevant ones."""
    from river.datasets.synth import LEDDrift

    source = LEDDrift(
        seed=seed, noise_percentage=0.1, irrelevant_features=True, n_drift_features=swapped
    )
    for x, y in source:
        yield {f"x{place}": float(x[place]) for place in range(7 + IRRELEVANT)}, int(y >= 5)


@dataclass(frozen=True)
class Family:
    """Features of a generator, and two concepts of it that contradict each other."""

    features: tuple[Feature, ...]
    concepts: tuple[Concept, ...]
    question: str
    prior: float


FAMILIES = {
    "sea": Family(
        tuple(Numeric(f"x{i}") for i in range(3)),
        (partial(_sea, 2), partial(_sea, 3)),
        "x0 + x1 are at most a threshold that moves from 7 to 9.5",
        0.4,
    ),
    "agrawal": Family(
        (
            *(Numeric(n) for n in ("salary", "commission", "age", "hvalue", "hyears", "loan")),
            *(Category(n) for n in ("education", "car", "zip_code")),
        ),
        (partial(_agrawal, 6), partial(_agrawal, 1)),
        "the loan is given: function 7, then function 2",
        0.4,
    ),
    "led": Family(
        tuple(Numeric(f"x{i}") for i in range(7 + IRRELEVANT)),
        (partial(_led, 0), partial(_led, 5)),
        "the digit shown is 5 or more; then five segments are wired elsewhere",
        0.5,
    ),
}
CHANGES = {"abrupt": (30, 58), "gradual": (30,), "recurring": (25, 42, 60)}
"""Days on which a change begins. The second one leads back to the first concept."""


@dataclass(frozen=True)
class Stream:
    """A task with a source, and when its world changes (ms; a gradual change from there on)."""

    task: Task
    changes: tuple[int, ...]
    spread_ms: int = 0
    """How long a change takes."""


NAMES = tuple(f"{family}-{kind}" for family in FAMILIES for kind in CHANGES)


def stream(name: str, seed: int = SEED) -> Stream:
    """A named stream; raises KeyError for a name that is not in `NAMES`. Another `seed`: other rows of it."""
    family_name, _, kind = name.partition("-")
    family, days = FAMILIES[family_name], CHANGES[kind]
    spread = SPREAD_DAYS if kind == "gradual" else 0
    task = Task(
        name.replace("-", "_"),
        family.features,
        family.question,
        label_delay_hours=LABEL_DELAY_HOURS,
        prior_score=family.prior,
        recipe=Recipe(
            "gradient_boosting",
            {"iterations": 30, "learning_rate": 0.15, "leaves": 10, "min_leaf": 20},
            training_days=14,
        ),
        # No golden set: what was right before a change is wrong after it.
        gate=GatePolicy(recent_days=3, max_golden_ratio=None),
        source=partial(_moments, family, days, spread, seed),
        doc=f"Synthetic: river's {family_name}, {kind} changes on days {', '.join(map(str, days))}.",
    )
    changes = tuple(START_MS + day * DAY_MS for day in days)
    return Stream(task, changes, spread * DAY_MS)


def _moments(
    family: Family, changes: tuple[int, ...], spread: int, seed: int
) -> Iterator[Ask | Truth]:
    rng = random.Random(seed)  # noqa: S311 - the same rows in every run are what is wanted
    rows = [concept(seed + place) for place, concept in enumerate(family.concepts)]
    waiting: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(A_DAY * DAYS):
        time += max(1, round(rng.expovariate(A_DAY / DAY_MS)))
        passed = sum(_is_over((time - START_MS) / DAY_MS - day, spread, rng) for day in changes)
        instance, label = next(rows[passed % len(rows)])
        while waiting and waiting[0][0] <= time:
            yield Truth(*heapq.heappop(waiting))
        id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"{family.question}/{changes}/{number}"))
        yield Ask(time, id_, instance)
        wait = min(rng.expovariate(1 / MEAN_WAIT_HOURS), LABEL_DELAY_HOURS - 1)
        heapq.heappush(waiting, (time + max(1, round(wait * HOUR_MS)), id_, label))
    while waiting:
        yield Truth(*heapq.heappop(waiting))


def _is_over(since: float, spread: int, rng: random.Random) -> bool:
    """Whether a change that began `since` days ago has reached this row."""
    if since < 0:
        return False
    return spread == 0 or rng.random() < since / spread
