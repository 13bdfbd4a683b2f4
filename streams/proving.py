"""TLS and SASL for connections of our own to brokers, with aiokafka's mechanisms and messages."""

from __future__ import annotations

import asyncio
import io
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiokafka.conn import SaslPlainAuthenticator, ScramAuthenticator
from aiokafka.protocol.admin import (
    SaslAuthenticateRequest,
    SaslAuthenticateRequest_v1,
    SaslHandShakeRequest,
    SaslHandShakeRequest_v1,
)

from infra.kafka_security import KafkaSecurity
from streams.log import LogUnavailable

Ask = Callable[[Any], Awaitable[Any]]
"""Sends a request and returns the body of the answer, an array of bytes."""


@dataclass(frozen=True, slots=True)
class Secured:
    """How a connection is made: within TLS or not, and by whose name."""

    security: KafkaSecurity
    tls: ssl.SSLContext | None

    @classmethod
    def by(cls, security: KafkaSecurity) -> Secured:
        """Raises SettingsError for files of TLS that cannot be used."""
        return cls(security, security.context())

    async def prove(self, ask: Ask) -> None:
        """Authenticate, if brokers want it; raises LogUnavailable if they do not believe it."""
        if not self.security.sasl:
            return
        hello = SaslHandShakeRequest(self.security.mechanism).build(SaslHandShakeRequest_v1)
        offered = await _answer(ask, hello)
        if offered.error_code:
            known = ", ".join(offered.enabled_mechanisms)
            raise LogUnavailable(f"brokers take {known}, not {self.security.mechanism}")
        steps = self._steps()
        said: bytes | None = None
        while (step := await steps.step(said)) is not None:
            request = SaslAuthenticateRequest(step[0]).build(SaslAuthenticateRequest_v1)
            answer = await _answer(ask, request)
            if answer.error_code:
                raise LogUnavailable(f"user {self.security.username}: {answer.error_message}")
            said = answer.sasl_auth_bytes

    def _steps(self) -> Any:
        who = {
            "loop": asyncio.get_running_loop(),
            "sasl_plain_username": self.security.username,
            "sasl_plain_password": self.security.password,
        }
        if self.security.mechanism == "PLAIN":
            return SaslPlainAuthenticator(**who)
        return ScramAuthenticator(**who, sasl_mechanism=self.security.mechanism)


async def _answer(ask: Ask, request: Any) -> Any:
    return request.RESPONSE_TYPE.decode(io.BytesIO((await ask(request)).data))
