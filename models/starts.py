"""Which weights a training starts from: told by the log as a version and a hash, found in the store.

A task may say `pretrained="champion"` or `"version:NAME"`. What events tell of it is the version and the
SHA-256 of its file, so that a retraining from the log starts from the same weights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from models.artifacts import ArtifactStore
from models.recipes import CannotTrain, parameters_of
from models.recipes.transfer import CHAMPION, VERSION, file_sha256
from models.registry import RegistryState, Request, Version
from streams.task import Task

NAME, HASH = "pretrained", "pretrained_sha256"


def told(
    task: Task,
    state: RegistryState,
    champion: str | None,
    started: Mapping[str, Any] | None = None,
) -> Task:
    """The task as its events tell of it: no 'champion', and the SHA-256 of what it starts from.

    `champion`: the version to beat; while there is only the cold start's, a training starts by chance.
    `started`: the parameters of the TrainingStarted of an earlier try: its start stands. Raises CannotTrain.
    """
    given = task.recipe.parameters
    if not _asked(task):
        return task
    if started is not None and NAME in started:
        return _with(task, {n: started[n] for n in (NAME, HASH, "freeze") if n in started})
    name = str(given[NAME])
    if name == CHAMPION:
        version = state.versions.get(champion) if champion else None
        if version is None or version.recipe == "constant":
            return _with(task, {NAME: "", HASH: "", "freeze": 0})
        name = VERSION + version.version
    elif name.startswith(VERSION):
        version = _known(state, name)
        _insist_unseen(state, task, version, champion)
    else:
        return _with(task, {HASH: given.get(HASH) or file_sha256(name)})
    insisted = given.get(HASH)
    if insisted and insisted != version.artifact:
        raise CannotTrain(
            f"pretrained={name!r}: its SHA-256 is {version.artifact}, pretrained_sha256 says {insisted}"
        )
    return _with(task, {NAME: name, HASH: version.artifact})


def located(task: Task, state: RegistryState, store: ArtifactStore) -> Task:
    """The task with the file of the version that it names: what a recipe can read. Raises CannotTrain."""
    if not _asked(task):
        return task
    name = str(task.recipe.parameters[NAME])
    if not name.startswith(VERSION):
        return task
    version = _known(state, name)
    return _with(task, {NAME: str(store.path(version.path)), HASH: version.artifact})


def _asked(task: Task) -> bool:
    recipe = task.recipe
    return bool(recipe.parameters.get(NAME)) and NAME in parameters_of(recipe.name)


def _known(state: RegistryState, name: str) -> Version:
    version = state.versions.get(name.removeprefix(VERSION))
    if version is None:
        raise CannotTrain(f"pretrained={name!r}: the log knows no such version")
    return version


def _insist_unseen(
    state: RegistryState, task: Task, version: Version, champion: str | None
) -> None:
    """Rows that judge the result are those that the champion has not learned from: nor may the start have."""
    if version.task != task.name or version.recipe == "constant":
        return
    until, best = _learned_until(state, version), None
    if champion is not None and champion in state.versions:
        best = _learned_until(state, state.versions[champion])
    if until is None or best is None or until > best:
        raise CannotTrain(
            f"pretrained={VERSION + version.version!r} has learned from rows that would judge the result:"
            f" start from the champion, or from a version before it"
        )


def _learned_until(state: RegistryState, version: Version) -> int | None:
    request = state.requests.get(version.request_id, Request())
    taken = request.step("SnapshotTaken", purpose="training")
    return int(taken["to_time"]) if taken else None


def _with(task: Task, parameters: Mapping[str, Any]) -> Task:
    recipe = task.recipe
    return replace(task, recipe=replace(recipe, parameters={**recipe.parameters, **parameters}))
