"""What a relay stands between: plain sockets driven step by step on the test's own event loop."""

from __future__ import annotations

import asyncio
import random
import select
import socket
import struct
import sys
from typing import Final

from tests.patience import WITHIN_S

CHUNK_BYTES: Final = 1 << 18
PATTERN_BYTES: Final = 1 << 24  # the generator makes less than 256 MiB at a time
STALLED_AFTER_S: Final = 0.4


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes that no other seed has, so that a mix-up or a shift shows."""
    chance = random.Random(seed)
    return b"".join(chance.randbytes(min(PATTERN_BYTES, size - at)) for at in range(0, size, PATTERN_BYTES))


async def pause(seconds: float) -> None:
    """Let real time pass, in a test whose subject is time (never to wait for a condition)."""
    await asyncio.sleep(seconds)


def segments_received(sock: socket.socket) -> int:
    """`tcpi_segs_in` of linux/tcp.h."""
    return int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 144)[140:], sys.byteorder)


class Peer:
    """A client or an upstream. Every wait has a bound, so that a stall is a failure and not a hang."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        if sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def send(self, data: bytes) -> None:
        async with asyncio.timeout(WITHIN_S):
            await asyncio.get_running_loop().sock_sendall(self.sock, data)

    async def receive(self, limit: int = CHUNK_BYTES) -> bytes:
        """What is there, at most `limit` bytes; b"" is the FIN. Raises ConnectionResetError on an RST."""
        async with asyncio.timeout(WITHIN_S):
            return await asyncio.get_running_loop().sock_recv(self.sock, limit)

    async def receive_exactly(self, size: int) -> bytes:
        data = bytearray()
        while len(data) < size:
            more = await self.receive(min(CHUNK_BYTES, size - len(data)))
            assert more, f"FIN after {len(data)} of {size} bytes"
            data += more
        return bytes(data)

    async def receive_all(self) -> bytes:
        """Everything up to the FIN."""
        data = bytearray()
        while more := await self.receive():
            data += more
        return bytes(data)

    async def receive_until_reset(self, limit: int = CHUNK_BYTES) -> bytes:
        """Everything up to the RST, at most `limit` bytes a turn of the loop. A FIN instead is a failure: the stream
        would look whole."""
        data = bytearray()
        try:
            while more := await self.receive(limit):
                data += more
                await asyncio.sleep(0)
        except ConnectionResetError:
            return bytes(data)
        raise AssertionError(f"FIN after {len(data)} bytes, where an RST was due")

    async def echo(self) -> None:
        """Send back what comes until the FIN, then send a FIN."""
        while data := await self.receive():
            await self.send(data)
        self.fin()

    def send_some(self, data: bytes | memoryview) -> int:
        """Send what the kernel takes of `data` at once; how many bytes that is."""
        try:
            return self.sock.send(data)
        except BlockingIOError:
            return 0

    async def fill(self, data: bytes) -> int:
        """Send `data` until nothing more was taken for a while; how many bytes were taken."""
        loop = asyncio.get_running_loop()
        view = memoryview(data)
        sent = 0
        moved_at = loop.time()
        while sent < len(data) and loop.time() - moved_at < STALLED_AFTER_S:
            taken = self.send_some(view[sent : sent + CHUNK_BYTES])
            if taken:
                sent += taken
                moved_at = loop.time()
            await asyncio.sleep(0 if taken else 0.001)
        return sent

    def urgent(self, data: bytes) -> None:
        """Send with MSG_OOB: the last byte is the urgent one."""
        assert self.sock.send(data, socket.MSG_OOB) == len(data)

    def fin(self) -> None:
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Close with an RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    def close(self) -> None:
        self.sock.close()

    async def gone(self) -> None:
        """Read until the connection is over on this side, by FIN or RST, whatever comes before."""
        try:
            while await self.receive():
                pass
        except ConnectionError:
            return


def readable_now(sock: socket.socket) -> bool:
    """Whether a read would give something, an end included."""
    return bool(select.select([sock], [], [], 0)[0])
