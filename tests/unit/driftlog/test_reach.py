"""Where serving is, as its settings have it, and whether it answers there."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from driftlog import reach
from driftlog.services import answers
from infra.settings import Settings
from models.serving.guards.settings import GuardSettings
from tests.certificates import Authority
from tests.unit.models.test_guards_tls import https


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("", "http://127.0.0.1:18070"),
        ("0.0.0.0", "http://127.0.0.1:18070"),
        ("10.0.0.7", "http://10.0.0.7:18070"),
        ("fd00::7", "http://[fd00::7]:18070"),
    ],
)
def test_the_address_follows_the_host(monkeypatch: pytest.MonkeyPatch, host: str, url: str) -> None:
    monkeypatch.setenv("DRIFTLOG_SERVING_HOST", host)
    assert reach.serving_url(Settings(port_offset=70)) == url


async def test_the_supervisor_is_let_in_where_callers_need_certificates(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    ours = Authority(tmp_path)
    pair = ours.pair("server")
    for name, file in {"CERT": pair.cert, "KEY": pair.key, "CLIENT_CA": ours.ca}.items():
        monkeypatch.setenv(f"DRIFTLOG_SERVING_TLS_{name}", str(file))
    assert reach.serving_url(Settings()).startswith("https://")
    reach.own_tls.cache_clear()
    settings = GuardSettings(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca)
    async with https(settings) as (url, _):
        assert await asyncio.to_thread(answers, f"{url}/healthz")
        assert not await asyncio.to_thread(answers, f"{url}/nowhere")
    reach.own_tls.cache_clear()


def test_a_key_of_the_environment_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DRIFTLOG_API_KEY", raising=False)
    assert reach.key_header() == {}
    monkeypatch.setenv("DRIFTLOG_API_KEY", "dl_x")
    assert reach.key_header() == {"Authorization": "Bearer dl_x"}
