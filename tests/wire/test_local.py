"""What the machine says of itself: its own addresses, and who listens on a port."""

from __future__ import annotations

import os
import socket

import pytest

from lbproxy.domain.address import Address
from lbproxy.wire import local
from lbproxy.wire.local import REMEMBERED_S, Locals, is_local, port_holder


@pytest.mark.parametrize("ip", ["127.0.0.1", "127.9.9.9"])
def test_loopback_is_ours(ip: str) -> None:
    assert is_local(ip)


@pytest.mark.parametrize("ip", ["192.0.2.1", "203.0.113.77", "2001:db8::1", "fe80::1%nosuchif"])
def test_addresses_of_others_are_not(ip: str) -> None:
    """Addresses for documentation (RFC 5737, RFC 3849), which nobody has."""
    assert not is_local(ip)


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0"])
def test_a_listening_port_names_its_process(host: str) -> None:
    with socket.socket() as listening:
        listening.bind((host, 0))
        listening.listen()
        holder = port_holder(Address("127.0.0.1", listening.getsockname()[1], "inet"))
    assert holder is not None
    assert holder.endswith(f"(pid {os.getpid()})")


def test_a_port_bound_without_listening_has_no_holder() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        assert port_holder(Address("127.0.0.1", bound.getsockname()[1], "inet")) is None


def test_a_port_of_nobody_has_no_holder() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert port_holder(Address("127.0.0.1", port, "inet")) is None


def test_the_kernel_is_asked_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    now = [0.0]

    def ask(ip: str) -> bool:
        asked.append(ip)
        return True

    monkeypatch.setattr(local, "is_local", ask)
    locals_ = Locals(lambda: now[0])
    assert [locals_.holds("10.0.0.1") for _ in range(3)] == [True] * 3
    now[0] = REMEMBERED_S + 1
    assert locals_.holds("10.0.0.1")
    assert asked == ["10.0.0.1"] * 2
