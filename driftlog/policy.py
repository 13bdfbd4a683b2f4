"""Another policy for a task, from `group.field=value` words: what a user wants to try on the log."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, get_type_hints

from driftlog.task_settings import check_settings
from streams.task import Fairness, Task, TaskError

GROUPS = ("drift", "retrain", "gate")
NOT_IN_THE_LOG = {
    "gate.recent_days": "it decides which rows a challenger is judged on, which only a training can tell",
    "gate.golden_share": "it decides which rows are golden, which was settled with the first training",
    "retrain.since_change": "it decides which rows a challenger learns from, which only a training can tell",
    "gate.golden_days": "it decides when a golden set is cut anew, which only a training can do",
}
WITHOUT_REFERENCE = frozenset(("drift.alpha", "drift.min_psi", "drift.grace_minutes"))
"""Settings of the drift policy that leave the references of the models as they are."""
WITHOUT_SKETCHES = frozenset(("drift.alpha", "drift.min_psi", "drift.min_rows"))
"""Settings of the drift policy that leave the logged windows as they are."""


class PolicyError(ValueError):
    """A setting that cannot be tried; the message says which, and what to write instead."""


def with_policy(
    task: Task, words: Sequence[str], *, from_log: bool = True
) -> tuple[Task, dict[str, str]]:
    """The task under the policy that `words` ('retrain.votes=1') ask for, and what that changes.

    `from_log`: logged models are judged again, so only what a log can tell may differ. Raises PolicyError
    for an unknown field, a value of the wrong type or out of range, or a setting that a log cannot tell the
    consequences of.
    """
    asked: dict[str, dict[str, Any]] = {group: {} for group in GROUPS}
    for word in words:
        group, name, value = _parsed(task, word)
        asked[group][name] = value
    try:
        changed = dataclasses.replace(
            task,
            **{g: dataclasses.replace(getattr(task, g), **fields) for g, fields in asked.items()},
        )
    except TaskError as error:
        raise PolicyError(str(error)) from error
    named = {f"{group}.{name}" for group, fields in asked.items() for name in fields}
    for problem in check_settings(changed):
        if problem.field in named:
            raise PolicyError(str(problem))
    differs = {}
    for setting in sorted(named):
        before, now = _value(task, setting), _value(changed, setting)
        if before != now:
            if from_log:
                _check_replayable(setting)
            differs[setting] = repr(now)
    return changed, differs


def needs_references(differs: Mapping[str, str]) -> bool:
    """Whether the bins or the usual swing of the references would have been others."""
    return any(s.startswith("drift.") and s not in WITHOUT_REFERENCE for s in differs)


def needs_sketches(differs: Mapping[str, str]) -> bool:
    """Whether the windows must be summarised anew."""
    return any(s.startswith("drift.") and s not in WITHOUT_SKETCHES for s in differs)


def _parsed(task: Task, word: str) -> tuple[str, str, Any]:
    setting, sign, text = word.partition("=")
    group, _, name = setting.strip().partition(".")
    if not sign or not name:
        raise PolicyError(f"{word!r}: write GROUP.FIELD=VALUE, e.g. retrain.votes=1")
    if group not in GROUPS:
        raise PolicyError(f"{word!r}: there is no policy {group!r}; there are {', '.join(GROUPS)}")
    hints = get_type_hints(type(getattr(task, group)))
    if name not in hints:
        near = difflib.get_close_matches(name, hints, 1)
        hint = f"did you mean {group}.{near[0]}?" if near else f"it has {', '.join(hints)}"
        raise PolicyError(f"{word!r}: the {group} policy has no field {name!r}; {hint}")
    return group, name, _typed(word, text.strip(), hints[name])


def _typed(word: str, text: str, hint: Any) -> Any:
    """The value as the field declares it; raises PolicyError."""
    value: Any
    if hint is str:
        return text.strip("'\"")
    if hint == tuple[str, ...]:  # gate.slices=carrier,origin
        return tuple(re.findall(r"\w+", text))
    try:
        value = {"none": None, "null": None, "true": True, "false": False}[text.lower()]
    except KeyError:
        try:
            value = ast.literal_eval(text)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise PolicyError(f"{word!r}: {text!r} is not {_kind(hint)}") from None
    fits: dict[Any, tuple[type, ...]] = {
        int: (int,),
        float: (int, float),
        bool: (bool,),
        float | None: (int, float, type(None)),
        int | None: (int, type(None)),
        Fairness | None: (type(None),),
    }
    if hint in fits:
        if type(value) not in fits[hint]:
            raise PolicyError(f"{word!r}: {text!r} is not {_kind(hint)}")
        whole = hint in (int, int | None)
        return float(value) if not whole and type(value) is int else value
    if isinstance(value, dict):
        return {n: tuple(m) if isinstance(m, list) else m for n, m in value.items()}
    return value


def _kind(hint: Any) -> str:
    names = {
        int: "a whole number",
        float: "a number",
        bool: "true or false",
        int | None: "a whole number or none",
        Fairness | None: "none; another one is written in the task's file",
    }
    return names.get(hint, "a number or none" if hint == (float | None) else "a value")


def _value(task: Task, setting: str) -> Any:
    group, _, name = setting.partition(".")
    return getattr(getattr(task, group), name)


def _check_replayable(setting: str) -> None:
    if setting in NOT_IN_THE_LOG:
        raise PolicyError(f"{setting} cannot be replayed: {NOT_IN_THE_LOG[setting]}")
