"""Search for parameters: tree-structured Parzen estimators (Bergstra et al. 2011), by Optuna.

Trial n depends on (seed, n) and on the trials before it, and on nothing else: each is drawn by a sampler of
its own, seeded by both. So a search that was killed goes on from the trials in the log as if it had not been.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np

from models import recipes
from models.dataset import Dataset
from models.gates import DECIMALS, log_loss
from models.recipes import CannotTrain
from models.scorer import Scorer
from models.search.space import Choices, Range, Whole, parse_space
from models.search.time_folds import time_folds
from streams.task import Recipe, Task

FOLDS = 3
STARTUP_TRIALS = 5
"""So many are drawn at random before the estimator takes over."""
COMPLETE, FAILED = "complete", "failed"


@dataclass(frozen=True, slots=True)
class Trial:
    """`values`: mean log-loss of each fold, in the order of time; empty if it failed, for `reason`."""

    number: int
    seed: int
    parameters: Mapping[str, Any]
    values: tuple[float, ...]
    state: str
    reason: str = ""

    @property
    def value(self) -> float | None:
        """What the search makes small."""
        return round(fmean(self.values), DECIMALS) if self.state == COMPLETE else None


def from_event(data: Mapping[str, Any]) -> Trial:
    """The trial that a TrialFinished tells of."""
    parameters = json.loads(data["parameters"])
    values = tuple(data["values"])
    return Trial(data["trial"], data["seed"], parameters, values, data["state"], data["reason"])


def study_id(recipe: Recipe, snapshot: str) -> str:
    """SHA-256 (hex) of all that decides what the trials are: another space or other rows, another study."""
    told = [recipe.name, dict(recipe.parameters), dict(recipe.search), recipe.seed, FOLDS, snapshot]
    return hashlib.sha256(json.dumps(told, sort_keys=True, default=repr).encode()).hexdigest()


def search(
    task: Task, rows: Dataset, done: Sequence[Trial], checkpoints: Path | None = None
) -> Iterator[Trial]:
    """The trials of `task.recipe.search` that are missing after `done`, each as soon as it is finished.

    `rows`: what may be learned from, without golden and recent rows. A trial that cannot train has failed;
    the search goes on.
    """
    recipe = task.recipe
    space = parse_space(recipe.search)
    known = {trial.number: trial for trial in done}
    for number in range(recipe.trials):
        if number in known:
            continue
        seed = trial_seed(recipe.seed, number)
        earlier = [known[n] for n in sorted(known) if n < number]
        parameters = _suggest(space, earlier, seed)
        known[number] = _judge(task, rows, Trial(number, seed, parameters, (), FAILED), checkpoints)
        yield known[number]


def best(trials: Sequence[Trial]) -> Trial:
    """The trial of the least value, of several the first; raises CannotTrain if all failed."""
    complete = [trial for trial in trials if trial.value is not None]
    if not complete:
        reason = trials[-1].reason if trials else "there was none"
        raise CannotTrain(
            f"all {len(trials)} trials of the search failed, the last one so: {reason}"
        )
    return min(complete, key=lambda trial: (trial.value, trial.number))


def trial_seed(seed: int, number: int) -> int:
    """The sampler's seed of a trial, in 0..2^32-1."""
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0])


def _suggest(space: Mapping[str, Range], earlier: Sequence[Trial], seed: int) -> dict[str, Any]:
    try:
        import optuna
    except ImportError:
        raise CannotTrain(
            "a search needs Optuna, which is not installed: install driftlog with its extra 'search'"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    spread = {name: _distribution(range_) for name, range_ in space.items()}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP_TRIALS)
    study = optuna.create_study(sampler=sampler)
    for trial in earlier:
        state = optuna.trial.TrialState.COMPLETE if trial.value is not None else None
        study.add_trial(
            optuna.trial.create_trial(
                params={name: _told(space[name], trial.parameters[name]) for name in space},
                distributions=spread,
                value=trial.value,
                state=state or optuna.trial.TrialState.FAIL,
            )
        )
    asked = study.ask(spread)
    return {name: _meant(space[name], asked.params[name]) for name in space}


def _distribution(range_: Range) -> Any:
    from optuna import distributions

    if isinstance(range_, Choices):
        return distributions.CategoricalDistribution(tuple(range(len(range_.values))))
    kind: Callable[..., Any] = (
        distributions.IntDistribution
        if isinstance(range_, Whole)
        else distributions.FloatDistribution
    )
    return kind(range_.low, range_.high, log=range_.log)


def _told(range_: Range, value: Any) -> Any:
    """A parameter as Optuna knows it: of choices the place. JSON has made lists of tuples meanwhile."""
    if not isinstance(range_, Choices):
        return value
    plain = [json.dumps(each) for each in range_.values]
    return plain.index(json.dumps(value))


def _meant(range_: Range, value: Any) -> Any:
    if not isinstance(range_, Choices):
        return value
    return json.loads(json.dumps(range_.values[value]))  # as it will come back from the log


def _judge(task: Task, rows: Dataset, trial: Trial, checkpoints: Path | None) -> Trial:
    recipe = task.recipe
    parameters = {**recipe.parameters, **trial.parameters}
    values = []
    for number, fold in enumerate(time_folds(rows, FOLDS)):
        learn, judge = rows.where(fold.learn), rows.where(fold.judge)
        try:
            if not len(learn) or not len(judge):
                raise CannotTrain(
                    f"fold {number} has {len(learn)} rows to learn, {len(judge)} to judge"
                )
            data = recipes.fit(task, learn, recipe.name, parameters, recipe.seed, checkpoints)
        except CannotTrain as error:
            return Trial(trial.number, trial.seed, trial.parameters, (), FAILED, str(error))
        scores = Scorer.from_bytes(data).score_columns(judge.columns, len(judge))
        values.append(log_loss(judge.labels, scores))
    return Trial(trial.number, trial.seed, trial.parameters, tuple(values), COMPLETE)
