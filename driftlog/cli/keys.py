"""`driftlog keys`: who may ask the serving API for what; made, rotated and revoked as events."""

from __future__ import annotations

import re
import secrets
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftlog.cli.errors import CliError
from driftlog.cli.opened import Opened, given, lines, open_log, user
from driftlog.cli.options import Json

if TYPE_CHECKING:
    from models.serving.guards.access import Access, Key

keys_app = typer.Typer(
    help="Keys to the serving API: who may ask which task for what.", no_args_is_help=True
)

Name = Annotated[str, typer.Argument(help="Name of the key.", metavar="NAME")]
Why = Annotated[str, typer.Option("--reason", help="Why: it goes into the log with your name.")]
_UNITS_MS = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}").fullmatch


@keys_app.command()
def create(
    name: Annotated[str, typer.Option("--name", help="Whose key it is, e.g. checkout-service.")],
    scope: Annotated[
        str,
        typer.Option(
            "--scope", help="TASK:ACTION,...: predict, label or read; '*' for all, e.g. *:read."
        ),
    ],
    expires: Annotated[
        str | None, typer.Option("--expires", help="e.g. 90d, 12h. Default: it does not.")
    ] = None,
    rate: Annotated[
        float | None, typer.Option("--rate", min=0.001, help="Requests a second. Default: as all.")
    ] = None,
    reason: Why = "created by command",
    as_json: Json = False,
) -> None:
    """Make a key and print it, this once: only its hash is kept."""
    from models.serving.guards.scopes import parse_scopes

    if not _NAME(name):
        raise CliError(f"--name {name!r}: up to 64 letters, digits and _ . @ - are wanted")
    try:
        scopes = parse_scopes(scope)
    except ValueError as error:
        raise CliError(f"--scope: {error}") from error
    lifetime = None if expires is None else duration_ms(expires, "--expires")
    opened = _open()
    now = _now_ms()
    if _access(opened).of(name, now):
        raise CliError(f"{name} has a key already: `driftlog keys rotate {name}` makes a new one")
    until = None if lifetime is None else now + lifetime
    _issue(opened, name, scopes, now, given(reason), until, rate, None, as_json)


@keys_app.command("list")
def list_(
    gone: Annotated[bool, typer.Option("--all", help="Expired and revoked ones, too.")] = False,
    as_json: Json = False,
) -> None:
    """The keys that count, what they may do and until when."""
    access = _access(_open())
    now = _now_ms()
    found = sorted(access.issued.values(), key=lambda key: (key.name, key.issued, key.hash))
    rows = [_row(access, key, now) for key in found]
    rows = [row for row in rows if gone or row["state"] in ("valid", "early_key")]
    if as_json:
        lines(rows)
        return
    for row in rows:
        typer.echo(_told(row))
    if not rows:
        typer.echo("there is no key" if not found else "no key counts any more: see --all")


@keys_app.command()
def rotate(
    name: Name,
    overlap: Annotated[
        str, typer.Option("--overlap", help="So long the old key counts beside the new one.")
    ] = "24h",
    reason: Why = "rotated by command",
    as_json: Json = False,
) -> None:
    """Make a new key with the same rights and let the old one end after the overlap."""
    both = duration_ms(overlap, "--overlap")
    opened = _open()
    now = _now_ms()
    access = _access(opened)
    old = _live(access, name, now)
    newest = old[-1]
    until = None
    if newest.expires is not None:  # as long as the old one was meant to live
        until = now + newest.expires - newest.not_before
    _issue(
        *(opened, name, newest.scopes, now, given(reason), until, newest.rate, newest.hash),
        as_json=as_json,
    )
    for key in old:
        end = now + both
        if access.revoked.get(key.hash, end + 1) > end:
            _revoke(opened, key, now, reason, end)


@keys_app.command()
def revoke(name: Name, reason: Why, as_json: Json = False) -> None:
    """End every key of this name at once, wherever it is served."""
    opened = _open()
    now = _now_ms()
    ended = _live(_access(opened), name, now)
    for key in ended:
        _revoke(opened, key, now, given(reason), now)
    if as_json:
        lines([{"name": name, "key_hash": key.hash, "revoked": now} for key in ended])
    else:
        typer.echo(f"{name}: {len(ended)} key{'s' * (len(ended) != 1)} revoked")


def duration_ms(text: str, option: str) -> int:
    """`90d`, `24h`, `30m`, `10s` -> ms; raises CliError that names the option."""
    number, unit = text[:-1], text[-1:]
    if not number.isdecimal() or len(number) > 9 or unit not in _UNITS_MS:
        raise CliError(f"{option} {text!r}: a whole number and s, m, h or d is wanted, e.g. 24h")
    return int(number) * _UNITS_MS[unit]


def _open() -> Opened:
    from models.serving.guards.access import AccessKeys

    return open_log("keys", lambda _: [AccessKeys()])


def _access(opened: Opened) -> Access:
    found: Access = opened.states["access"]
    return found


def _live(access: Access, name: str, now: int) -> list[Key]:
    found = access.of(name, now)
    if not found:
        known = ", ".join(sorted({key.name for key in access.issued.values()})) or "none"
        raise CliError(f"{name} has no key that counts; names in the log: {known}")
    return found


def _issue(
    opened: Opened,
    name: str,
    scopes: tuple[str, ...],
    now: int,
    reason: str,
    expires: int | None,
    rate: float | None,
    replaces: str | None,
    as_json: bool,
) -> None:
    from models.serving.guards.issuing import issued, key_from

    key = key_from(secrets.token_bytes(32))
    event = issued(key, name, scopes, now, user(), reason, expires, rate, replaces)
    opened.append(event)
    if as_json:
        lines([{"key": key, **event.data}])
        return
    typer.echo(key)
    may = ", ".join(scopes)
    typer.echo(f"{name} may {may}. Keep the key now: it cannot be shown again.", err=True)


def _revoke(opened: Opened, key: Key, now: int, reason: str, end: int) -> None:
    from models.serving.guards.issuing import revoked

    opened.append(revoked(key, now, user(), reason, end))


def _row(access: Access, key: Key, now: int) -> dict[str, Any]:
    ends = [moment for moment in (key.expires, access.revoked.get(key.hash)) if moment is not None]
    return {
        "name": key.name,
        "state": access.problem(key.hash, now) or "valid",
        "scopes": list(key.scopes),
        "issued": key.issued,
        "until": min(ends, default=None),
        "rate": key.rate,
        "actor": key.actor,
        "key_hash": key.hash,
    }


def _told(row: dict[str, Any]) -> str:
    from driftlog.words import moment

    until = f"until {moment(row['until'])}" if row["until"] is not None else "until revoked"
    rate = f", {row['rate']:g}/s" if row["rate"] else ""
    return (
        f"{row['name']:<24} {row['state']:<11} {','.join(row['scopes'])}{rate}, {until}"
        f"  ({row['key_hash'][:12]}, by {row['actor']} {moment(row['issued'])})"
    )


def _now_ms() -> int:
    """Keys live by the clock of those who use them, whatever time a task's events are in."""
    return time.time_ns() // 1_000_000
