"""``connect.py ADDRESS PORT COUNT SECONDS``: connects COUNT times one by one, then as fast as it goes.

Prints the times of the former in microseconds and the rate of the latter as JSON. A program of its own, so that it runs
in a namespace of its own. Connections end by reset, so that no port waits to be used again.
"""

import json
import select
import socket
import struct
import sys
import time

_AHEAD = 32
"""Connections that are made at the same time."""
_RESET = struct.pack("ii", 1, 0)


def one_by_one(address: str, port: int, count: int) -> list[float]:
    """Return the times to connect in microseconds."""
    times = []
    for _ in range(count):
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            begun = time.perf_counter()
            client.connect((address, port))
            times.append((time.perf_counter() - begun) * 1e6)
    return times


def at_once(address: str, port: int, seconds: float) -> float:
    """Return how many connections a second are made."""
    poll = select.epoll()
    clients: dict[int, socket.socket] = {}

    def begin() -> None:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        client.setblocking(False)
        client.connect_ex((address, port))
        clients[client.fileno()] = client
        poll.register(client, select.EPOLLOUT)

    for _ in range(_AHEAD):
        begin()
    done, begun = 0, time.perf_counter()
    # A short time may pass without one where a machine is busy, which is no rate.
    while (now := time.perf_counter()) < begun + seconds or not done:
        for number, event in poll.poll(0.2):
            poll.unregister(number)
            clients.pop(number).close()
            done += not event & select.EPOLLERR
            begin()
    return done / (now - begun)


if __name__ == "__main__":
    where = sys.argv[1], int(sys.argv[2])
    print(json.dumps({"us": one_by_one(*where, int(sys.argv[3])), "a second": at_once(*where, float(sys.argv[4]))}))
