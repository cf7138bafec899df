"""Conformance J2: addresses with a zone, on every side."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import accept
from tests.patience import WITHIN_S
from tests.servers.netns import Namespace

ZONE = "[fe80::1%lo]"
LOOPBACK_INTERFACE = 1


def test_zone_ids_are_bound_dialled_admitted_and_told(start: Start, netns: Namespace) -> None:
    """J2: link-local on both sides; rules match the address whatever its zone"""
    netns.run(["ip", "address", "add", "fe80::1/64", "dev", "lo", "nodad"])
    with ExitStack() as open_:
        with netns.inside():
            listening = open_.enter_context(socket.socket(socket.AF_INET6))
        listening.settimeout(WITHIN_S)
        listening.bind(("fe80::1", 0, 0, LOOPBACK_INTERFACE))
        listening.listen()
        port = listening.getsockname()[1]
        lb = start(
            "admin: {bind: '127.0.0.1:0'}\n"
            "listeners:\n"
            f"  in: {{bind: '{ZONE}:0', upstream: up, allow: ['fe80::/10']}}\n"
            f"  shut: {{bind: '{ZONE}:0', upstream: up, deny: ['fe80::/10']}}\n"
            f"upstreams: {{up: {{endpoints: ['{ZONE}:{port}']}}}}\n",
            netns=netns,
        )
        binds = {one["name"]: one["binds"][0] for one in lb.get("/api/v1/listeners")["items"]}
        assert binds["in"].startswith(f"{ZONE}:")

        def client(listener: str) -> socket.socket:
            with netns.inside():
                made = open_.enter_context(socket.socket(socket.AF_INET6))
            made.settimeout(WITHIN_S)
            made.connect(("fe80::1", int(binds[listener].rpartition(":")[2]), 0, LOOPBACK_INTERFACE))
            return made

        inside = client("in")
        with accept(listening) as upstream:
            upstream.sendall(b"!")
            assert inside.recv(1) == b"!"
            (session,) = lb.sessions()
            assert session["endpoint"] == f"{ZONE}:{port}"
        inside.close()
        with pytest.raises(ConnectionResetError):  # by the connect itself, if the answer is that quick
            client("shut").recv(1)
        assert lb.total("lbproxy_listener_connections_rejected_total", listener="shut", reason="acl") == 1
        lb.until(lambda: len(lb.ended()) == 1)
        assert lb.ended()[0]["client"] == "fe80::1"
