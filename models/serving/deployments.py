"""Hot swap: follow the registry in the log, load each task's champion, put it in service.

A champion whose artifact is refused changes nothing for callers: the newest one that loads keeps answering.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

import structlog

from models.artifacts import ArtifactRefused, ArtifactStore
from models.registry import RegistryState, Version
from models.scorer import Scorer
from models.serving.cache import WORTH_S, CachedScorer, row_seconds
from models.serving.core import Champion, VectorScorer
from models.serving.lineup import Lineup
from models.serving.service import Desk, Service
from schemas.catalogue import ALERTS
from schemas.event import Event, derive
from streams.log import LogUnavailable
from streams.rollout_state import Traffic
from streams.task import Task

logger = structlog.get_logger()

ALERT_TIMEOUT_S = 60.0
WARM = 3
"""Versions besides the champion that stay loaded: its challenger and the one before it, and one more."""


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


def candidates(state: RegistryState, task: str, waits: bool = True) -> Iterator[Candidate]:
    """Who may answer for `task`, the newest decision first.

    Ends at a version that is not registered: its registration is on its way, in another topic. Who has no
    champion to wait with (not `waits`) passes it over: its registration may be a record that nobody can read.
    """
    for decision in reversed(state.decisions.get(task, [])):
        if not decision.installs:
            continue
        version = state.versions.get(decision.version)
        if version is None:
            if waits:
                return
            continue
        yield Candidate(
            version=decision.version,
            decision=decision.event_id,
            since=decision.since,
            reason=decision.reason,
            path=version.path,
            sha256=version.artifact,
        )


def load(
    store: ArtifactStore,
    task: Task,
    candidate: Candidate,
    cached: Callable[[Scorer], VectorScorer] = lambda scorer: scorer,
) -> Champion:
    """The champion, verified and warm; raises ArtifactRefused. Takes long: not for the event loop.

    `cached` is given the warm scorer for one that may know rows already.
    """
    scorer = Scorer.load(store.path(candidate.path), candidate.sha256)
    if scorer.task != task.name:
        raise ArtifactRefused(f"it is a model of task {scorer.task!r}")
    for feature in scorer.encoder.features:
        if task.kinds.get(feature.name) != feature.kind:
            raise ArtifactRefused(
                f"it reads {feature.name!r} as {feature.kind}, which the task does not serve"
            )
    scorer.score([{}])
    return Champion(
        *(candidate.version, cached(scorer), candidate.since, candidate.reason, scorer.threshold)
    )


@dataclass(slots=True)
class Swapper:
    """Brings each desk's champion in line with the registry."""

    service: Service
    store: ArtifactStore
    cache: int = 0
    """Rows whose scores are kept, of each version that takes long for one (see `models.serving.cache`)."""
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
                desk.champion = replace(serving, since=candidate.since, reason=candidate.reason)
            else:
                try:
                    champion = await self._loaded(desk, candidate)
                except ArtifactRefused as error:
                    self._refuse(desk, candidate, str(error))
                    continue
                except Exception as error:  # no file, however odd, may end the service
                    self._refuse(desk, candidate, repr(error))
                    continue
                self._keep(desk, serving)
                desk.champion = champion
                self.service.metrics.swaps.labels(task).inc()
                logger.info("champion in service", task=task, model_version=champion.version)
            _forget_idle(desk)
            self.service.metrics.model(task, candidate.version, candidate.since)
            if index == 0 and task in self._alerted:
                message = f"{candidate.version}, the newest champion, serves"
                self._send("AlertResolved", task, self._alerted.pop(task), message)
            return

    async def line_up(
        self, desk: Desk, now: Traffic | None, versions: Mapping[str, Version]
    ) -> None:
        """Put beside the champion who belongs there now, loaded and warm before any request sees it.

        A challenger whose file is refused takes no part: the champion answers everything.
        """
        task, standing = desk.task.name, desk.lineup
        version = versions.get(now.version) if now is not None else None
        if now is None or version is None:
            self._stand_alone(desk)
            return
        if standing is not None and standing.traffic == now:
            return
        key = f"{now.id} {now.version}"
        candidate = Candidate(now.version, key, 0, "", version.path, version.artifact)
        if key in self.refused:
            self._stand_alone(desk)
            return
        try:
            challenger = await self._loaded(desk, candidate)
        except Exception as error:  # no file, however odd, may end the service
            self.refused.add(key)
            self._stand_alone(desk)
            self.service.metrics.refused.labels(task).inc()
            logger.error(
                "challenger refused", task=task, model_version=now.version, reason=repr(error)
            )
            return
        self._keep(desk, challenger)
        desk.lineup = Lineup(now, challenger)
        self.service.metrics.routed.labels(task).set(now.share)
        logger.info(
            "rollout", task=task, model_version=now.version, share=now.share, shadow=now.shadow
        )

    async def stay_warm(
        self, desk: Desk, back: str | None, versions: Mapping[str, Version]
    ) -> None:
        """Have the version that a return leads to in memory, also after a restart."""
        version = versions.get(back or "")
        if version is None or version.version in desk.warm or not desk.task.rollout.weighs_evidence:
            return
        key = f"warm {version.version}"
        candidate = Candidate(version.version, key, 0, "", version.path, version.artifact)
        if key in self.refused:
            return
        try:
            self._keep(desk, await self._loaded(desk, candidate))
        except Exception as error:  # a return will say more, if there is one
            self.refused.add(key)
            logger.warning("not warm", model_version=version.version, reason=repr(error))

    def _stand_alone(self, desk: Desk) -> None:
        desk.lineup = None
        self.service.metrics.routed.labels(desk.task.name).set(0)

    async def _loaded(self, desk: Desk, candidate: Candidate) -> Champion:
        """From memory if it is warm; raises like `load`."""
        warm = desk.warm.get(candidate.version)
        if warm is not None:
            return replace(warm, since=candidate.since, reason=candidate.reason)
        cached = partial(self._cached, desk.task.name)
        return await asyncio.to_thread(load, self.store, desk.task, candidate, cached)

    def _cached(self, task: str, scorer: Scorer) -> VectorScorer:
        if not self.cache or row_seconds(scorer) < WORTH_S:
            return scorer
        return CachedScorer(scorer, self.cache, partial(self.service.metrics.cached, task))

    def _keep(self, desk: Desk, version: Champion | None) -> None:
        """Stay warm: the newest few, of tasks that roll out or watch."""
        if version is None or not desk.task.rollout.weighs_evidence:
            return
        desk.warm.pop(version.version, None)
        desk.warm[version.version] = version
        while len(desk.warm) > WARM:
            del desk.warm[next(iter(desk.warm))]

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


def _forget_idle(desk: Desk) -> None:
    """Versions that are warm and answer nobody keep no scores."""
    used = {id(desk.champion and desk.champion.scorer)}
    used.add(id(desk.lineup and desk.lineup.challenger.scorer))
    for version in desk.warm.values():
        if isinstance(version.scorer, CachedScorer) and id(version.scorer) not in used:
            version.scorer.forget()
