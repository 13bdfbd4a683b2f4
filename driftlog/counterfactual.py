"""What another model would have answered: score logged feature vectors again, beside what was logged."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from infra.settings import Settings
from models.registry import RegistryState
from models.scorer import Scorer
from schemas.catalogue import labels_topic, predictions_topic
from schemas.codec import Codec
from schemas.event import Event
from streams import log
from streams.fold import Projector
from streams.join import LabelJoin
from streams.outcomes import log_loss
from streams.replay import Progress
from streams.task import Task

BATCH = 8192
"""Events that are scored at a time: enough for a device to be worth it, where one is in use."""


@dataclass(slots=True)
class Tally:
    """Labelled predictions of one logged version: sums of log-loss as logged and as re-scored."""

    count: int = 0
    identical: int = 0
    labelled: int = 0
    logged_loss: float = 0.0
    other_loss: float = 0.0
    largest_difference: float = 0.0


@dataclass(slots=True)
class Counterfactual:
    """Per version that answered: what the log says and what `model` would have said."""

    model: str
    events: int = 0
    """Predictions and labels read."""
    by_version: dict[str, Tally] = field(default_factory=dict)

    def summary(self) -> dict[str, float]:
        """Its sums over all versions that answered, for machines."""
        tallies = self.by_version.values()
        labelled = sum(tally.labelled for tally in tallies)
        numbers = {
            "predictions": float(sum(tally.count for tally in tallies)),
            "identical": float(sum(tally.identical for tally in tallies)),
            "labelled": float(labelled),
        }
        if labelled:
            numbers["log_loss_logged"] = sum(t.logged_loss for t in tallies) / labelled
            numbers["log_loss_rescored"] = sum(t.other_loss for t in tallies) / labelled
        return numbers


def load_version(settings: Settings, registry: RegistryState, version: str) -> Scorer:
    """Raises KeyError for an unknown version, ArtifactRefused if its file is not what was registered."""
    known = registry.versions[version]
    return Scorer.load(settings.artifacts / known.path, known.artifact)


def rescore(
    settings: Settings,
    codec: Codec,
    task: Task,
    version: str,
    scorer: Scorer,
    only: Sequence[str] = (),
    limit: int | None = None,
    on_progress: Progress = lambda done, total: None,
    to: log.Offsets | None = None,
    keep: Callable[[Event], bool] = lambda event: True,
    on_scored: Callable[[list[tuple[Event, float]]], None] = lambda scored: None,
) -> Counterfactual:
    """Score every logged prediction of `task` (of the versions `only`, at most `limit`) with `scorer`.

    The log is read up to the offsets `to`; events that `keep` refuses do not count. `on_scored` gets each
    prediction with its other score, batch by batch.
    """
    result = Counterfactual(version)
    join: LabelJoin[tuple[str, float, float]] = LabelJoin(task.label_delay_ms)
    count = 0
    for batch in _batches(filter(keep, _events(settings, codec, task, to, on_progress))):
        result.events += len(batch)
        asked = [e for e in batch if e.type == "PredictionMade"]
        asked = [e for e in asked if not only or e.data["model_version"] in only]
        if limit is not None:
            asked = asked[: max(0, limit - count)]
        count += len(asked)
        scores = scorer.score([e.data["features"] for e in asked])
        scored = list(zip(asked, scores.tolist(), strict=True))
        on_scored(scored)
        matches = []
        for event, other in scored:
            logged, answered = event.data["score"], event.data["model_version"]
            tally = result.by_version.setdefault(answered, Tally())
            tally.count += 1
            tally.identical += logged == other
            tally.largest_difference = max(tally.largest_difference, abs(logged - other))
            matches.append(join.prediction(event.id, event.time, (answered, logged, other)))
        for event in batch:
            if event.type == "LabelObserved":
                data = event.data
                matches.append(join.label(data["prediction_id"], event.time, data["label"]))
        for match in matches:
            if match:
                answered, logged, other = match.payload
                tally = result.by_version[answered]
                tally.labelled += 1
                tally.logged_loss += log_loss(logged, match.label)
                tally.other_loss += log_loss(other, match.label)
    return result


def topics_of(task: Task) -> list[str]:
    """What is read to score a task's predictions again."""
    return [predictions_topic(task.name), labels_topic(task.name)]


def _events(
    settings: Settings, codec: Codec, task: Task, to: log.Offsets | None, on_progress: Progress
) -> Iterator[Event]:
    seen = Projector([])
    for event in log.read(
        settings.bootstrap, codec, topics_of(task), to=to, on_progress=on_progress
    ):
        if seen.fresh(event):
            yield event


def _batches(events: Iterator[Event]) -> Iterator[list[Event]]:
    batch: list[Event] = []
    for event in events:
        batch.append(event)
        if len(batch) == BATCH:
            yield batch
            batch = []
    yield batch
