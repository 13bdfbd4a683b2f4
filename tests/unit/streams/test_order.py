"""What a fold holds depends on what each partition said, not on how the partitions were interleaved."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from schemas.event import Event
from streams.features import FeatureFold
from streams.fold import Projector
from streams.outcomes import OutcomeWindows
from tests.unit.streams.build import DAY, HOUR, TASK, label, prediction

PARTITIONS = 2


def histories(rng: random.Random) -> list[list[Event]]:
    """Two partitions of predictions and two of labels, in time order; labels come early, late, or twice."""
    predictions: list[list[Event]] = [[], []]
    told: list[list[tuple[int, str]]] = [[], []]
    for n, time in enumerate(sorted(rng.randrange(2 * DAY) for _ in range(60))):
        partition = rng.randrange(2)
        made = predictions[partition]
        made.append(
            prediction(
                f"p{n}", time, partition=partition, offset=len(made), carrier=rng.choice("UV")
            )
        )
        for _ in range(rng.choice((0, 1, 1, 1, 2))):
            told[n % 2].append((time + rng.randrange(10 * HOUR), f"p{n}"))  # the delay is 6 hours
    labels = []
    for partition, known in enumerate(told):
        ordered = enumerate(sorted(known))
        labels.append(
            [
                label(of, time, offset % 2, partition=partition, offset=offset)
                for offset, (time, of) in ordered
            ]
        )
    return [*predictions, *labels]


def distinct(event: Event) -> Event:
    """A second label of a prediction is an event of its own."""
    assert event.at is not None
    return Event(event.topic, event.type, {**event.data, "event_id": str(event.at)}, event.at)


def folded(order: list[Event]) -> dict[str, str]:
    projector = Projector([FeatureFold(TASK, PARTITIONS), OutcomeWindows(TASK, PARTITIONS)])
    for event in order:
        projector.react(event if event.type == "PredictionMade" else distinct(event))
    return {fold.name: projector.fingerprint(fold.name) for fold in projector.folds}


def shuffled(sequences: list[list[Event]], rng: random.Random) -> list[Event]:
    """Any interleaving in which no partition is more than some hours behind the others."""
    waiting = [list(reversed(sequence)) for sequence in sequences]
    order: list[Event] = []
    while any(waiting):
        oldest = min(queue[-1].time for queue in waiting if queue)
        ready = [queue for queue in waiting if queue and queue[-1].time <= oldest + 12 * HOUR]
        order.append(rng.choice(ready).pop())
    return order


@given(st.integers(0, 10_000))
def test_late_and_repeated_labels_leave_the_same_state_in_any_order(seed: int) -> None:
    rng = random.Random(seed)
    sequences = histories(rng)
    assert folded(shuffled(sequences, rng)) == folded(shuffled(sequences, rng))
