"""Asks one nameserver as fast as it answers, then at half of that: prints answers a second and latencies as JSON.

``python dns_load.py ADDRESS SECONDS NAME...``. A program of its own, so that it runs in a container's namespace.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import time
from itertools import cycle

_AHEAD = 64
"""Questions under way at once: what keeps a server busy without filling its socket's buffer."""
_LOST_AFTER_S = 0.5
_PATIENCE_S = 30.0
"""For the first answer."""
_SO_RCVBUFFORCE = 33
"""include/uapi/asm-generic/socket.h"""


def question(name: str) -> bytes:
    """Return an A query without its id."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!5H", 0x0100, 1, 0, 0, 0) + labels + b"\0\0\1\0\1"


def saturate(asking: socket.socket, questions: list[bytes], seconds: float) -> tuple[int, float]:
    """Return the answers, and those a second, with always ``_AHEAD`` questions under way."""
    packets = cycle([number.to_bytes(2, "big") + tail for number, tail in enumerate(questions * 64)])
    asking.settimeout(_LOST_AFTER_S)
    for _ in range(_AHEAD):
        asking.send(next(packets))
    answered, begun = 0, time.perf_counter()
    end = begun + seconds
    # A short time may pass without an answer where a machine is busy, which is no rate.
    while time.perf_counter() < end or (not answered and time.perf_counter() < end + _PATIENCE_S):
        try:
            for _ in range(_AHEAD):
                asking.recv(2048)
                answered += 1
                asking.send(next(packets))
        except TimeoutError:
            for _ in range(_AHEAD):
                asking.send(next(packets))
    return answered, answered / (time.perf_counter() - begun)


def pace(asking: socket.socket, questions: list[bytes], rate: float, seconds: float) -> list[float]:
    """Return the latencies in seconds of questions that come at ``rate`` a second; those of lost ones are infinite."""
    asking.setblocking(False)
    _drain(asking)
    sent: dict[int, float] = {}
    latencies: list[float] = []
    tails = cycle(questions)
    begun = time.perf_counter()
    total = max(int(rate * seconds), 1)
    number = 0
    while number < total or (sent and time.perf_counter() < begun + seconds + _LOST_AFTER_S):
        now = time.perf_counter()
        if number < total and now >= begun + number / rate:
            identity = number & 0xFFFF
            asking.send(identity.to_bytes(2, "big") + next(tails))
            sent[identity] = now
            number += 1
        try:
            reply = asking.recv(2048)
        except BlockingIOError:
            wait = begun + number / rate - time.perf_counter() if number < total else _LOST_AFTER_S
            if wait > 0:
                select.select([asking], [], [], min(wait, _LOST_AFTER_S))
            continue
        begin = sent.pop(int.from_bytes(reply[:2], "big"), None)
        if begin is not None:
            latencies.append(time.perf_counter() - begin)
    return latencies + [float("inf")] * len(sent)


def _drain(asking: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        time.sleep(_LOST_AFTER_S)
        while True:
            asking.recv(2048)


def main(address: str, seconds: str, *names: str) -> None:
    """Ask and print."""
    questions = [question(name) for name in names]
    with socket.socket(type=socket.SOCK_DGRAM) as asking:
        asking.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 4 << 20)
        asking.connect((address, 53))
        asking.settimeout(_PATIENCE_S)
        asking.send(b"\0\0" + questions[0])
        if asking.recv(2048)[3] & 0xF:
            raise SystemExit(f"{address} does not know {names[0]}")
        answered, rate = saturate(asking, questions, float(seconds))
        latencies = sorted(pace(asking, questions, rate / 2, float(seconds)))
    delays = [each if each < float("inf") else _LOST_AFTER_S for each in latencies]
    print(json.dumps({"answered": answered + len(delays), "rate": rate, "latencies": delays}))


if __name__ == "__main__":
    main(*sys.argv[1:])
