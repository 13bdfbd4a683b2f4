"""TLS and mTLS over real sockets, for HTTP and gRPC, with certificates that are renewed; settings."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc
import httpx
import pytest
import uvicorn
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1._async import HealthServicer

from infra.settings import SettingsError
from models.serving.api import create_app
from models.serving.guards.settings import GuardSettings, parse_rate
from models.serving.guards.tls import grpc_credentials, reloader, uvicorn_options
from tests.certificates import Authority, Pair
from tests.unit.models.serving_parts import service


@asynccontextmanager
async def https(settings: GuardSettings) -> AsyncIterator[tuple[str, uvicorn.Config]]:
    config = uvicorn.Config(
        create_app(service()), port=0, log_level="critical", **uvicorn_options(settings)
    )
    server = uvicorn.Server(config)
    running = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"https://127.0.0.1:{port}", config
    finally:
        server.should_exit = True
        await running


def trusting(authority: Authority, own: Pair | None = None) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if own is not None:
        context.load_cert_chain(own.cert, own.key)
    return context


async def health(url: str, context: ssl.SSLContext) -> int:
    async with httpx.AsyncClient(verify=context) as http:
        return (await http.get(f"{url}/healthz")).status_code


async def test_https_asks_for_a_certificate_where_a_client_ca_is_set(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    pair = ours.pair("server")
    settings = GuardSettings(tls_cert=pair.cert, tls_key=pair.key)
    async with https(settings) as (url, _):
        assert await health(url, trusting(ours)) == 200
        with pytest.raises(httpx.ConnectError):
            await health(url, trusting(foreign))
    mutual = GuardSettings(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca)
    async with https(mutual) as (url, _):
        assert await health(url, trusting(ours, ours.pair("client"))) == 200
        for known in (None, foreign.pair("stranger")):
            with pytest.raises(httpx.TransportError):
                await health(url, trusting(ours, known))


async def test_a_renewed_certificate_counts_for_new_connections(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    pair = ours.pair("server")
    settings = GuardSettings(tls_cert=pair.cert, tls_key=pair.key)
    async with https(settings) as (url, config):
        assert config.ssl is not None
        look = reloader(settings, config.ssl)
        before = await served(url, trusting(ours))
        pair.cert.write_text("broken")
        look()
        assert await served(url, trusting(ours)) == before
        ours.pair("server")
        os.utime(pair.cert, (1, 1))
        look()
        assert await served(url, trusting(ours)) != before


async def served(url: str, context: ssl.SSLContext) -> bytes:
    """The certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    found: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return found


async def test_grpc_asks_for_a_certificate_where_a_client_ca_is_set(tmp_path: Path) -> None:
    ours, foreign = Authority(tmp_path), Authority(tmp_path, "foreign")
    pair = ours.pair("server")
    settings = GuardSettings(tls_cert=pair.cert, tls_key=pair.key, tls_client_ca=ours.ca)
    server = grpc.aio.server()
    health_pb2_grpc.add_HealthServicer_to_server(HealthServicer(), server)
    port = server.add_secure_port("127.0.0.1:0", grpc_credentials(settings))
    await server.start()

    async def check(own: Pair | None) -> int:
        roots = ours.ca.read_bytes()
        files = (own.key.read_bytes(), own.cert.read_bytes()) if own else (None, None)
        known = grpc.ssl_channel_credentials(roots, *files)
        async with grpc.aio.secure_channel(f"127.0.0.1:{port}", known) as channel:
            stub = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest(), timeout=10)
            return int(answer.status)

    try:
        assert await check(ours.pair("client")) == 1
        for known in (None, foreign.pair("stranger")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await check(known)
            assert caught.value.code() == grpc.StatusCode.UNAVAILABLE
        ours.pair("server")  # renewed while it runs
        assert await check(ours.pair("client")) == 1
    finally:
        await server.stop(0)


def test_settings_are_read_or_refused_by_name(tmp_path: Path) -> None:
    pair = Authority(tmp_path).pair("server")
    env = {
        "HOST": "0.0.0.0",
        "RATE": "600/m",
        "MAX_BODY": "2097152",
        "MAX_IN_FLIGHT": "32",
        "TLS_CERT": str(pair.cert),
        "TLS_KEY": str(pair.key),
    }
    made = GuardSettings.from_env({f"DRIFTLOG_SERVING_{name}": v for name, v in env.items()})
    assert (made.rate, made.max_body, made.max_in_flight) == (10.0, 2_097_152, 32)
    assert made.scheme == "https" and not made.loopback
    assert GuardSettings.from_env({}) == GuardSettings()
    for name, value in {
        "RATE": "fast",
        "OPEN": "maybe",
        "MAX_BODY": "0",
        "TIMEOUT": "x",
        "TLS_CERT": "/nowhere",
        "TLS_CLIENT_CA": str(pair.cert),
    }.items():
        with pytest.raises(SettingsError, match=f"DRIFTLOG_SERVING_{name}"):
            GuardSettings.from_env({f"DRIFTLOG_SERVING_{name}": value})


def test_rates() -> None:
    assert (parse_rate("1000/s"), parse_rate("90/m"), parse_rate("5")) == (1000.0, 1.5, 5.0)
    for bad in ("x", "1/d", "-1", "nan", "inf/s"):
        with pytest.raises(ValueError, match=r"number|negative"):
            parse_rate(bad)
