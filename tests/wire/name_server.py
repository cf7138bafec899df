"""A DNS server on loopback, over UDP and TCP on one port, that answers as its test says."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

Question = tuple[str, str]
"""The name (no trailing dot) and `A`, `AAAA` or `SRV`."""
Script = Callable[[dns.message.Message], bytes | None]
"""From a query to the answer's bytes; None is silence."""


def records(*values: str, ttl: int = 60, alias: tuple[str, int] | None = None) -> Script:
    """Addresses (none: no data), behind a CNAME with a TTL of its own if `alias` is given."""

    def answer(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        question = query.question[0]
        owner = question.name.to_text()
        if alias is not None:
            response.answer.append(dns.rrset.from_text(owner, alias[1], "IN", "CNAME", alias[0]))
            owner = alias[0]
        if values:
            kind = dns.rdatatype.to_text(question.rdtype)
            response.answer.append(dns.rrset.from_text(owner, ttl, "IN", kind, *values))
        return response.to_wire(max_size=65535)

    return answer


def rcode(code: dns.rcode.Rcode) -> Script:
    def answer(query: dns.message.Message) -> bytes:
        response = dns.message.make_response(query)
        response.set_rcode(code)
        return response.to_wire()

    return answer


NO_SUCH_NAME = rcode(dns.rcode.NXDOMAIN)
SERVER_FAILURE = rcode(dns.rcode.SERVFAIL)
NO_DATA = records()


def silence(query: dns.message.Message) -> None:
    return None


def garbage(query: dns.message.Message) -> bytes:
    return b"\x00garbage" * 4


def stranger(query: dns.message.Message) -> bytes:
    """A well-formed answer to another query."""
    query.id = (query.id + 1) % 65536
    lies = {
        dns.rdatatype.A: "10.6.6.6",
        dns.rdatatype.AAAA: "2001:db8::666",
        dns.rdatatype.SRV: "0 0 66 six.",
    }
    return records(lies[query.question[0].rdtype])(query) or b""


class NameServer:
    """`answers` maps a question to its script; what it does not name does not exist. `asked` holds (transport, question)."""

    def __init__(self) -> None:
        self.answers: dict[Question, Script] = {}
        self.asked: list[tuple[str, Question]] = []
        self.questions: asyncio.Queue[Question] = asyncio.Queue()  # the same, for those who wait
        self.address = ("127.0.0.1", 0)

    def both(self, name: str, script: Script) -> None:
        for kind in ("A", "AAAA"):
            self.answers[name, kind] = script

    def reply(self, transport: str, data: bytes) -> bytes | None:
        query = dns.message.from_wire(data)
        question = (
            query.question[0].name.to_text(omit_final_dot=True),
            dns.rdatatype.to_text(query.question[0].rdtype),
        )
        self.asked.append((transport, question))
        self.questions.put_nowait(question)
        answer = self.answers.get(question, NO_SUCH_NAME)(query)
        if answer is not None and transport == "udp" and len(answer) > 512:
            cut = dns.message.make_response(query)
            cut.flags |= dns.flags.TC
            return cut.to_wire()
        return answer


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, server: NameServer) -> None:
        self._server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:  # type: ignore[override]
        self._transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        answer = self._server.reply("udp", data)
        if answer is not None:
            self._transport.sendto(answer, addr)


@asynccontextmanager
async def name_server() -> AsyncIterator[NameServer]:
    """A server that runs for as long as the context."""
    server = NameServer()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        answer = server.reply("tcp", await reader.readexactly(size))
        if answer is not None:
            writer.write(len(answer).to_bytes(2, "big") + answer)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    loop = asyncio.get_running_loop()
    datagrams, streams = _pair_of_sockets()
    server.address = datagrams.getsockname()
    transport, _ = await loop.create_datagram_endpoint(lambda: _Datagrams(server), sock=datagrams)
    listener = await asyncio.start_server(serve, sock=streams)
    try:
        yield server
    finally:
        transport.close()
        listener.close()
        await listener.wait_closed()


def _pair_of_sockets() -> tuple[socket.socket, socket.socket]:
    """UDP and TCP on one port number, chosen by the kernel."""
    for _ in range(20):
        datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        streams = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        try:
            datagrams.bind(("127.0.0.1", 0))
            streams.bind(datagrams.getsockname())
        except OSError:  # the number is free for one of them only
            datagrams.close()
            streams.close()
            continue
        return datagrams, streams
    raise OSError("no port is free for both UDP and TCP")
