"""How the registry is shown: tables, lineage and explanations as text, and the same as plain data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from driftlog.words import moment

if TYPE_CHECKING:
    from models.registry import RegistryState, Version

Data = Mapping[str, Any]


def summary(state: RegistryState, version: Version) -> dict[str, Any]:
    """One line of `models list`."""
    from models.registry import champion

    now = champion(state, version.task)
    about = [d for d in state.decisions.get(version.task, ()) if d.version == version.version]
    return {
        "model_version": version.version,
        "task": version.task,
        "live": now is not None and now.version == version.version,
        "decision": about[-1].kind if about else None,
        "registered": version.time,
        "recipe": version.recipe,
        "parent": version.parent,
        "log_loss": version.metrics.get("log_loss"),
        "auc": version.metrics.get("auc"),
        "training_rows": version.reference_count or None,
        "artifact": version.artifact,
    }


def print_table(rows: list[dict[str, Any]]) -> None:
    """The versions as a table, the live one of each task in green."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    left = ("version", "registered", "recipe", "status")
    for name in ("version", "registered", "recipe", "rows", "log-loss", "AUC", "status"):
        table.add_column(name, justify="left" if name in left else "right")
    for row in rows:
        decided = {None: "pending", "PromotionRejected": "rejected"}
        status = "live" if row["live"] else decided.get(row["decision"], "replaced")
        if row["decision"] is None:
            status = row.get("rollout") or status
        table.add_row(
            row["model_version"],
            moment(row["registered"]),
            row["recipe"],
            f"{row['training_rows']:,}" if row["training_rows"] else "",
            *("" if row[name] is None else f"{row[name]:.4f}" for name in ("log_loss", "auc")),
            status,
            style="green" if row["live"] else None,
        )
    Console().print(table)


def print_compression(rows: list[dict[str, Any]], judged_by: int) -> None:
    """The variants of a model as a table, refused ones in red."""
    from rich.console import Console
    from rich.table import Table

    table = Table(header_style="bold", show_edge=False, pad_edge=False)
    for name in (
        "variant",
        "bytes",
        "us alone",
        "us in 256",
        "log-loss",
        "AUC",
        "apart",
        "verdict",
    ):
        table.add_column(name, justify="left" if name in ("variant", "verdict") else "right")
    for row in rows:
        numbers = [
            f"{row['bytes']:,}",
            f"{row['single_us']:.0f}",
            f"{row['row_us']:.2f}",
            *(f"{row[name]:.4f}" for name in ("log_loss", "auc", "difference")),
        ]
        passed = row["verdict"] in ("", "passes")
        table.add_row(
            row["variant"],
            *(numbers if row["bytes"] else [""] * len(numbers)),
            row["verdict"] if passed else "refused",
            style=None if passed else "red",
        )
    Console().print(table)
    Console().print(f"judged by {judged_by:,} rows that trained nobody")
    for row in rows:
        if row["verdict"] not in ("", "passes"):
            Console().print(f"{row['variant']} is refused: {row['verdict']}", style="red")


def lineage(state: RegistryState, version: Version) -> dict[str, Any]:
    """Everything that the log says about a version."""
    from models.registry import Request, champion

    request = state.requests.get(version.request_id, Request())
    sets = state.golden_sets.get(version.task, ())
    golden = next((taken for taken in sets if taken["snapshot"] == version.golden), None)
    now = champion(state, version.task)
    return {
        "model_version": version.version,
        "task": version.task,
        "live": now is not None and now.version == version.version,
        "registered": version.time,
        "event_id": version.event_id,
        "parent": version.parent,
        "request": dict(request.asked or {"event_id": version.request_id}),
        "snapshot": dict(request.step("SnapshotTaken", purpose="training") or {}) or None,
        "golden": dict(golden) if golden else None,
        "training": dict(request.step("TrainingFinished") or {}) or None,
        "search": [dict(trial) for trial in request.all_of("TrialFinished")],
        "recipe": version.recipe,
        "parameters": version.parameters,
        "seed": version.seed,
        "features": list(version.features),
        "metrics": dict(version.metrics),
        "artifact": {"sha256": version.artifact, "path": version.path, "bytes": version.bytes},
        "environment": dict(version.environment),
        "steps": [
            {"type": type_, "event_id": id_, "event_time": step["event_time"]}
            for id_, (type_, step) in request.steps.items()
        ],
        "decisions": [
            {
                "type": decision.kind,
                "event_id": decision.event_id,
                "event_time": decision.time,
                "previous_version": decision.previous,
                "actor": decision.actor,
                "reason": decision.reason,
                "gates": [dict(gate) for gate in decision.gates],
            }
            for decision in state.decisions.get(version.task, ())
            if decision.version == version.version
        ],
    }


def lineage_text(data: Data) -> str:
    """`lineage` for people."""
    live = ", answers now" if data["live"] else ""
    lines = [f"{data['model_version']} of task {data['task']}{live}"]
    request = data["request"]
    if "reason" in request:
        lines += _row("asked", f"{moment(request['event_time'])} by {request['actor']}")
        lines += _row("", f"{request['trigger']}: {request['reason']}")
    lines += _row("request", request["event_id"])
    for name in ("snapshot", "golden"):
        taken = data[name]
        if taken:
            lines += _row(name, f"{taken['snapshot']}")
            lines += _row("", f"{taken['rows']:,} rows, {taken['positives']:,} positive")
            span = f"{moment(taken['from_time'])} to {moment(taken['to_time'])}"
            lines += _row("", f"{span}, {taken['bytes']:,} bytes, {taken['path']}")
    lines += _row("recipe", f"{data['recipe']} {data['parameters']}, seed {data['seed']}")
    if data["search"]:
        values = [trial["value"] for trial in data["search"] if trial["value"] is not None]
        found = f", log-loss {min(values):.4f} to {max(values):.4f} on its folds" if values else ""
        lines += _row("search", f"{len(data['search'])} trials{found}")
    if data["training"]:
        lines += _row("", f"{data['training']['duration_ms'] / 1000:.1f} s of fit and evaluation")
    lines += _row("metrics", _numbers(data["metrics"]))
    lines += _row("parent", data["parent"] or "none")
    artifact = data["artifact"]
    lines += _row("artifact", artifact["sha256"])
    lines += _row("", f"{artifact['bytes']:,} bytes, {artifact['path']}")
    made_by = ", ".join(f"{name} {value}" for name, value in data["environment"].items())
    lines += _row("made by", made_by)
    lines += _row("registered", f"{moment(data['registered'])}  event {data['event_id']}")
    for decision in data["decisions"]:
        lines += _row(
            "decision",
            f"{moment(decision['event_time'])}  {decision['type']} by {decision['actor']}",
        )
        lines += _row("", decision["reason"])
        lines += _gates(decision["gates"])
    for number, step in enumerate(data["steps"]):
        lines += _row("" if number else "events", f"{step['event_id']}  {step['type']}")
    return "\n".join(lines)


def explanation_text(data: Data) -> str:
    """What `models.registry.Explanation.to_json` says, for people."""
    since = "the beginning" if data["since"] is None else moment(data["since"])
    until = "now" if data["until"] is None else moment(data["until"])
    lines = [f"{data['model_version']} answered for {data['task']} from {since} to {until}"]
    verb = data["decision"].removeprefix("Model").lower().replace("rolledback", "rolled back")
    lines += _row("decision", f"{verb} by {data['actor']}: {data['reason']}")
    lines += _gates(data["gates"])
    lines += _row("before it", data["previous_version"] or "nothing")
    if data.get("rollout"):
        lines += _row("beside it", data["rollout"]["words"])
    if data["trigger"]:
        lines += _row("trigger", f"{data['trigger']}: {data['request_reason']}")
    if data["evidence"]:
        lines += _row("evidence", _numbers(data["evidence"]))
    if data["metrics"]:
        lines += _row("metrics", _numbers(data["metrics"]))
    return "\n".join(lines)


def _gates(gates: Iterable[Data]) -> list[str]:
    lines = []
    for gate in gates:
        sign = "<=" if gate["value"] <= gate["threshold"] else ">"
        before = "" if gate["baseline"] is None else f"champion {gate['baseline']:.4f}, "
        told = (
            f"{gate['name']} {gate['value']:.4f} {sign} {gate['threshold']:.4f}"
            f" ({before}{gate['count']:,} rows)"
        )
        if gate.get("low") is not None:
            told += f", difference {gate['low']:+.4f} to {gate['high']:+.4f}"
        lines += _row("gate", f"{told}: {'passed' if gate['passed'] else 'FAILED'}")
    return lines


def _row(name: str, value: str) -> list[str]:
    return [f"  {name:<11}{value}".rstrip()]


def _numbers(numbers: Data) -> str:
    return ", ".join(f"{name} {value:.6g}" for name, value in numbers.items())
