"""A session's life as data: its states and legal moves, its phases, and the closed set of reasons for which it ends."""

from __future__ import annotations

from enum import Enum, StrEnum
from typing import Final


class State(Enum):
    """Where a session stands (design 5)."""

    # Every session looks its moves up: Enum's own hash is a Python function (3.11).
    __hash__ = object.__hash__

    ACCEPTED = "accepted"
    ADMITTED = "admitted"
    ROUTED = "routed"
    WAITING = "waiting"
    PICKED = "picked"
    DIALING = "dialing"
    RELAYING = "relaying"
    HALF_CLOSED = "half_closed"
    ENDED = "ended"


MOVES: Final[dict[State, frozenset[State]]] = {
    State.ACCEPTED: frozenset({State.ADMITTED, State.ENDED}),
    State.ADMITTED: frozenset({State.ROUTED, State.ENDED}),
    State.ROUTED: frozenset({State.PICKED, State.WAITING, State.ENDED}),
    State.WAITING: frozenset({State.PICKED, State.ENDED}),
    State.PICKED: frozenset({State.DIALING, State.WAITING, State.ENDED}),
    State.DIALING: frozenset({State.RELAYING, State.PICKED, State.WAITING, State.ENDED}),
    State.RELAYING: frozenset({State.HALF_CLOSED, State.ENDED}),
    State.HALF_CLOSED: frozenset({State.ENDED}),
    State.ENDED: frozenset(),
}


class Phase(StrEnum):
    """The phase in which a session ended, as the access log names it."""

    ACCEPT = "accept"
    ROUTE = "route"
    WAIT = "wait"
    CONNECT = "connect"
    RELAY = "relay"
    HALF_CLOSED = "half_closed"


class EndReason(StrEnum):
    """Why a session ended: who, and what. FIN, RST and time-out are different facts; every session has exactly one."""

    __hash__ = str.__hash__  # as its string's, which it equals; Enum's own is a Python function

    CLIENT_EOF = "client_eof"
    UPSTREAM_EOF = "upstream_eof"
    CLIENT_RESET = "client_reset"
    UPSTREAM_RESET = "upstream_reset"
    IDLE_TIMEOUT = "idle_timeout"
    HALF_CLOSE_TIMEOUT = "half_close_timeout"
    MAX_DURATION = "max_duration"
    CONNECT_REFUSED = "connect_refused"
    CONNECT_TIMEOUT = "connect_timeout"
    CONNECT_UNREACHABLE = "connect_unreachable"
    CONNECT_BUDGET = "connect_budget"
    NO_ENDPOINT = "no_endpoint"
    FULL = "full"
    QUEUE_TIMEOUT = "queue_timeout"
    LOCAL_PORTS = "local_ports"
    LOCAL_FDS = "local_fds"
    CLIENT_GONE = "client_gone"
    DRAINED = "drained"
    KILLED = "killed"
    ENDPOINT_DOWN = "endpoint_down"
    HANDSHAKE_FAILED = "handshake_failed"
    INTERNAL_ERROR = "internal_error"


class Rejection(StrEnum):
    """Why a connection was turned away. It never became a session, but for `full`, which is found out when an endpoint is picked."""

    ACL = "acl"
    RATE = "rate"
    PER_SOURCE = "per_source"
    FULL = "full"
    DRAINING = "draining"
    HANDSHAKE = "handshake"
