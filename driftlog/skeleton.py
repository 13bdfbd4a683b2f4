"""Will this order be sent back? Change this: say what is asked, when, and when the answer is known.

It runs as it is, on made-up orders; `driftlog task check FILE` says whether it still does after a change,
`driftlog up --task FILE` and `driftlog feed` bring it to life. docs/tasks.md explains every field.
"""

from __future__ import annotations

import heapq
import random
from collections.abc import Iterator

from driftlog import (
    Ask,
    Category,
    DriftPolicy,
    Expect,
    GatePolicy,
    Numeric,
    Observation,
    Observed,
    Rate,
    Recipe,
    RetrainPolicy,
    Task,
    Truth,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC; all times are milliseconds since the epoch."""
DAYS = 60
SHOPS = ("north", "south", "online")


def moments() -> Iterator[Ask | Truth | Observation]:
    """What happened, in time order; every call gives the same again, ids and all.

    Change this: read your own history here (a file, a database), or leave `source` out of the Task when
    your program asks over REST.
    """
    return heapq.merge(_orders(), _weather(), key=lambda moment: moment.time)


def _orders() -> Iterator[Ask | Truth]:
    """An Ask when an order is placed; its Truth one to three days later, under the same id."""
    rng = random.Random(1)  # noqa: S311 - a fixed seed: the source must repeat itself
    on_the_way: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(DAYS * 200):
        time += round(rng.expovariate(200 / DAY_MS))
        while on_the_way and on_the_way[0][0] <= time:
            yield Truth(*heapq.heappop(on_the_way))
        price, shop = round(rng.uniform(5, 200), 2), rng.choice(SHOPS)
        yield Ask(time, f"order-{number}", {"price": price, "shop": shop})
        # After 30 days the online shop's orders come back three times as often: this is the drift.
        changed = shop == "online" and time > START_MS + 30 * DAY_MS
        returned = rng.random() < (0.1 + price / 1000) * (3 if changed else 1)
        known = time + round(rng.uniform(24, 72) * HOUR_MS)
        heapq.heappush(on_the_way, (known, f"order-{number}", int(returned)))
    while on_the_way:
        yield Truth(*heapq.heappop(on_the_way))


def _weather() -> Iterator[Observation]:
    """An Observation says something about an entity: here the rain at each shop, every hour."""
    rng = random.Random(2)  # noqa: S311 - as above
    for hour in range(DAYS * 24):
        for shop in SHOPS:
            rain = round(rng.expovariate(2), 2) if shop != "online" else None
            yield Observation(START_MS + hour * HOUR_MS, "shop", shop, {"rain": rain})


task = Task(
    name="my_task",  # names the topics my_task.predictions, .labels, .features and the tables
    label="order is sent back",  # change this: what label 1 means
    doc="Orders that come back, asked when they are placed.",  # change this
    features=(
        # Change this. What the caller sends with each question, a number or a text (None if unknown):
        # A window with a price below 0 does not reach training.
        Numeric("price", "What was paid.", expect=Expect(minimum=0)),
        Category("shop", "north, south or online."),
        # What driftlog keeps itself, as of the question's time: the share of label 1 in the last hours...
        Rate("returned_72h", by=(), hours=72),
        Rate("shop_returned_72h", by=("shop",), hours=72),
        # ... and the newest observed value about what a given feature names.
        Observed("rain", by="shop", value="rain", max_age_hours=3),
    ),
    label_delay_hours=72,  # change this: a label that comes later than this does not count
    decision_threshold=0.5,  # a score from here on decides 1
    prior_score=0.2,  # change this: what is answered before there is a model, the usual share of 1
    # How to learn: 'gradient_boosting' or 'logistic_regression', from so many of the newest days.
    recipe=Recipe("logistic_regression", training_days=20),
    # Inputs and scores are compared with the model's training data once a window.
    drift=DriftPolicy(window_hours=24, min_rows=100),
    # The first model needs so many labels; later ones too, and the cool-down must be over.
    retrain=RetrainPolicy(first_labels=1_000, new_labels=600, cooldown_hours=72),
    # A new model is promoted only if it is no worse than the old one on the newest days.
    gate=GatePolicy(recent_days=3, min_rows=100),
    source=moments,
)
