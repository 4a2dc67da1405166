"""What crosses a wire, captured by AF_PACKET (tcpdump) and decoded by scapy."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from netagent.lab.machine import Machine
from tests.support.lab import eventually

_FILE = "/run/captured.pcap"
_LAST_TYPE, _LAST_WORDS = 0x88B5, b"nothing more is captured"
"""The frame that ends a capture, of a local Ethernet type: what tcpdump has not read by then is lost."""
_SEND_LAST = f"""
import socket, sys
wire = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
wire.bind((sys.argv[1], 0))
wire.send(bytes(12) + {_LAST_TYPE.to_bytes(2)!r} + {_LAST_WORDS.ljust(46)!r})
"""


@contextmanager
def captured(
    machine: Machine, expression: str, *, interface: str = "eth0", inside: Sequence[str] = ()
) -> Iterator[list[Any]]:
    """Fill the list, at the end, with the frames that crossed ``interface`` and match the pcap ``expression``.

    Those by which hosts test their ways to each other meanwhile are left out. ``inside`` is what leads a command into a
    namespace of the machine's.
    """
    frames: list[Any] = []
    options = ("-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", _FILE)
    command = (*inside, "tcpdump", *options, f"({expression}) or ether proto {_LAST_TYPE}")
    capture = machine.popen(*command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    file = machine.path(_FILE)
    try:
        assert capture.stderr is not None
        eventually(lambda: "listening on" in capture.stderr.readline())
        yield frames
        machine.run(*inside, sys.executable, "-ISc", _SEND_LAST, interface)
        eventually(lambda: _LAST_WORDS in file.read_bytes())
    finally:
        capture.terminate()
        capture.communicate(timeout=30)
    found = [frame for frame in rdpcap(str(file)) if frame.type != _LAST_TYPE]
    frames.extend(frame for frame in found if not _is_test_of_a_way(frame))


def _is_test_of_a_way(frame: Any) -> bool:
    """Tell whether the innermost packet comes from a host's own address in a network: the first one of its block."""
    packets = [layer for layer in map(frame.getlayer, range(len(frame.layers()))) if isinstance(layer, IP | IPv6)]
    return bool(packets) and packets[-1].src.endswith((".0", "::")) and packets[-1].src != "::"
