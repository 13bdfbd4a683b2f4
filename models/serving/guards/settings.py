"""Settings of the guards: `DRIFTLOG_SERVING_*`, read once from the environment of the serving process."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from infra.settings import HOST, SettingsError
from models.serving.bodies import MAX_BODY_BYTES

_PER = {"s": 1.0, "m": 60.0, "h": 3600.0}
_TRUE = {"1": True, "true": True, "yes": True, "": False, "0": False, "false": False, "no": False}


@dataclass(frozen=True, slots=True)
class GuardSettings:
    """What is let in. Files of TLS are PEM; a client CA asks every caller for a certificate (mTLS)."""

    host: str = HOST
    open: bool = False
    """Answer without keys on any address, because something in front of this service asks for them."""
    tls_cert: Path | None = None
    tls_key: Path | None = None
    tls_client_ca: Path | None = None
    rate: float = 0.0
    """Requests a second of each key, or of each address without one; 0: as many as come."""
    burst: float = 0.0
    """Requests that may come at once; 0: what `rate` brings in a second, at least one."""
    max_in_flight: int = 1_024
    """Requests beyond so many are refused at once."""
    max_body: int = MAX_BODY_BYTES
    """Bytes of a request."""
    timeout_s: float = 60.0
    """A request that takes longer is given up. Longer than the service itself waits for the log."""

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> GuardSettings:
        """Raises SettingsError that names the variable."""

        def read(name: str) -> str:
            return env.get(f"DRIFTLOG_SERVING_{name}", "").strip()

        def wrong(name: str, why: str) -> SettingsError:
            return SettingsError(f"DRIFTLOG_SERVING_{name}={read(name)!r}: {why}")

        def number(name: str, default: float, least: float) -> float:
            text = read(name)
            try:
                value = float(text) if text else default
            except ValueError:
                raise wrong(name, "a number is wanted") from None
            if not least <= value < float("inf"):
                raise wrong(name, f"must be {least:g} or more")
            return value

        def file(name: str) -> Path | None:
            text = read(name)
            if text and not Path(text).expanduser().is_file():
                raise wrong(name, "there is no such file")
            return Path(text).expanduser().absolute() if text else None

        try:
            rate = parse_rate(read("RATE"))
        except ValueError as error:
            raise wrong("RATE", str(error)) from None
        if read("OPEN").lower() not in _TRUE:
            raise wrong("OPEN", "1 or 0 is wanted")
        plain = cls()
        made = cls(
            host=read("HOST") or HOST,
            open=_TRUE[read("OPEN").lower()],
            tls_cert=file("TLS_CERT"),
            tls_key=file("TLS_KEY"),
            tls_client_ca=file("TLS_CLIENT_CA"),
            rate=rate,
            burst=number("BURST", 0, 0),
            max_in_flight=int(number("MAX_IN_FLIGHT", plain.max_in_flight, 1)),
            max_body=int(number("MAX_BODY", plain.max_body, 1)),
            timeout_s=number("TIMEOUT", plain.timeout_s, 0.1),
        )
        if (made.tls_cert is None) != (made.tls_key is None):
            name, other = ("CERT", "KEY") if made.tls_key is None else ("KEY", "CERT")
            raise SettingsError(f"DRIFTLOG_SERVING_TLS_{name} needs DRIFTLOG_SERVING_TLS_{other}")
        if made.tls_client_ca is not None and made.tls_cert is None:
            raise SettingsError("DRIFTLOG_SERVING_TLS_CLIENT_CA needs DRIFTLOG_SERVING_TLS_CERT")
        return made

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:  # a name, which may mean anything
            return False

    @property
    def scheme(self) -> str:
        return "https" if self.tls_cert else "http"


def parse_rate(text: str) -> float:
    """`1000/s`, `600/m`, or a plain number of requests a second; raises ValueError."""
    count, _, per = text.partition("/")
    if not text:
        return 0.0
    try:
        value = float(count) / _PER[per or "s"]
    except (ValueError, KeyError):
        raise ValueError("a number of requests is wanted, e.g. 1000/s or 600/m") from None
    if not 0 <= value < float("inf"):
        raise ValueError("must not be negative")
    return value
