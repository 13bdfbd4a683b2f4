"""How rollouts are shown: `driftlog rollout status`, and a line in `driftlog models`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from driftlog.words import moment

if TYPE_CHECKING:
    from models.registry import Decision
    from streams.rollout_state import Rollout, TaskRollouts
    from streams.task import Task


def words(rollout: Rollout, share: float, since: int) -> str:
    """E.g. 'canary of flights-5 at 25 % since 2013-02-01 12:00'."""
    if rollout.strategy == "shadow" and share == 0:
        return f"shadow of {rollout.version} since {moment(since)}"
    return f"{rollout.strategy} of {rollout.version} at {share:.0%} since {moment(since)}"


def by_version(states: Mapping[str, TaskRollouts]) -> dict[str, str]:
    """Version -> 'canary 25% since 2013-02-01 12:00', or how its last rollout ended."""
    found: dict[str, str] = {}
    for state in states.values():
        found |= {rollout.version: rollout.outcome for rollout in state.past}
        now = state.active
        if now is not None:
            found[now.version] = f"{now.strategy} {now.share:.0%} since {moment(now.since)}"
    return found


def at(state: TaskRollouts | None, decision: Decision, at_ms: int | None) -> dict[str, Any] | None:
    """What stood beside the champion at event time `at_ms` (default: now), as plain data."""
    from streams.rollout_state import rollout_at

    if state is None:
        return None
    if at_ms is None:
        now = state.active
        found = (now, now.share, now.since) if now else None
    else:
        found = rollout_at(state, at_ms)
    if found is None or found[0].baseline != decision.version:
        return None
    rollout, share, since = found
    return {
        "rollout_id": rollout.id,
        "model_version": rollout.version,
        "strategy": rollout.strategy,
        "share": share,
        "since": since,
        "words": words(rollout, share, since),
    }


def status(task: Task, state: TaskRollouts) -> dict[str, Any]:
    """All that `rollout status --json` says of a task."""
    now = state.active
    reign = state.reigns[-1] if state.reigns else None
    watch = task.rollout.watch_ms
    watched_until = None
    if reign is not None and reign.kind == "ModelPromoted" and reign.previous and watch:
        watched_until = reign.since + watch
    return {
        "task": task.name,
        "strategy": task.rollout.strategy,
        "champion": state.champion,
        "champion_since": reign and reign.since,
        "watched_until": watched_until,
        "frozen": _command(state.frozen),
        "rollout": _rollout(state, now) if now else None,
        "past": [_rollout(state, rollout) for rollout in reversed(state.past)],
    }


def status_text(data: Mapping[str, Any]) -> str:
    """`status` for people."""
    since = data["champion_since"]
    champion = data["champion"] or "nothing"
    lines = [f"{data['task']} ({data['strategy']}): {champion} answers"]
    lines[0] += f" since {moment(since)}" if since is not None else ""
    if data["watched_until"] is not None:
        lines.append(f"  watched    until {moment(data['watched_until'])}, then it stays")
    if data["frozen"]:
        lines.append(f"  FROZEN     {_who(data['frozen'])}")
    now = data["rollout"]
    if now:
        lines.append(f"  rollout    {now['words']}, step {now['step']} ({now['rollout_id']})")
        lines.append(f"             {now['reason']}")
        if now["held"]:
            lines.append(f"  held       {_who(now['held'])}")
        if now["waits_for_approval"]:
            lines.append("  waits      for `driftlog rollout approve` or `reject`")
    elif not data["past"]:
        lines.append("  no rollout so far")
    past = [f"  {p['outcome']:<10} {p['model_version']}: {p['reason']}" for p in data["past"][:5]]
    return "\n".join(lines + past)


def _rollout(state: TaskRollouts, rollout: Rollout) -> dict[str, Any]:
    return {
        "rollout_id": rollout.id,
        "model_version": rollout.version,
        "baseline": rollout.baseline,
        "strategy": rollout.strategy,
        "outcome": rollout.outcome,
        "step": rollout.step,
        "share": rollout.share,
        "started": rollout.started,
        "since": rollout.since,
        "ended": rollout.ended,
        "actor": rollout.actor,
        "reason": rollout.reason,
        "waits_for_approval": rollout.waits,
        "held": _command(state.order(rollout, "hold")),
        "words": words(rollout, rollout.share, rollout.since),
    }


def _command(command: Any) -> dict[str, Any] | None:
    if command is None:
        return None
    return {"actor": command.actor, "reason": command.reason, "since": command.time}


def _who(command: Mapping[str, Any]) -> str:
    return f"by {command['actor']} since {moment(command['since'])}: {command['reason']}"
