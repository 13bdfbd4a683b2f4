"""The trainer: answers each retrain request with a model, and with a decision about it.

Each step looks first whether the log already tells of it. So a trainer that died between any two lines
goes on where it was: the same ids, the same version, one registration.
"""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import structlog

from models import golden, lineage, recipes, starts, training, training_checks
from models.artifacts import ArtifactRefused, ArtifactStore
from models.dataset import Dataset
from models.gates import Verdict
from models.history import HistoryUnavailable
from models.lineage import Artifact, Run
from models.recipes import CannotTrain
from models.registry import Request, champion, next_version
from models.registry_log import RegistryLog, Stopped
from models.scorer import Scorer
from models.search.study import best, from_event, search, study_id
from models.snapshot_file import topics
from models.snapshots import Snapshots
from models.trainer_metrics import TrainerMetrics
from streams.quarantine import Quarantine
from streams.task import Task

logger = structlog.get_logger()
LOOK_S = 0.25


class Trainer:
    """Answers requests one by one, in the order of the log, until `stop` is set."""

    def __init__(
        self,
        tasks: Sequence[Task],
        log: RegistryLog,
        snapshots: Snapshots,
        store: ArtifactStore,
        metrics: TrainerMetrics,
        stop: threading.Event,
    ) -> None:
        self._tasks = {task.name: task for task in tasks}
        self._log = log
        self._snapshots = snapshots
        self._store = store
        self._metrics = metrics
        self._stop = stop
        self.interruptible = False
        """Whether a signal handler may raise `Stopped`: never while something is being said."""

    def start(self) -> None:
        """Read the log, and give every task that has no version yet its cold-start model."""
        self._log.catch_up()
        for task in self._tasks.values():
            if champion(self._log.state, task.name) is None:
                self._log.say(lineage.cold_start(task, _now_ms()))
                self._answer(lineage.cold_start_id(task.name))

    def run(self) -> None:
        """Raises Stopped if it is told to stop in the middle of a request."""
        while not self._stop.is_set():
            self._log.catch_up()
            pending = self.pending()
            self._metrics.pending.set(len(pending))
            if pending:
                self._answer(pending[0])
            else:
                self._stop.wait(LOOK_S)

    def pending(self) -> list[str]:
        """Ids of the requests of our tasks that have no outcome, in the order of the log."""
        return [
            request_id
            for request_id, request in self._log.state.requests.items()
            if request.asked and request.asked["task"] in self._tasks and request.ended is None
        ]

    def _answer(self, request_id: str) -> None:
        request = self._request(request_id)
        if request.ended or request.asked is None:
            return
        task = self._tasks[request.asked["task"]]
        version = _named(request) or next_version(self._log.state, task.name)
        run = Run(task, request.asked, version)
        logger.info("request taken up", request_id=request_id, model_version=version)
        began = time.monotonic()
        if request_id == lineage.cold_start_id(task.name):
            self._cold_start(run)
        else:
            self._train_or_fail(run)
        shutil.rmtree(self._store.checkpoints(version), ignore_errors=True)
        outcome, _ = self._request(request_id).ended or ("", {})
        self._metrics.answered(task.name, outcome, time.monotonic() - began)
        logger.info("request answered", request_id=request_id, outcome=outcome)

    def _cold_start(self, run: Run) -> None:
        now = int(run.asked["event_time"])
        registered = self._step(run, "ModelRegistered")
        if registered is None:
            stored = self._store.put_model(recipes.constant(run.task, None, 0))
            parameters = {"score": run.task.prior_score}
            artifact = Artifact(stored, "constant", parameters, 0, training.environment())
            event = run.registered(now, artifact, caused_by=run.request_id)
            self._log.say(event)
            registered = event.data
        self._log.say(run.decided(now, registered, None, Verdict(True, (), "cold start")))

    def _train_or_fail(self, run: Run) -> None:
        try:
            self._train(run)
            return
        except (CannotTrain, HistoryUnavailable, ArtifactRefused) as error:
            reason = str(error)
        except Exception as error:
            # A request that makes us stumble must not make us stumble for ever.
            logger.exception("training failed", request_id=run.request_id)
            reason = f"{type(error).__name__}: {error}"
        line = " ".join(reason.split())[:500]
        logger.warning("training failed", request_id=run.request_id, reason=line)
        self._log.say(run.training_failed(self._event_time(run), line))

    def _train(self, run: Run) -> None:
        snapshot, rows = self._training_set(run)
        golden_set, golden_rows = self._golden_set(run, snapshot, rows)
        best = self._champion(run.task)
        run = self._with_start(run, best)
        self._insist_on_quality(run, snapshot, rows, best)
        if run.task.recipe.search:
            run = self._searched(run, snapshot, rows)
        started = self._step(run, "TrainingStarted")
        if started is None:
            event = run.training_started(snapshot)
            self._log.say(event)
            started = event.data
        began = time.monotonic()
        with self._interrupted(), self._metrics.training(run.task.name):
            until = int(snapshot["to_time"])
            trained = training.train(
                *(self._located(run.task), rows, until, best, golden_rows, run.version),
                clock=time.thread_time_ns,
                checkpoints=self._store.checkpoints(run.version),
                tried_since=run.asked.get("tried_since", ()),
            )
            stored = self._store.put_model(trained.onnx)
        duration_ms = int((time.monotonic() - began) * 1000)
        now = self._event_time(run)
        recipe = run.task.recipe
        artifact = Artifact(
            *(stored, recipe.name, recipe.parameters, recipe.seed, training.environment()),
            metrics=trained.metrics,
            reference=trained.reference,
            reference_count=trained.reference_count,
            calibration=trained.calibration,
            estimate_errors=trained.estimate_errors,
        )
        finished = run.training_finished(now, started, duration_ms, trained.metrics)
        registered = run.registered(
            now,
            artifact,
            caused_by=finished.id,
            parent=best.version if best else None,
            snapshot=snapshot["snapshot"],
            golden=golden_set,
        )
        for event in (finished, registered):
            if self._step(run, event.type) is None:
                self._log.say(event)
        known = self._step(run, "ModelRegistered")
        if known and known["artifact"] != stored.sha256:
            raise CannotTrain(
                f"{run.version} was registered with file {known['artifact'][:12]}, and training again gave"
                f" {stored.sha256[:12]}: what was measured is not what would answer"
            )
        serving = champion(self._log.state, run.task.name)
        previous = serving.version if serving else None
        self._log.say(run.decided(now, registered.data, previous, trained.verdict))

    def _training_set(self, run: Run) -> tuple[Mapping[str, Any], Dataset]:
        """The snapshot of the request: as it was taken before, or taken now."""
        taken = self._step(run, "SnapshotTaken", purpose="training")
        if taken is None:
            offsets = self._log.end_offsets(topics(run.task))
            with self._interrupted():
                kept_out = self._log.state_of(Quarantine(run.task).name)
                cut = self._snapshots.take(run, offsets, self._pause, kept_out)
            self._log.say(run.snapshot_taken(cut, "training"))
            taken = self._step(run, "SnapshotTaken", purpose="training")
            assert taken is not None
        return taken, self._snapshots.load(run.task, taken)

    def _insist_on_quality(
        self,
        run: Run,
        snapshot: Mapping[str, Any],
        rows: Dataset,
        best: training.Champion | None,
    ) -> None:
        """Raises CannotTrain if the training set is not what it must be, as the log tells or is told now."""
        checked = self._step(run, "QualityChecked")
        if checked is None:
            if len(rows) < training.MIN_FIT_ROWS:
                return  # the training says so
            with self._interrupted():
                fit = training.fit_and_score(self._located(run.task))
                before = self._feature_aucs(best)
                checks = training_checks.training_checks(run.task, rows, fit, before)
            event = run.checked(snapshot, checks)
            self._log.say(event)
            checked = event.data
        reason = training_checks.refusal(checked)
        if reason is not None:
            raise CannotTrain(reason)

    def _feature_aucs(self, best: training.Champion | None) -> dict[str, float]:
        """Of the training set of the version to beat."""
        known = self._log.state.versions.get(best.version) if best else None
        request = self._request(known.request_id) if known else Request()
        return training_checks.feature_aucs(request.step("QualityChecked"))

    def _searched(self, run: Run, snapshot: Mapping[str, Any], rows: Dataset) -> Run:
        """The run with the parameters that the search found; each trial that is not in the log is made."""
        recipe, until = run.task.recipe, int(snapshot["to_time"])
        study = study_id(recipe, snapshot["snapshot"])
        trials = [
            from_event(data)
            for data in self._request(run.request_id).all_of("TrialFinished", study=study)
        ]
        learnable = training.before_recent(run.task, rows, until)
        checkpoints = self._store.checkpoints(run.version)
        missing = search(self._located(run.task), learnable, trials, checkpoints)
        while True:
            with self._interrupted(), self._metrics.training(run.task.name):
                trial = next(missing, None)
            if trial is None:
                break
            self._log.say(run.trial_finished(self._event_time(run), snapshot, trial))
            trials.append(trial)
        found = {**recipe.parameters, **best(trials).parameters}
        return replace(run, task=replace(run.task, recipe=replace(recipe, parameters=found)))

    def _golden_set(
        self, run: Run, training_set: Mapping[str, Any], rows: Dataset
    ) -> tuple[str | None, Dataset | None]:
        """Hash and rows of the task's golden set: cut now if it is due (see `models.golden`)."""
        name = run.task.name
        known = self._log.state.golden.get(name)
        cut_before = self._step(run, "SnapshotTaken", purpose="golden") is not None
        if not cut_before and golden.due(run.task.gate, known, run.asked):
            cut = self._snapshots.take_golden(run, training_set, rows)
            replaced = known["snapshot"] if known else None
            if cut is not None and cut.sha256 != replaced:
                self._log.say(run.snapshot_taken(cut, "golden", replaced))
        taken = self._log.state.golden.get(name)
        if taken is None:
            return None, None
        return taken["snapshot"], self._snapshots.load(run.task, taken)

    def _champion(self, task: Task) -> training.Champion | None:
        """The version to beat, ready to score; None if its file cannot be used: then the prior stands in."""
        state = self._log.state
        decision = champion(state, task.name)
        version = state.versions.get(decision.version) if decision else None
        if version is None:
            return None
        try:
            scorer = Scorer.load(self._store.path(version.path), version.artifact)
        except ArtifactRefused as error:
            logger.warning("champion refused", model_version=version.version, reason=str(error))
            return None
        if not set(scorer.encoder.names) <= set(task.vector):
            logger.warning("champion reads what the task lost", model_version=version.version)
            return None
        request = state.requests.get(version.request_id, Request())
        snapshot = request.step("SnapshotTaken", purpose="training")
        until = int(snapshot["to_time"]) if snapshot else None
        return training.Champion(version.version, scorer, until, version.bytes)

    def _with_start(self, run: Run, best: training.Champion | None) -> Run:
        """The run with the weights that it starts from as its events tell of them."""
        started = self._step(run, "TrainingStarted")
        known = json.loads(started["parameters"]) if started else None
        task = starts.told(run.task, self._log.state, best.version if best else None, known)
        return replace(run, task=task)

    def _located(self, task: Task) -> Task:
        return starts.located(task, self._log.state, self._store)

    def _event_time(self, run: Run) -> int:
        """Event time (ms) of what happens now; never before the request."""
        return max(int(run.asked["event_time"]), self._log.event_time(run.task, _now_ms()))

    def _request(self, request_id: str) -> Request:
        return self._log.state.requests.get(request_id, Request())

    def _step(self, run: Run, type_: str, **fields: Any) -> Mapping[str, Any] | None:
        return self._request(run.request_id).step(type_, **fields)

    @contextmanager
    def _interrupted(self) -> Iterator[None]:
        """Where a signal may break in: nothing is being said, and all of it can be done again."""
        self._pause(0)
        self.interruptible = True
        try:
            yield
        finally:
            self.interruptible = False

    def _pause(self, seconds: float) -> None:
        if self._stop.wait(seconds):
            raise Stopped


def _named(request: Request) -> str | None:
    """The version that an earlier try has named."""
    steps = (request.step("ModelRegistered"), request.step("TrainingStarted"))
    return next((str(step["model_version"]) for step in steps if step), None)


def _now_ms() -> int:
    return int(time.time() * 1000)
