"""Networks that refuse, stay silent, or have no ports left: each in a namespace of its own."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from tests.e2e.conftest import Start
from tests.e2e.peers import (
    accept,
    connect,
    listen,
    reset,
)
from tests.e2e.program import Program, config
from tests.patience import WITHIN_S
from tests.servers.netns import Namespace

PORTS = 20


def inside(netns: Namespace) -> tuple[socket.socket, int]:
    with netns.inside():
        return listen()


def client_of(netns: Namespace, lb: Program) -> socket.socket:
    with netns.inside():
        return connect(lb.address())


def test_unreachable_endpoint_is_left_for_the_next_at_once(start: Start, netns: Namespace) -> None:
    """D4: a router that answers with an ICMP error"""
    netns.nft(
        "table ip t { chain out { type filter hook output priority 0;"
        " ip daddr 127.0.0.8 tcp dport 81 reject with icmp type host-unreachable\n}\n}\n"
    )
    listening, port = inside(netns)
    with listening:
        patient = "connect: {timeout: 40s, budget: 50s}"
        lb = start(config(["address: '127.0.0.8:81'", port], upstream=patient), netns=netns)
        with ExitStack() as open_:
            for _ in range(4):
                client = open_.enter_context(client_of(netns, lb))
                upstream = open_.enter_context(accept(listening))
                upstream.sendall(b"!")
                assert client.recv(1) == b"!"
        lb.until(lambda: len(lb.ended()) == 4)
        assert {line["reason"] for line in lb.ended()} <= {"client_eof", "upstream_eof"}
        assert max(line["attempts"] for line in lb.ended()) == 2
        assert max(line["duration_ms"] for line in lb.ended()) < 30_000
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="unreachable") >= 1


def test_local_ports_that_run_out_are_no_fault_of_the_endpoint(start: Start, netns: Namespace) -> None:
    """D7: so few ephemeral ports that they run out; the endpoint stays eligible, and it goes on when one is free"""
    listening, port = inside(netns)
    with listening, ExitStack() as open_:
        lb = start(config([port]), netns=netns)
        address = lb.address()
        # Clients that choose their ports themselves: the few are for the program's own dials.
        netns.run(["sysctl", "-w", f"net.ipv4.ip_local_port_range=40000 {40000 + PORTS - 1}"])
        clients, peers = [], []

        def client(number: int) -> socket.socket:
            with netns.inside():
                made = open_.enter_context(socket.socket())
                made.settimeout(WITHIN_S)
                made.bind(("127.0.0.2", 20_000 + number))
                made.connect(address)
                return made

        for number in range(PORTS):
            clients.append(client(number))
            peers.append(open_.enter_context(accept(listening)))
        with pytest.raises(ConnectionResetError):
            client(PORTS).recv(1)
        lb.until(lambda: len(lb.ended()) == 1)
        (line,) = lb.ended()
        assert (line["reason"], line["errno"]) == ("local_ports", "EADDRNOTAVAIL")
        endpoint = lb.endpoints()[port]
        assert (endpoint["eligible"], endpoint["failure_streak"]) == (True, 0)
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="local") >= 1
        # An end by RST leaves no TIME_WAIT behind: the port is free at once.
        reset(clients[0])
        with pytest.raises(ConnectionResetError):
            peers[0].recv(1)
        lb.until(lambda: len(lb.ended()) == 2)
        again = client(PORTS + 1)
        with accept(listening) as upstream:
            upstream.sendall(b"!")
            assert again.recv(1) == b"!"


def test_time_out_of_the_kernels_own_is_a_time_out_like_ours(start: Start, netns: Namespace) -> None:
    """D9: ETIMEDOUT comes from the connect before our limit is met"""
    netns.nft(
        "table ip t { chain out { type filter hook output priority 0; ip daddr 127.0.0.8 tcp dport 81 drop\n}\n}\n"
    )
    netns.run(["sysctl", "-w", "net.ipv4.tcp_syn_retries=1"])  # the least: two seconds or three
    listening, port = inside(netns)
    with listening:
        tiers = ["address: '127.0.0.8:81'", f"address: '127.0.0.1:{port}', priority: 1"]
        lb = start(config(tiers, upstream="connect: {timeout: 1h, budget: 1h}"), netns=netns)
        with client_of(netns, lb) as client, accept(listening) as upstream:
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
        lb.until(lambda: len(lb.ended()) == 1)
        assert lb.ended()[0]["attempts"] == 2
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="timeout") == 1


def test_silent_network_costs_one_dials_time_and_not_the_session(start: Start, netns: Namespace) -> None:
    """D3: packets to the first endpoint vanish"""
    netns.nft(
        "table ip t { chain out { type filter hook output priority 0; ip daddr 127.0.0.8 tcp dport 81 drop\n}\n}\n"
    )
    listening, port = inside(netns)
    with listening:
        tiers = ["address: '127.0.0.8:81'", f"address: '127.0.0.1:{port}', priority: 1"]
        lb = start(config(tiers, upstream="connect: {timeout: 200ms, budget: 50s}"), netns=netns)
        with client_of(netns, lb) as client, accept(listening) as upstream:
            upstream.sendall(b"!")
            assert client.recv(1) == b"!"
        lb.until(lambda: len(lb.ended()) == 1)
        (line,) = lb.ended()
        assert line["attempts"] == 2
        assert 200 <= line["duration_ms"] < 30_000
        assert lb.total("lbproxy_endpoint_connect_failures_total", reason="timeout") == 1
