"""A nameserver for tests: ``python nameserver.py ADDRESS LOG`` answers any name, and notes who asked what and how.

A is 192.0.2.80, TXT is "hello"; names that begin with ``big`` have so many TXT records that they need TCP, and those
that begin with ``silent`` get no answer.
"""

import socket
import struct
import sys
import threading
from pathlib import Path

_POINTER = b"\xc0\x0c"
_MANY = 40


def reply(packet: bytes, *, tcp: bool) -> tuple[str, bytes]:
    """Return what was asked, as the log notes it, and the reply."""
    labels, offset = [], 12
    while length := packet[offset]:
        labels.append(packet[offset + 1 : offset + 1 + length].decode())
        offset += 1 + length
    (kind,) = struct.unpack_from("!H", packet, offset + 1)
    question, name = packet[12 : offset + 5], ".".join(labels).lower()
    answers = []
    if kind == 1:
        answers = [record(1, socket.inet_aton("192.0.2.80"))]
    elif kind == 16:
        texts = [b"x" * 100] * _MANY if name.startswith("big") else [b"hello"]
        answers = [record(16, bytes([len(text)]) + text) for text in texts]
    cut = not tcp and len(answers) == _MANY
    flags = 0x8180 | (0x0200 if cut else 0)
    counts = struct.pack("!5H", flags, 1, 0 if cut else len(answers), 0, 0)
    note = f"{'tcp' if tcp else 'udp'} {kind} {name}"
    return note, packet[:2] + counts + question + (b"" if cut else b"".join(answers))


def record(kind: int, data: bytes) -> bytes:
    """Return a record of the name that was asked for."""
    return _POINTER + struct.pack("!2HIH", kind, 1, 60, len(data)) + data


def main(address: str, log: str) -> None:
    """Serve until killed."""
    with (
        Path(log).open("a", buffering=1) as notes,
        socket.socket(type=socket.SOCK_DGRAM) as udp,
        socket.socket() as tcp,
    ):
        for each in (udp, tcp):
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((address, 53))
        tcp.listen()

        def serve_tcp() -> None:
            while True:
                with tcp.accept()[0] as connection:
                    stream = connection.makefile("rwb")
                    packet = stream.read(int.from_bytes(stream.read(2), "big"))
                    note, answer = reply(packet, tcp=True)
                    notes.write(note + "\n")
                    stream.write(len(answer).to_bytes(2, "big") + answer)
                    stream.flush()

        threading.Thread(target=serve_tcp, daemon=True).start()
        print("ready", flush=True)
        while True:
            packet, source = udp.recvfrom(4096)
            note, answer = reply(packet, tcp=False)
            notes.write(note + "\n")
            if " silent" not in note:
                udp.sendto(answer, source)


if __name__ == "__main__":
    main(*sys.argv[1:])
