"""``exchange.py serve PORT`` answers bytes; ``exchange.py ask ADDRESS PORT SECONDS`` exchanges them one by one.

The asker prints the times of round trips in microseconds as JSON, ``{"udp": [...], "tcp": [...]}``. A program of its
own, so that it runs in a container's namespace.
"""

import json
import select
import socket
import sys
import time

_WARM = 20
_LOST_AFTER_S = 0.5


def serve(port: int) -> None:
    """Answer until killed."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("", port))
    listening = socket.create_server(("", port))
    open_now: list[socket.socket] = [udp, listening]
    while True:
        for ready in select.select(open_now, [], [])[0]:
            if ready is udp:
                data, whom = udp.recvfrom(2048)
                udp.sendto(data, whom)
            elif ready is listening:
                accepted, _ = listening.accept()
                accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                open_now.append(accepted)
            elif data := ready.recv(2048):
                ready.sendall(data)
            else:
                open_now.remove(ready)
                ready.close()


def ask(address: str, port: int, seconds: float) -> dict[str, list[float]]:
    """Return the round trips in microseconds."""
    times = {}
    for name, kind in (("udp", socket.SOCK_DGRAM), ("tcp", socket.SOCK_STREAM)):
        with socket.socket(socket.AF_INET, kind) as asking:
            asking.settimeout(_LOST_AFTER_S)
            asking.connect((address, port))
            if name == "tcp":
                asking.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            times[name] = _exchange(asking, seconds)
    return times


def _exchange(asking: socket.socket, seconds: float) -> list[float]:
    times: list[float] = []
    end = time.perf_counter() + seconds
    while (begun := time.perf_counter()) < end or len(times) <= _WARM:
        asking.send(b"x" * 64)
        try:
            asking.recv(2048)
        except TimeoutError:
            continue
        times.append((time.perf_counter() - begun) * 1e6)
    return times[_WARM:]


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(int(sys.argv[2]))
    else:
        print(json.dumps(ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))))
