"""One access log record: what is known when a session ends. Built on the connection's path, formatted off the loop."""

from __future__ import annotations

from typing import NamedTuple


class Record(NamedTuple):
    """Times in seconds, `ended_at` since the epoch; addresses as `host:port` text parts. `endpoint` is "" where none was picked."""

    ended_at: float
    session: int
    listener: str
    client: str
    client_port: int
    upstream: str
    endpoint: str
    attempts: int
    sent_bytes: int
    received_bytes: int
    connect_s: float | None
    first_byte_s: float | None
    duration_s: float
    reason: str
    phase: str
    errno: int
