"""Connections that do nothing, as two programs of their own: each holds one end, so that no process needs more than 10,000.

python benchmarks/idle.py serve PORT     answers the first bytes of each connection with the same, then keeps it
python benchmarks/idle.py hold PORT      for each number read from stdin, opens connections until it has so many, each one tried
                                         out with an answer, and prints the number; at the end of stdin closes them all
"""

from __future__ import annotations

import select
import socket
import struct
import sys

HELLO = b"are you there?\n"
ANSWER_WITHIN_S = 10
RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # no ports left waiting


def serve(port: int) -> None:
    """Echo, for ever."""
    listening = socket.create_server(("127.0.0.1", port), backlog=4096)
    ready = select.epoll()
    ready.register(listening, select.EPOLLIN)
    clients: dict[int, socket.socket] = {}
    while True:
        for fd, _ in ready.poll():
            if fd == listening.fileno():
                client, _ = listening.accept()
                clients[client.fileno()] = client
                ready.register(client, select.EPOLLIN)
                continue
            try:
                data = clients[fd].recv(4096)
                if data:
                    clients[fd].sendall(data)
                    continue
            except ConnectionError as error:
                print(error)
            ready.unregister(fd)
            clients.pop(fd).close()


def hold(port: int) -> None:
    """Open what stdin asks for."""
    held: list[socket.socket] = []
    for line in sys.stdin:
        while len(held) < int(line):
            client = socket.create_connection(("127.0.0.1", port), ANSWER_WITHIN_S)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
            client.sendall(HELLO)
            if client.recv(len(HELLO), socket.MSG_WAITALL) != HELLO:
                raise ConnectionError(f"connection {len(held) + 1} was not answered")
            held.append(client)
        print(len(held), flush=True)


if __name__ == "__main__":
    {"serve": serve, "hold": hold}[sys.argv[1]](int(sys.argv[2]))
