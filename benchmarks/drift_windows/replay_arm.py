"""The replay engine on what the live services left behind: every drift fold, from zero to what it stated.

Input windows come from payloads by columns, scoring and the retrain policy from the sketches and scores in
the log. Fingerprints must be those of the live run, and the scores that follow from the replayed sketches
those of the truth.
"""

from __future__ import annotations

import os
from collections.abc import Iterable

from benchmarks.drift_windows.driftlog_arm import task_of
from benchmarks.drift_windows.job import Job, Score, finish, now, wait_for_go
from driftlog.verify import Check, check_folds
from infra.settings import Settings
from schemas.catalogue import DRIFT_SCORES, MODEL_VERSIONS
from schemas.event import Event
from streams import log, replay
from streams.fold import Projector
from streams.folds import control_folds
from streams.scoring import Scoring
from streams.task import Task
from streams.window_replay import verify_windows


def main() -> None:
    job = Job.read()
    settings, task = Settings.from_env(os.environ), task_of(job)
    codec = log.connect_codec(settings, [task])
    wait_for_go()
    began = now()
    sketches: list[Event] = []
    stated = replay.stated_hashes(settings.bootstrap, codec)
    verdicts = verify_windows(settings.bootstrap, codec, [task], stated, on_said=sketches.extend)
    checks = check_folds(settings, codec, control_folds([task], settings.partitions))
    ended = now()
    met = sum(verdict.events for verdict in verdicts)
    wrong = [v.fold for v in verdicts if not v.equal] + failed(checks)
    if wrong or len(verdicts) != settings.partitions or met < job.events:
        raise SystemExit(f"{met} events replayed; not as the live run stated: {', '.join(wrong)}")
    models = log.read(settings.bootstrap, codec, [MODEL_VERSIONS])
    finish(job, began, ended, scores(task, settings.partitions, [*models, *sketches]))


def failed(checks: Iterable[Check]) -> list[str]:
    return [f"{check.name}: {check.found}" for check in checks if not check.passed]


def scores(task: Task, partitions: int, events: Iterable[Event]) -> list[Score]:
    """The newest score of each window and column that follows from these models and sketches."""
    projector = Projector([Scoring(task, partitions)])
    newest: dict[tuple[str, int, str], tuple[int, float]] = {}
    for event in sorted(events, key=lambda event: event.time):
        for answer in projector.react(event):
            if answer.topic == DRIFT_SCORES:
                data = answer.data
                key = data["model_version"], data["window_start"], data["feature"]
                newest[key] = max(newest.get(key, (-1, 0.0)), (data["revision"], data["psi"]))
    return [(*key, psi) for key, (_, psi) in newest.items()]


if __name__ == "__main__":
    main()
