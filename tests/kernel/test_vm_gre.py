"""The kernel's GRE, on a kernel that has it: between two hosts, and with Open vSwitch on a third.

And a full table of tracked connections, whose limit is the whole machine's.

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

from netagent.services.probing import SPOILED, SWITCHED_OFF
from tests.support.vm import found_in_vm
from tests.support.vm_hosts import KEYS
from tests.support.vm_paths import BYTES, LIMITS
from tests.support.vm_tracking import LIMIT

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


def test_what_is_lost_and_spoiled_on_the_ways_is_found(found: dict[str, Any]) -> None:
    one, three = found["ways"]["h1"], found["ways"]["h3"]
    assert one["limits"] == LIMITS
    assert one["corrupting"] == three["corrupting"] == ["net"]
    lossy = "net: loses packets of 1458 bytes, carries 1358"
    assert set(one["problems"]["h2"]) >= {
        lossy,
        f"{lossy}, {SPOILED}",
        "six: loses packets of 1438 bytes, carries 1338",
    }
    assert any(SPOILED in problem for problem in three["problems"]["h1"])


def test_routes_that_say_key_peer_and_how_large_packets_may_be_are_applied_seen_and_obeyed(
    found: dict[str, Any],
) -> None:
    ways = found["ways"]
    assert ways["left to do on h1"] == []
    routes = [" ".join(line.split()) for line in ways["routes"].splitlines()]
    limited = {line.split("encap")[0].strip(): line.split()[-1] for line in routes if " mtu lock " in line}
    (v4, v6, six) = (
        next(line for line in routes if line.startswith(f"{prefix} ") and "encap" in line)
        for prefix in ("192.168.2.0/24", "fd00:77:0:0:2::/80", "10.66.2.0/24")
    )
    assert f"encap ip id {KEYS['net']} src {H1} dst {H2}" in v4
    assert "mtu lock 1358" in v4
    assert "mtu lock 1358" in v6
    assert "mtu lock 1338" in six
    assert limited.keys() == {"192.168.2.0/24", "fd00:77:0:0:2::/80", "10.66.2.0/24"}
    assert "mtu = 1358" in ways["told"] or "mtu=1358" in ways["told"]
    assert ways["smaller ones arrive"]
    assert ways["transferred"] == BYTES
    assert (ways["h1 in the end"]["limits"], ways["left to do in the end"]) == ([], [])


def test_checksums_are_left_to_no_cable_any_more_that_spoils_them(found: dict[str, Any]) -> None:
    """By the kernel's GRE and by the kernel's Open vSwitch."""
    ways = found["ways"]
    assert ways["leaves checksums"] == {"before": [True, True], "after": [False, False]}
    assert ways["left to do on h3"] == []
    off = [f"net: {SWITCHED_OFF}"]
    assert ways["h3 in the end"]["problems"] == {"h3": off}
    assert ways["h1 in the end"]["problems"] == {"h1": off}


def test_neighbours_that_somebody_takes_from_the_kernels_gre_device_are_put_back(found: dict[str, Any]) -> None:
    assert found["ways"]["loss of neighbours noticed"]
    assert found["ways"]["left to do after it"] == []


def test_a_full_table_of_tracked_connections_is_told_and_loses_new_ones_alone(found: dict[str, Any]) -> None:
    """Filled to its last entry, as no namespace but a machine's first can be asked for."""
    table = found["full table"]
    assert (table["left to do"], table["told before"]["problems"]) == ([], [])
    assert table["full"] == [LIMIT, LIMIT]
    assert table["told"]["problems"] == [f"{LIMIT} of {LIMIT} connections tracked, new ones are dropped at the limit"]
    kept = table["carried before"]
    assert len(kept) == 4
    assert set(kept.values()) == {True}
    assert table["carried"] == kept
    assert set(table["new"].values()) == {False}


def test_containers_come_and_go_while_the_table_is_full(found: dict[str, Any]) -> None:
    table = found["full table"]
    assert table["left to do with one more container"] == []
    assert table["on the same bridge"]
    assert table["left to do without it"] == []


def test_what_was_refused_for_want_of_room_is_made_when_there_is_some(found: dict[str, Any]) -> None:
    table = found["full table"]
    assert (table["told afterwards"]["problems"], table["told afterwards"]["events"]) == ([], ["filling", "has room"])
    assert table["carried afterwards"] == table["carried before"]
    assert set(table["new afterwards"].values()) == {True}
    assert table["left to do in the end"] == []


def _outer(frame: Any) -> Any:
    return frame[1]
