"""How clients prove themselves to Kafka: one place gives each client library its options.

Read from the environment of the process where a client is made (`DRIFTLOG_KAFKA_*`), so that no secret
travels through settings, records of processes or command lines. Passwords stand in no `repr`, no message.
"""

from __future__ import annotations

import os
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infra.settings import SettingsError

PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL = "PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"
PROTOCOLS = (PLAINTEXT, SSL, SASL_PLAINTEXT, SASL_SSL)
MECHANISMS = ("SCRAM-SHA-512", "SCRAM-SHA-256", "PLAIN")
PREFIX = "DRIFTLOG_KAFKA_"


@dataclass(frozen=True, slots=True)
class KafkaSecurity:
    """What connections to brokers look like; without settings they are plain, as on loopback."""

    protocol: str = PLAINTEXT
    mechanism: str = MECHANISMS[0]
    username: str = ""
    password: str = field(default="", repr=False)
    ca: Path | None = None
    """PEM file of who vouches for the brokers; None: whom this machine trusts."""
    cert: Path | None = None
    key: Path | None = None
    """PEM files by which a client proves itself to brokers that ask for certificates (mTLS)."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> KafkaSecurity:
        """Raises SettingsError that names the variable; no message shows a password."""

        def read(name: str) -> str:
            return env.get(PREFIX + name, "")

        protocol = read("SECURITY").upper() or PLAINTEXT
        if protocol not in PROTOCOLS:
            raise SettingsError(f"{PREFIX}SECURITY={protocol!r}: one of {', '.join(PROTOCOLS)}")
        mechanism = read("SASL_MECHANISM").upper() or MECHANISMS[0]
        if mechanism not in MECHANISMS:
            known = ", ".join(MECHANISMS)
            raise SettingsError(f"{PREFIX}SASL_MECHANISM={mechanism!r}: one of {known}")
        made = cls(
            protocol=protocol,
            mechanism=mechanism,
            username=read("USERNAME"),
            password=read("PASSWORD") or _from_file(read("PASSWORD_FILE")),
            ca=_file("CA", read("CA")),
            cert=_file("CERT", read("CERT")),
            key=_file("KEY", read("KEY")),
        )
        if made.sasl and not (made.username and made.password):
            raise SettingsError(
                f"{PREFIX}SECURITY={protocol} needs {PREFIX}USERNAME, and {PREFIX}PASSWORD_FILE or "
                f"{PREFIX}PASSWORD"
            )
        if made.username and not made.sasl:
            raise SettingsError(
                f"{PREFIX}USERNAME is set, but {PREFIX}SECURITY={protocol} does not use it: say "
                "SASL_SSL (or SASL_PLAINTEXT)"
            )
        return made

    @property
    def sasl(self) -> bool:
        return self.protocol in (SASL_PLAINTEXT, SASL_SSL)

    @property
    def tls(self) -> bool:
        return self.protocol in (SSL, SASL_SSL)

    def context(self) -> ssl.SSLContext | None:
        """For clients in Python; None without TLS. Raises SettingsError for files that do not fit."""
        if not self.tls:
            return None
        try:
            made = ssl.create_default_context(cafile=None if self.ca is None else str(self.ca))
            if self.cert is not None:
                made.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise SettingsError(f"{PREFIX}CA, CERT or KEY cannot be used: {error}") from error
        return made

    def librdkafka(self) -> dict[str, Any]:
        """For confluent-kafka."""
        options: dict[str, Any] = {}
        if self.protocol != PLAINTEXT:
            options["security.protocol"] = self.protocol
        if self.sasl:
            options["sasl.mechanism"] = self.mechanism
            options |= {"sasl.username": self.username, "sasl.password": self.password}
        if self.tls:
            files = {"ssl.ca.location": self.ca, "ssl.certificate.location": self.cert}
            files["ssl.key.location"] = self.key
            options |= {name: str(path) for name, path in files.items() if path is not None}
        return options

    def aiokafka(self) -> dict[str, Any]:
        """For aiokafka."""
        options: dict[str, Any] = {"security_protocol": self.protocol}
        if self.tls:
            options["ssl_context"] = self.context()
        if self.sasl:
            options["sasl_mechanism"] = self.mechanism
            options["sasl_plain_username"] = self.username
            options["sasl_plain_password"] = self.password
        return options

    def faust(self) -> dict[str, Any]:
        """For `faust.App`."""
        from faust import SASLCredentials, SSLCredentials

        if self.sasl:
            credentials = SASLCredentials(
                username=self.username,
                password=self.password,
                mechanism=self.mechanism,
                ssl_context=self.context(),
            )
            return {"broker_credentials": credentials}
        return {"broker_credentials": SSLCredentials(self.context())} if self.tls else {}


def security() -> KafkaSecurity:
    """Of this process; raises SettingsError."""
    return KafkaSecurity.from_env(os.environ)


def librdkafka(bootstrap: str) -> dict[str, Any]:
    """Where the brokers are and how to prove oneself to them: what every confluent-kafka client needs."""
    return {"bootstrap.servers": bootstrap, **security().librdkafka()}


def _file(name: str, text: str) -> Path | None:
    if not text:
        return None
    path = Path(text).expanduser().absolute()
    if not path.is_file():
        raise SettingsError(f"{PREFIX}{name}={text!r}: there is no such file")
    return path


def _from_file(text: str) -> str:
    if not text:
        return ""
    try:
        return Path(text).expanduser().read_text("utf-8").rstrip("\r\n")
    except OSError as error:
        raise SettingsError(f"{PREFIX}PASSWORD_FILE={text!r}: {error.strerror}") from error
