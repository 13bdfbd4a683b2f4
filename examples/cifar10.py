"""Does the image show an animal? Photographs whose red and blue are exchanged one day.

The images are CIFAR-10's (see `examples.cifar10_files`), read from the folder that the variable
CIFAR10_FOLDER names: they are no part of driftlog, and nothing is downloaded. A task asks one question with
two answers, so the ten classes become animals (bird, cat, deer, dog, frog, horse: six in ten) and vehicles
(airplane, automobile, ship, truck). The stream around them is *generated*, seeded: 60 days, each with images
of its own (no image comes on two days, so a model is never judged on one that it has learned).

A feature is a column of every table: 3 x 32 x 32 would be more than the history holds. So the camera is a
small one, which sees 16 x 16 pixels, each the mean of four of the image's.

- From day 30 on a new driver of the camera gives blue, green, red instead of red, green, blue.

A person says some hours later what it was; one in 40 is never looked at.
"""

from __future__ import annotations

import heapq
import os
import random
import uuid
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from driftlog import (
    Ask,
    DriftPolicy,
    GatePolicy,
    Numeric,
    QualityPolicy,
    Recipe,
    RetrainPolicy,
    Task,
    Truth,
)
from examples.cifar10_files import CLASSES, COLOURS, WANTED, NotCifar10, read_images

FOLDER = "CIFAR10_FOLDER"
HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
START_MS = 1_704_067_200_000
"""2024-01-01 00:00 UTC."""
DAYS = 60
A_DAY = 150
SEED = 10
EXCHANGED_DAY = 30
SIDE = 16
VEHICLES = frozenset(map(CLASSES.index, ("airplane", "automobile", "ship", "truck")))
ANIMALS = frozenset(range(len(CLASSES))) - VEHICLES
COLOUR_PIXELS = {
    colour: tuple(f"{colour}{number:03}" for number in range(SIDE * SIDE))
    for colour in ("red", "green", "blue")
}
PIXELS = tuple(name for names in COLOUR_PIXELS.values() for name in names)


def moments(folder: Path | None = None) -> Iterator[Ask | Truth]:
    """Images and what people saw in them, by time. Times are ms since the epoch.

    `folder`: with the six files; the one that CIFAR10_FOLDER names, unless given. Raises NotCifar10.
    """
    classes, images = read_images(folder or _folder())
    if len(classes) < DAYS:
        raise NotCifar10(
            f"{len(classes)} images are none for each of {DAYS} days: wanted is {WANTED}"
        )
    shuffled = np.random.default_rng(SEED).permutation(len(classes))
    rng = random.Random(SEED)  # noqa: S311 - the same data in every run is what is wanted
    waiting: list[tuple[int, str, int]] = []
    time = START_MS
    for number in range(DAYS * A_DAY):
        time += round(rng.expovariate(A_DAY / DAY_MS))
        while waiting and waiting[0][0] <= time:
            yield Truth(*heapq.heappop(waiting))
        day = (time - START_MS) // DAY_MS
        todays = shuffled[day % DAYS :: DAYS]
        image = int(todays[rng.randrange(len(todays))])
        pixels = seen(images[image])
        pixels = pixels[::-1] if day >= EXCHANGED_DAY else pixels
        id_ = str(uuid.uuid5(uuid.NAMESPACE_URL, f"cifar10/{number}"))
        yield Ask(time, id_, dict(zip(PIXELS, pixels.ravel().tolist(), strict=True)))
        wait = 1 + rng.expovariate(1 / 5)
        if rng.random() >= 1 / 40:
            animal = int(int(classes[image]) in ANIMALS)
            heapq.heappush(waiting, (time + round(wait * HOUR_MS), id_, animal))
    while waiting:
        yield Truth(*heapq.heappop(waiting))


def seen(image: NDArray[np.uint8]) -> NDArray[np.float64]:
    """(3, 32, 32) as the small camera gives it: (3, 16, 16), brightness 0 to 255."""
    fours = image.reshape(COLOURS, SIDE, 2, SIDE, 2).astype(np.float64)
    found: NDArray[np.float64] = fours.mean(axis=(2, 4))
    return found


def _folder() -> Path:
    named = os.environ.get(FOLDER)
    if not named:
        raise NotCifar10(f"set {FOLDER} to the folder with {WANTED}")
    return Path(named).expanduser()


task = Task(
    name="cifar10",
    label="image shows an animal",
    doc="Photographs, 16 x 16 pixels in colour. A generated stream: red and blue exchanged from day 30 on.",
    features=tuple(Numeric(name, "Brightness, 0 to 255.") for name in PIXELS),
    label_delay_hours=36,  # 99.9 % are told by then
    prior_score=0.6,
    recipe=Recipe(
        "cnn",
        {"shape": (COLOURS, SIDE, SIDE), "channels": (16, 32), "hidden": 64, "epochs": 12},
        training_days=21,
    ),
    # A single pixel means nothing: each colour of the image is watched as a whole.
    drift=DriftPolicy(window_hours=24, min_rows=100, embeddings=COLOUR_PIXELS),
    retrain=RetrainPolicy(first_labels=1_500, new_labels=450, cooldown_hours=72, growth=1.0),
    # No golden set: images from before the colours were exchanged are no images of today.
    gate=GatePolicy(recent_days=3, max_golden_ratio=None, min_rows=100),
    # Of 768 pixels none knows the future: a test of each would only take its time.
    quality=QualityPolicy(leakage=False),
    source=moments,
)
