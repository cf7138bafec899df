"""All addresses are bound, or none; and the reason names the listener and who holds the port."""

from __future__ import annotations

import os
import socket

import pytest

from lbproxy.app.binds import BindError, inherited_sockets, open_new, place
from lbproxy.domain.address import Address, ip_address, unix_address
from lbproxy.proxy.options import ListenerOptions


def listeners(**binds: tuple[Address, ...]) -> dict[str, ListenerOptions]:
    return {name: ListenerOptions(name, addresses, "up") for name, addresses in binds.items()}


def test_a_taken_port_is_told_with_its_listener_and_its_holder_and_nothing_stays_open() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        wanted = listeners(web=(ip_address("127.0.0.1", 0),), db=(ip_address("127.0.0.1", port),))
        with pytest.raises(BindError) as caught:
            open_new(wanted, (), {})
        [line] = caught.value.explained()
    assert caught.value.errors == (f"listener db: cannot bind 127.0.0.1:{port}: Address already in use",)
    assert line.startswith(f"{caught.value.errors[0]} (held by ")
    assert f"(pid {os.getpid()})" in line


def test_what_is_bound_already_is_left_alone() -> None:
    address = ip_address("127.0.0.1", 0)
    assert open_new(listeners(web=(address,)), [place("web", address)], {}) == {}


def test_listeners_that_leave_their_port_to_the_kernel_share_none() -> None:
    address = ip_address("127.0.0.1", 0)
    opened = open_new(listeners(web=(address,), db=(address,)), (), {})
    assert len({listening.getsockname() for listening in opened.values()}) == 2
    for listening in opened.values():
        listening.close()


def test_both_wildcards_of_one_port_bind_side_by_side() -> None:
    """J3."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    opened = open_new(listeners(web=(ip_address("0.0.0.0", port), ip_address("::", port))), (), {})
    assert len(opened) == 2
    for listening in opened.values():
        listening.close()


def test_an_inherited_socket_is_used_for_its_address() -> None:
    passed = socket.create_server(("127.0.0.1", 0))
    port = passed.getsockname()[1]
    inherited = inherited_sockets([("web.socket", passed)])
    opened = open_new(listeners(web=(ip_address("127.0.0.1", port),)), (), inherited)
    assert inherited == {}
    [listening] = opened.values()
    assert listening.getsockname() == ("127.0.0.1", port)
    listening.close()


def test_an_inherited_abstract_socket_is_known_by_its_name() -> None:
    passed = socket.socket(socket.AF_UNIX)
    passed.bind(f"\0lbproxy-{os.getpid()}")
    [(address, raw)] = inherited_sockets([("x", passed)]).items()
    assert address == unix_address(f"@lbproxy-{os.getpid()}")
    raw.close()
