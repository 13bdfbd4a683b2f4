"""Is the digit odd? A reader of handwritten digits whose camera is mounted upside down one day.

The images are real: the 1,797 digits of 8 x 8 pixels that scikit-learn carries (E. Alpaydin, C. Kaynak:
Optical Recognition of Handwritten Digits, UCI, 1998). The stream around them is *generated*, seeded: 60 days,
each with images of its own (no image comes on two days, so a model is never judged on one that it has
learned), each read several times, moved by up to a pixel and with noise, as a camera would.

- From day 30 on the camera hangs upside down: every image is turned by 180 degrees.

A person types the digit in some hours later; one in 40 is never typed in, one in 100 is mistyped.
"""

from __future__ import annotations

import heapq
import random
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits

from driftlog import (
    Ask,
    DriftPolicy,
    GatePolicy,
    Numeric,
    Recipe,
    RetrainPolicy,
    Task,
    Truth,
)

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
DAYS = 60
A_DAY = 150
SEED = 5
TURNED_DAY = 30
SIDE = 8
PIXELS = tuple(f"p{number:02}" for number in range(SIDE * SIDE))
BRIGHTEST = 16
NOISE = 0.8
"""Standard deviation, of brightness 0 to 16."""


def moments() -> Iterator[Ask | Truth]:
    """Images and the digits that were typed in, by time. Times are ms since the epoch."""
    bunch: Any = load_digits()
    shuffled = np.random.default_rng(SEED).permutation(len(bunch.target))
    rng = random.Random(SEED)  # noqa: S311 - the same data in every run is what is wanted
    noise = np.random.default_rng(SEED + 1)
    waiting: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(DAYS * A_DAY):
        time += round(rng.expovariate(A_DAY / DAY_MS))
        while waiting and waiting[0][0] <= time:
            yield Truth(*heapq.heappop(waiting))
        day = (time - START_MS) // DAY_MS
        todays = shuffled[day % DAYS :: DAYS]
        image = int(todays[rng.randrange(len(todays))])
        upright = seen(bunch.images[image], rng, noise)
        pixels = np.rot90(upright, 2) if day >= TURNED_DAY else upright
        id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"digits/{number}"))
        yield Ask(time, id_, dict(zip(PIXELS, pixels.ravel().tolist(), strict=True)))
        odd = int(bunch.target[image]) % 2
        if rng.random() < 1 / 100:
            odd = 1 - odd
        wait = 1 + rng.expovariate(1 / 5)
        if rng.random() >= 1 / 40:
            heapq.heappush(waiting, (time + round(wait * HOUR_MS), id_, odd))
    while waiting:
        yield Truth(*heapq.heappop(waiting))


def seen(
    image: NDArray[np.float64], rng: random.Random, noise: np.random.Generator
) -> NDArray[np.float64]:
    """(8, 8) brightness as the camera gives it: moved, noisy, in whole steps."""
    moved = np.roll(image, (rng.randint(-1, 1), rng.randint(-1, 1)), axis=(0, 1))
    blurred = moved + noise.normal(0, NOISE, image.shape)
    return np.clip(np.round(blurred), 0, BRIGHTEST)


task = Task(
    name="digits",
    label="digit is odd",
    doc="Handwritten digits, 8 x 8 pixels. Real images, a generated stream: turned from day 30 on.",
    features=tuple(Numeric(name, "Brightness, 0 to 16.") for name in PIXELS),
    label_delay_hours=36,  # 99.9 % are typed in by then
    prior_score=0.5,
    recipe=Recipe("cnn", {"channels": (8, 16), "hidden": 32, "epochs": 12}, training_days=21),
    # A single pixel means nothing: the image as a whole is watched.
    drift=DriftPolicy(window_hours=24, min_rows=100, embeddings={"image": PIXELS}),
    retrain=RetrainPolicy(first_labels=1_500, new_labels=450, cooldown_hours=72, growth=1.0),
    # No golden set: images from before the camera was turned are no images of today.
    gate=GatePolicy(recent_days=3, max_golden_ratio=None, min_rows=100),
    source=moments,
)
