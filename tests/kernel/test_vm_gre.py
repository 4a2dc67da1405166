"""The kernel's GRE, on a kernel that has it: between two hosts, and with Open vSwitch on a third.

One boot for the file; ``tests/support/vm_gre.py`` is what runs in there, and its name for each thing is the test's.
"""

import base64
import io
import sys
from pathlib import Path
from typing import Any

import pytest
from scapy.layers.inet import IP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import GRE, Ether
from scapy.utils import rdpcap

from tests.support.vm import found_in_vm
from tests.support.vm_gre import KEYS

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(700)]

ROOT = Path(__file__).parents[2]
H1, H2, H3 = ("198.18.0.1", "198.18.0.2", "198.18.0.3")


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return found_in_vm([sys.executable, "-m", "tests.support.vm_gre"], directory=ROOT, timeout=600)


@pytest.mark.parametrize("host", ["h1", "h2", "h3"])
def test_what_was_applied_is_seen_as_it_should_be(found: dict[str, Any], host: str) -> None:
    assert found[f"left to do on {host}"] == []


@pytest.mark.parametrize(
    "way",
    [
        "kernel to kernel, IPv4",
        "kernel to kernel, IPv6",
        "kernel to kernel, back",
        "kernel to kernel, full size",
        "kernel to kernel over IPv6",
        "kernel to Open vSwitch, IPv4",
        "kernel to Open vSwitch, IPv6",
        "Open vSwitch to kernel, full size",
    ],
)
def test_containers_reach_each_other(found: dict[str, Any], way: str) -> None:
    assert found[way]


def test_a_block_is_one_route_that_says_key_and_peer(found: dict[str, Any]) -> None:
    routes = [" ".join(line.split()) for line in found["routes"].splitlines()]
    (route,) = [line for line in routes if line.startswith("192.168.2.0/24")]
    assert f"encap ip id {KEYS['net']} src {H1} dst {H2}" in route
    assert "via 192.168.2.0 dev nagre4" in route


def test_only_a_peers_packet_with_its_own_sources_and_into_its_own_network_arrives(found: dict[str, Any]) -> None:
    assert found["a peer's packet arrives"]
    assert not found["a stranger's packet arrives"]
    assert not found["a packet for another network arrives"]
    assert not found["a packet from another peer's address arrives"]
    assert not found["a packet from nobody's address arrives"]


def test_every_frame_has_its_networks_key_the_hosts_outside_and_the_containers_inside(found: dict[str, Any]) -> None:
    frames = rdpcap(io.BytesIO(base64.b64decode(found["frames"])))
    tunnelled = [frame for frame in frames if GRE in frame]
    seen = {
        (frame[GRE].key, IPv6 in frame[GRE][Ether], frozenset((_outer(frame).src, _outer(frame).dst)))
        for frame in tunnelled
    }
    six = frozenset(("fd00:198:18::1", "fd00:198:18::2"))
    assert seen == {
        (KEYS["net"], False, frozenset((H1, H2))),
        (KEYS["net"], True, frozenset((H1, H2))),
        (KEYS["net"], False, frozenset((H1, H3))),
        (KEYS["six"], False, six),
    }
    assert all(frame[GRE].proto == 0x6558 for frame in tunnelled)
    inner = {str(frame[GRE][Ether][IP].src) for frame in tunnelled if IP in frame[GRE][Ether]}
    assert inner == {"192.168.1.1", "192.168.2.1", "192.168.3.1", "10.66.1.1", "10.66.2.1"}
    bare = [frame for frame in frames if GRE not in frame and IP in frame]
    assert not [frame for frame in bare if frame[IP].src in inner]


def _outer(frame: Any) -> Any:
    return frame[1]
