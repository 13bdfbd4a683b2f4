"""TLS for both faces, from files that may be renewed while the service runs."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import structlog

from models.serving.guards.settings import GuardSettings

logger = structlog.get_logger()

RELOAD_S = 10.0
"""So often the files are looked at."""


def uvicorn_options(settings: GuardSettings) -> dict[str, Any]:
    """What `uvicorn.Config` takes: host, and TLS where it is set."""
    options: dict[str, Any] = {"host": settings.host}
    if settings.tls_cert is not None and settings.tls_key is not None:
        options |= {"ssl_certfile": str(settings.tls_cert), "ssl_keyfile": str(settings.tls_key)}
        options["ssl_context_factory"] = lambda _, make: _modern(make())
    if settings.tls_client_ca is not None:
        options |= {
            "ssl_ca_certs": str(settings.tls_client_ca),
            "ssl_cert_reqs": ssl.CERT_REQUIRED,
        }
    return options


def _modern(context: ssl.SSLContext) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def grpc_options(settings: GuardSettings) -> list[tuple[str, int]]:
    """Limits for `grpc.aio.server`."""
    return [("grpc.max_receive_message_length", settings.max_body)]


def grpc_credentials(settings: GuardSettings) -> grpc.ServerCredentials | None:
    """For `add_secure_port`; None without TLS. Renewed files count from the next handshake on."""
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    watched = Watched(settings)
    asked = settings.tls_client_ca is not None

    def changed() -> Any:
        return _configuration(settings) if watched.changed() else None

    return grpc.dynamic_ssl_server_credentials(
        _configuration(settings), changed, require_client_authentication=asked
    )


def _configuration(settings: GuardSettings) -> Any:
    assert settings.tls_cert is not None and settings.tls_key is not None
    pair = settings.tls_key.read_bytes(), settings.tls_cert.read_bytes()
    roots = settings.tls_client_ca.read_bytes() if settings.tls_client_ca else None
    return grpc.ssl_server_certificate_configuration([pair], root_certificates=roots)


@dataclass
class Watched:
    """Whether the files of TLS changed since it was last asked."""

    settings: GuardSettings

    def __post_init__(self) -> None:
        self._seen = self._stamps()

    def changed(self) -> bool:
        stamps = self._stamps()
        if None in stamps or stamps == self._seen:  # None: between the removal and the new file
            return False
        self._seen = stamps
        return True

    def _stamps(self) -> tuple[tuple[int, int] | None, ...]:
        files = (self.settings.tls_cert, self.settings.tls_key, self.settings.tls_client_ca)
        return tuple(_stamp(file) for file in files if file is not None)


def reloader(settings: GuardSettings, context: ssl.SSLContext) -> Callable[[], None]:
    """To be called now and then: renewed files count for new connections.

    A pair that does not fit together leaves the old one in place, with a line in the log, until the files
    change again. What a client CA no longer vouches for is let in until the service starts again.
    """
    watched = Watched(settings)

    def look() -> None:
        if not watched.changed():
            return
        try:
            _load(
                settings, ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            )  # a trial: loading has no way back
            _load(settings, context)
        except (OSError, ssl.SSLError) as error:
            logger.warning("renewed TLS files are of no use, the old ones stay", reason=str(error))
        else:
            logger.info("TLS files renewed", certificate=str(settings.tls_cert))

    return look


def _load(settings: GuardSettings, context: ssl.SSLContext) -> None:
    assert settings.tls_cert is not None
    context.load_cert_chain(settings.tls_cert, settings.tls_key)
    if settings.tls_client_ca is not None:
        context.load_verify_locations(settings.tls_client_ca)


def _stamp(file: Path) -> tuple[int, int] | None:
    try:
        found = file.stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size
