"""How this machine's own parts reach its serving: address, TLS, key, as the settings of serving have them."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache

from driftlog.client_core import API_KEY, authorization
from infra.settings import HOST, Settings, serving_port

_EVERYWHERE = ("0.0.0.0", "::", "[::]", "localhost")  # noqa: S104 - compared with, not bound


def serving_url(settings: Settings, base_port: int = serving_port(1)) -> str:
    """`http://127.0.0.1:18000`, or what DRIFTLOG_SERVING_HOST and _TLS_CERT make of it; of one replica."""
    from models.serving.guards.settings import GuardSettings

    guards = GuardSettings.from_env(os.environ)
    host = HOST if guards.host in _EVERYWHERE else guards.host
    shown = f"[{host}]" if ":" in host else host
    return f"{guards.scheme}://{shown}:{settings.port(base_port)}"


@lru_cache(1)
def own_tls() -> ssl.SSLContext:
    """For https on this machine: the certificate is our own file, so its name need not be vouched for.

    Where clients are asked for certificates, the service's own is shown.
    """
    from models.serving.guards.settings import GuardSettings

    guards = GuardSettings.from_env(os.environ)
    made = ssl.create_default_context()
    made.check_hostname = False
    made.verify_mode = ssl.CERT_NONE
    if guards.tls_cert is not None and guards.tls_client_ca is not None:
        made.load_cert_chain(guards.tls_cert, guards.tls_key)
    return made


def key_header() -> dict[str, str]:
    """The key in DRIFTLOG_API_KEY, if there is one."""
    return authorization(os.environ.get(API_KEY))
