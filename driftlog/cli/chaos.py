"""`driftlog chaos`: stop parts of the system on purpose, and see that nothing is lost."""

from __future__ import annotations

import dataclasses
import json
from typing import Annotated, Any

import typer

chaos_app = typer.Typer(
    help="Stop parts of the system on purpose: a service by name (broker-2, serving) or by port.",
    no_args_is_help=True,
)
Target = Annotated[str, typer.Argument(help="Name of a service (`driftlog status`) or its port.")]
For = Annotated[
    float | None, typer.Option("--for", help="Seconds after which it is undone by itself.")
]
Json = Annotated[bool, typer.Option("--json", help="Print what was done as JSON.")]


@chaos_app.command("kill")
def kill(target: Target, for_: For = None, as_json: Json = False) -> None:
    """SIGKILL; it stays down until `restart` (or for --for seconds)."""
    _inject("kill", target, for_, as_json)


@chaos_app.command("pause")
def pause(target: Target, for_: For = None, as_json: Json = False) -> None:
    """Freeze it: connections stay open and nothing answers, until `resume`."""
    _inject("pause", target, for_, as_json)


@chaos_app.command("resume")
def resume(target: Target, as_json: Json = False) -> None:
    """End a pause or a partition."""
    _inject("resume", target, None, as_json)


@chaos_app.command("restart")
def restart(target: Target, as_json: Json = False) -> None:
    """Start it again: after a kill at once, else after a clean stop."""
    _inject("restart", target, None, as_json)


@chaos_app.command("partition")
def partition(target: Target, for_: For = None, as_json: Json = False) -> None:
    """Cut it off: it falls silent without a reset, for 15 s unless --for says otherwise."""
    _inject("partition", target, for_, as_json)


@chaos_app.command("campaign")
def campaign(
    seed: Annotated[int, typer.Option("--seed", help="The same seed, the same faults.")] = 0,
    faults: Annotated[int, typer.Option("--faults", min=1, max=200, help="How many.")] = 6,
    as_json: Json = False,
) -> None:
    """Seeded faults under load, one after the other; then check that nothing was lost or doubled."""
    from driftlog.campaign import run
    from driftlog.cli.errors import CliError
    from driftlog.cli.replay import show_checks

    checks = run(seed, faults, lambda text: typer.echo(text, err=as_json))
    show_checks(checks, as_json)
    if not all(check.passed for check in checks):
        raise CliError(f"an invariant broke with seed {seed}, see above")


def _inject(kind: str, target: str, duration_s: float | None, as_json: bool) -> None:
    from driftlog import instance
    from driftlog.faults import inject

    fault = inject(instance.settings(), kind, target, duration_s)
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(fault)))
    else:
        typer.echo(_words(fault))


def _words(fault: Any) -> str:
    pid = f" (pid {fault.pid})" if fault.pid else ""
    until = "" if fault.until is None else f", for {fault.until - fault.at:.0f} s"
    undo = {"kill": "restart", "pause": "resume"}.get(fault.kind)
    hint = f"; undo: driftlog chaos {undo} {fault.target}" if undo and not until else ""
    return f"{fault.kind} {fault.target}{pid}{until}{hint}"
