"""What crosses a wire, captured by AF_PACKET (tcpdump) and decoded by scapy."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.utils import rdpcap

from netagent.lab.machine import Machine
from tests.support.lab import eventually

_FILE = "/run/captured.pcap"


@contextmanager
def captured(machine: Machine, *expression: str, interface: str = "eth0") -> Iterator[list[Any]]:
    """Fill the list, at the end, with the frames that crossed ``interface`` and match the pcap ``expression``.

    Those by which hosts test their ways to each other meanwhile are left out.
    """
    frames: list[Any] = []
    options = ("-i", interface, "-n", "-U", "--immediate-mode", "-Z", "root", "-w", _FILE)
    capture = machine.popen("tcpdump", *options, *expression, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        assert capture.stderr is not None
        eventually(lambda: "listening on" in capture.stderr.readline())
        yield frames
    finally:
        capture.terminate()
        capture.communicate(timeout=10)
    frames.extend(frame for frame in rdpcap(str(machine.path(_FILE))) if not _is_test_of_a_way(frame))


def _is_test_of_a_way(frame: Any) -> bool:
    """Tell whether the innermost packet comes from a host's own address in a network: the first one of its block."""
    packets = [layer for layer in map(frame.getlayer, range(len(frame.layers()))) if isinstance(layer, IP | IPv6)]
    return bool(packets) and packets[-1].src.endswith((".0", "::")) and packets[-1].src != "::"
