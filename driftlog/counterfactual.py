"""What another model would have answered: score logged feature vectors again, beside what was logged."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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

BATCH = 512


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
    by_version: dict[str, Tally] = field(default_factory=dict)


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
) -> Counterfactual:
    """Score every logged prediction of `task` (of the versions `only`, at most `limit`) with `scorer`."""
    result = Counterfactual(version)
    join: LabelJoin[tuple[str, float, float]] = LabelJoin(task.label_delay_ms)
    count = 0
    for batch in _batches(_events(settings, codec, task, on_progress)):
        asked = [e for e in batch if e.type == "PredictionMade"]
        asked = [e for e in asked if not only or e.data["model_version"] in only]
        if limit is not None:
            asked = asked[: max(0, limit - count)]
        count += len(asked)
        scores = scorer.score([e.data["features"] for e in asked])
        matches = []
        for event, other in zip(asked, scores.tolist(), strict=True):
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


def _events(settings: Settings, codec: Codec, task: Task, on_progress: Progress) -> Iterator[Event]:
    topics = [predictions_topic(task.name), labels_topic(task.name)]
    seen = Projector([])
    for event in log.read(settings.bootstrap, codec, topics, on_progress=on_progress):
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
