"""Faults that are in the log: what was broken on purpose is part of what happened."""

from __future__ import annotations

from infra import chaos
from infra.settings import Settings
from schemas.catalogue import FAULTS
from schemas.errors import SchemaError
from schemas.event import derive
from streams.log import LogUnavailable, LogWriter, connect_codec


def inject(
    settings: Settings, kind: str, target: str, duration_s: float | None = None, actor: str = "cli"
) -> chaos.Fault:
    """Do it, then write FaultInjected. Raises InfraError.

    A log that this very fault took down cannot record it: then the event is given up after 20 s.
    """
    fault = chaos.inject(settings, kind, target, duration_s)
    at = int(fault.at * 1000)
    event = derive(
        FAULTS,
        "FaultInjected",
        *(kind, fault.target, at),
        time=at,
        caused_by=None,
        kind=kind,
        target=fault.target,
        actor=actor,
    )
    try:
        LogWriter(settings.bootstrap, connect_codec(settings), timeout_s=20).append([event])
    except (LogUnavailable, SchemaError):
        return fault  # it stands all the same; `driftlog status` shows it
    return fault
