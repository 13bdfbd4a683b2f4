"""Hot swap: follow the registry in the log, load each task's champion, put it in service.

A champion whose artifact is refused changes nothing for callers: the newest one that loads keeps answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field

import structlog

from models.artifacts import ArtifactRefused, ArtifactStore
from models.registry import RegistryState
from models.scorer import Scorer
from models.serving.core import Champion
from models.serving.service import Desk, Service
from schemas.catalogue import ALERTS
from schemas.event import Event, derive
from streams.log import LogUnavailable
from streams.task import Task

logger = structlog.get_logger()

ALERT_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class Candidate:
    """A version that a decision made champion, and the file that it names."""

    version: str
    decision: str
    """event_id of the decision."""
    since: int
    reason: str
    path: str
    sha256: str


def candidates(state: RegistryState, task: str) -> Iterator[Candidate]:
    """Who may answer for `task`, the newest decision first.

    Ends at a version that is not registered yet: its registration is on its way, in another topic.
    """
    for decision in reversed(state.decisions.get(task, [])):
        if not decision.installs:
            continue
        version = state.versions.get(decision.version)
        if version is None:
            return
        yield Candidate(
            version=decision.version,
            decision=decision.event_id,
            since=decision.since,
            reason=decision.reason,
            path=version.path,
            sha256=version.artifact,
        )


def load(store: ArtifactStore, task: Task, candidate: Candidate) -> Champion:
    """The champion, verified and warm; raises ArtifactRefused. Takes long: not for the event loop."""
    scorer = Scorer.load(store.path(candidate.path), candidate.sha256)
    if scorer.task != task.name:
        raise ArtifactRefused(f"it is a model of task {scorer.task!r}")
    for feature in scorer.encoder.features:
        kind = "double" if feature.categories is None else "string"
        if task.vector.get(feature.name) != kind:
            raise ArtifactRefused(
                f"it reads {feature.name!r} as {kind}, which the task does not serve"
            )
    scorer.score([{}])
    return Champion(candidate.version, scorer, candidate.since, candidate.reason, scorer.threshold)


@dataclass(slots=True)
class Swapper:
    """Brings each desk's champion in line with the registry."""

    service: Service
    store: ArtifactStore
    refused: set[str] = field(default_factory=set)
    """Decisions of which the artifact was refused."""
    _alerted: dict[str, Candidate] = field(default_factory=dict)
    """By task: what the alert that stands is about."""
    _sending: set[asyncio.Task[None]] = field(default_factory=set)

    async def reconcile(self, desk: Desk, found: Iterator[Candidate]) -> None:
        """Serve the first of `found` (newest decision first) that loads."""
        task = desk.task.name
        for index, candidate in enumerate(found):
            if candidate.decision in self.refused:
                continue
            serving = desk.champion
            if serving is not None and serving.version == candidate.version:
                desk.champion = Champion(
                    serving.version, serving.scorer, candidate.since, candidate.reason
                )
            else:
                try:
                    champion = await asyncio.to_thread(load, self.store, desk.task, candidate)
                except ArtifactRefused as error:
                    self._refuse(desk, candidate, str(error))
                    continue
                except Exception as error:  # no file, however odd, may end the service
                    self._refuse(desk, candidate, repr(error))
                    continue
                desk.champion = champion
                self.service.metrics.swaps.labels(task).inc()
                logger.info("champion in service", task=task, model_version=champion.version)
            self.service.metrics.model(task, candidate.version, candidate.since)
            if index == 0 and task in self._alerted:
                message = f"{candidate.version}, the newest champion, serves"
                self._send("AlertResolved", task, self._alerted.pop(task), message)
            return

    async def settle(self) -> None:
        """Wait until the alerts so far are in the log, or given up."""
        if self._sending:
            await asyncio.wait(self._sending)

    def _refuse(self, desk: Desk, candidate: Candidate, why: str) -> None:
        task = desk.task.name
        self.refused.add(candidate.decision)
        self._alerted.setdefault(task, candidate)
        self.service.metrics.refused.labels(task).inc()
        stays = desk.champion.version if desk.champion else "the one before it"
        logger.error("artifact refused", task=task, model_version=candidate.version, reason=why)
        message = f"artifact of {candidate.version} refused: {why}; {stays} serves"
        self._send("AlertRaised", task, candidate, message)

    def _send(self, kind: str, task: str, candidate: Candidate, message: str) -> None:
        alert = derive(
            ALERTS,
            kind,
            task,
            "serving",
            candidate.decision,
            time=candidate.since,
            caused_by=candidate.decision,
            task=task,
            subject="serving",
            message=message,
        )
        sending = asyncio.create_task(self._append(alert))
        self._sending.add(sending)
        sending.add_done_callback(self._sending.discard)

    async def _append(self, alert: Event) -> None:
        """A swap does not wait for this."""
        if self.service.log is None:
            return
        try:
            await self.service.log.append([alert], ALERT_TIMEOUT_S)
        except LogUnavailable as error:
            logger.error("alert not recorded", reason=str(error))
