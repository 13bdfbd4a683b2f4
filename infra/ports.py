"""Are the ports free, and if not, whose are they?"""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence

import psutil

from infra.errors import InfraError
from infra.settings import HOST

UNKNOWN_OWNER = "unknown owner (other user)"
LINGERING = "a connection that was closed just now (free again within a minute)"


class PortTaken(InfraError):
    """A port that a service needs belongs to somebody else."""


def check_free(ports: Sequence[int]) -> None:
    """Raise PortTaken, naming each port that cannot be bound on loopback, and its owner."""
    taken = [port for port in ports if not is_free(port)]
    if taken:
        named = "; ".join(f"port {port} is taken by {owner(port)}" for port in taken)
        raise PortTaken(f"{named}: stop that, or use --port-offset for another range of ports")


def is_free(port: int) -> bool:
    """True if this port can be listened on now (a connection that lingers in TIME_WAIT does not matter)."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
            probe.listen(1)
        except OSError:
            return False
    return True


def listening(port: int) -> bool:
    """True if something accepts connections on this loopback port."""
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex((HOST, port)) == 0


def listener(port: int) -> psutil.Process | None:
    """The process that listens on this port, None if there is none or it may not be seen."""
    return _holder(port, lambda status: bool(status == psutil.CONN_LISTEN))


def _borrower(port: int) -> psutil.Process | None:
    return _holder(port, lambda status: bool(status != psutil.CONN_LISTEN))


def _lingers(port: int) -> bool:
    """True if all that is left is a connection in TIME_WAIT, which belongs to no process any more."""
    held = [item for item in psutil.net_connections("tcp") if tuple(item.laddr)[1:2] == (port,)]
    return bool(held) and all(item.status == psutil.CONN_TIME_WAIT for item in held)


def _holder(port: int, which: Callable[[str], bool]) -> psutil.Process | None:
    for connection in psutil.net_connections("tcp"):
        held = which(connection.status) and tuple(connection.laddr)[1:2] == (port,)
        if held and connection.pid is not None:
            try:
                return psutil.Process(connection.pid)
            except psutil.NoSuchProcess:
                return None
    return None


def owner(port: int) -> str:
    """Who has the port, in words: name and process id where they may be seen.

    The kernel may also have lent it to somebody's outgoing connection, which then holds it for a while.
    """
    try:
        process = listener(port) or _borrower(port)
        if process is not None:
            return f"{process.name()} (pid {process.pid})"
        return LINGERING if _lingers(port) else UNKNOWN_OWNER
    except psutil.Error:
        return UNKNOWN_OWNER
