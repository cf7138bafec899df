# The binding of the C engine (module.c and its siblings).

from typing import Self, TypeAlias

REASONS: tuple[str, ...]
REASON_OF_ABORT: int
MAX_THREADS: int

_Connected: TypeAlias = tuple[int, float]
_Leg: TypeAlias = tuple[float | None, int] | None
# session, reason, phase, sent, received, connect_s, first_byte_s, total_s, errno, client or -1, whether the upstream is a unix socket
_Outcome: TypeAlias = tuple[int, int, int, int, int, float | None, float | None, float, int, int, int]

class Engine:
    def __new__(
        cls,
        threads: int,
        pipes: int,
        *,
        first_port: int = 0,
        last_port: int = 65535,
        connected_delay_ms: int = 0,
        keepalive_after_ms: int = 0,
        beat_ms: int = 1000,
        missed_beats: int = 10,
    ) -> Self: ...
    def submit(
        self,
        session: int,
        client: int,
        upstream: int,
        client_unix: int,
        upstream_unix: int,
        urgent_inline: int,
        first_bytes: bytes,
        connect_timeout_ms: int,
        idle_timeout_ms: int,
        half_close_timeout_ms: int,
        max_duration_ms: int,
        slot: int,
        keepalive_idle_s: int,
        keepalive_interval_s: int,
        keepalive_probes: int,
        /,
    ) -> int: ...
    # descriptor, address, port, pending errno
    def accept(self, listening: int, room: int, /) -> list[tuple[int, str, int, int]]: ...
    def prepare(
        self,
        family: int,
        port: int,
        sockaddr: bytes,
        socket_options: bytes,
        connect_timeout_ms: int,
        idle_timeout_ms: int,
        half_close_timeout_ms: int,
        max_duration_ms: int,
        slot: int,
        keepalive_idle_s: int,
        keepalive_interval_s: int,
        keepalive_probes: int,
        /,
    ) -> object: ...
    # a handle as of `submit`, or -errno of a failed connect
    def launch(self, session: int, client: int, client_unix: int, plan: object, /) -> int: ...
    def flush(self) -> None: ...
    def abort(self, handle: int, reason: int, reset: bool, /) -> bool: ...
    # The events: each is taken when the next one is asked for; what an iteration leaves is told by the next one.
    def __iter__(self) -> Self: ...
    def __next__(self) -> _Connected | _Outcome: ...
    # The descriptor becomes readable for what was left
    def call_again(self) -> None: ...
    def view(self, handle: int, /) -> tuple[int, int, int, float, float] | None: ...
    def look(self, handle: int, /) -> tuple[int, int, int, float, float, _Leg, _Leg] | None: ...
    def submitted(self) -> int: ...
    def totals(self) -> list[dict[str, int]]: ...
    def open_slot(self) -> int: ...
    def close_slot(self, slot: int, /) -> None: ...
    def read_slot(self, slot: int, /) -> tuple[int, int]: ...
    def fileno(self) -> int: ...
    def stop(self) -> None: ...
