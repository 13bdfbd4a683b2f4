"""Ports that others have: named, with their owner."""

from __future__ import annotations

import os
import socket

import psutil
import pytest

from infra.ports import LINGERING, PortTaken, check_free, is_free, listener, listening, owner
from infra.settings import HOST
from tests.unit.infra.small import eventually, taken_port


def test_a_taken_port_is_named_with_its_owner() -> None:
    with taken_port() as port:
        assert not is_free(port) and listening(port)
        with pytest.raises(PortTaken) as caught:
            check_free([port])
    me = psutil.Process()
    assert f"port {port} is taken by {me.name()} (pid {me.pid})" in str(caught.value)
    assert "--port-offset" in str(caught.value), "it says what to do"


def test_all_taken_ports_are_named_at_once() -> None:
    with taken_port() as one, taken_port() as two, pytest.raises(PortTaken) as caught:
        check_free([one, two])
    assert str(one) in str(caught.value) and str(two) in str(caught.value)


def test_a_free_port_is_free_again_after_its_listener_is_gone() -> None:
    with taken_port() as port:
        assert not is_free(port)
    assert is_free(port) and not listening(port) and listener(port) is None
    check_free([port])


def test_a_connection_that_closed_a_moment_ago_does_not_take_a_port() -> None:
    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do
        server.bind((HOST, 0))
        server.listen()
        port = server.getsockname()[1]
        with socket.create_connection((HOST, port)):
            accepted, _ = server.accept()
            accepted.close()  # this end closes first and lingers in TIME_WAIT
    assert is_free(port)


def test_a_closed_outgoing_connection_keeps_its_port_for_a_while() -> None:
    with taken_port() as port, socket.create_connection((HOST, port)) as outgoing:
        own = outgoing.getsockname()[1]
        outgoing.shutdown(socket.SHUT_RDWR)
        assert not is_free(own)
    eventually(lambda: is_free(own) or owner(own) == LINGERING)


def test_a_port_lent_to_an_outgoing_connection_has_an_owner_too() -> None:
    with taken_port() as port, socket.create_connection((HOST, port)) as outgoing:
        own = outgoing.getsockname()[1]
        assert not is_free(own)
        assert f"(pid {os.getpid()})" in owner(own)
