"""What crosses a wire, captured by AF_PACKET (tcpdump) and decoded by scapy."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from scapy.utils import rdpcap

from netagent.lab.machine import Machine
from tests.support.lab import eventually

_FILE = "/run/captured.pcap"


@contextmanager
def captured(machine: Machine, *expression: str, interface: str = "eth0") -> Iterator[list[Any]]:
    """Fill the list, at the end, with the frames that crossed ``interface`` and match the pcap ``expression``."""
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
    frames.extend(rdpcap(str(machine.path(_FILE))))
