"""An address that changes hands: neighbours that spoke to its former owner are told, and reach the new one at once."""

import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from scapy.layers.inet6 import ICMPv6ND_NA, ICMPv6NDOptDstLLAddr, IPv6
from scapy.layers.l2 import ARP, Ether

from netagent.kernel.announce import announcement_frame
from netagent.kernel.kernel import Kernel
from netagent.model.address import Mac, derive_mac
from netagent.plan.desired import Announcement, State
from netagent.plan.diff import diff
from netagent.plan.operation import Announce, Plan
from netagent.plan.union import union
from tests.support.netns import Namespace, address, bridge, endpoint, eventually, state, veth

pytestmark = pytest.mark.kernel

Sandboxes = Callable[[], Namespace]
NETWORK = state(bridge(), addresses=[address("10.9.0.1/16", "nab1"), address("fd00:9::1/64", "nab1")])
ADDRESSES = ("10.9.0.9", "fd00:9::9")
BRIDGE_MAC = Mac(str(bridge().mac))


def _owner(sandbox: Namespace, name: str) -> State:
    """Return an endpoint that has the addresses under test."""
    given = [address(f"{text}/{64 if ':' in text else 16}", "eth0", sandbox.path) for text in ADDRESSES]
    told = (Announcement(device="eth0", address=a.address, mac=derive_mac(name), where=a.where) for a in given)
    return state(veth(sandbox, name), addresses=given, announcements=frozenset(told))


async def _change_hands(kernel: Kernel, former: State, latter: State) -> None:
    await kernel.apply(diff(State(), former))
    await kernel.apply(diff(latter, State()))
    await kernel.drained()


async def test_neighbours_and_the_host_reach_the_new_owner_at_once(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    neighbour, first, second = sandbox(), sandbox(), sandbox()
    former, latter = _owner(first, "nae8"), _owner(second, "nae9")
    await kernel.apply(diff(union([NETWORK, endpoint(neighbour, 2), former]), State()))
    for target in ADDRESSES:
        assert neighbour.ping(target)
        assert host.ping(target)
    await _change_hands(kernel, former, latter)
    for target in ADDRESSES:
        for teller in (neighbour, host):
            # A frame that is out may still wait for the kernel to take it in.
            eventually(lambda teller=teller, target=target: derive_mac("nae9") in teller.ip("neigh", "show", target))
            assert teller.ping(target), target


async def test_without_an_announcement_they_do_not(kernel: Kernel, sandbox: Sandboxes) -> None:
    neighbour, first, second = sandbox(), sandbox(), sandbox()
    former, latter = _owner(first, "nae8"), replace(_owner(second, "nae9"), announcements=frozenset())
    await kernel.apply(diff(union([NETWORK, endpoint(neighbour, 2), former]), State()))
    assert neighbour.ping(ADDRESSES[0])
    await _change_hands(kernel, former, latter)
    assert not neighbour.ping(ADDRESSES[0], within_s=1)


async def test_a_neighbour_asks_the_bridge_after_the_address_moved_away(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    neighbour, first = sandbox(), sandbox()
    former = _owner(first, "nae8")
    await kernel.apply(diff(union([NETWORK, endpoint(neighbour, 2), former]), State()))
    assert neighbour.ping(ADDRESSES[0])
    told = Announcement(device="nab1", address=ip_address(ADDRESSES[0]), mac=BRIDGE_MAC)
    await kernel.apply(Plan((Announce(told),)))
    eventually(lambda: f"lladdr {BRIDGE_MAC}" in neighbour.ip("neigh", "show", ADDRESSES[0]))


async def test_each_frame_is_sent_once_as_its_rfc_says(kernel: Kernel, sandbox: Sandboxes) -> None:
    neighbour, owner = sandbox(), sandbox()
    await kernel.apply(diff(union([NETWORK, endpoint(neighbour, 2)]), State()))
    with _heard(neighbour) as heard:
        await kernel.apply(diff(_owner(owner, "nae9"), State()))
        frames = [Ether(next(heard)), Ether(next(heard))]
    mac = derive_mac("nae9")
    arp, advertisement = sorted(frames, key=lambda frame: frame.type)
    assert (arp.src, arp.dst, arp[ARP].op) == (mac, "ff:ff:ff:ff:ff:ff", 1)
    assert (arp[ARP].hwsrc, arp[ARP].psrc, arp[ARP].pdst) == (mac, ADDRESSES[0], ADDRESSES[0])
    assert (advertisement.src, advertisement.dst) == (mac, "33:33:00:00:00:01")
    header, body = advertisement[IPv6], advertisement[ICMPv6ND_NA]
    assert (header.src, header.dst, header.hlim) == (ADDRESSES[1], "ff02::1", 255)
    assert (body.tgt, body.R, body.S, body.O) == (ADDRESSES[1], 0, 0, 1)
    assert body[ICMPv6NDOptDstLLAddr].lladdr == mac


def test_the_checksum_of_an_advertisement_is_right() -> None:
    told = Announcement(device="eth0", address=ip_address("fd00:9::9"), mac=Mac("02:00:00:00:00:09"))
    frame = Ether(announcement_frame(told))
    sent = frame[ICMPv6ND_NA].cksum
    del frame[ICMPv6ND_NA].cksum
    assert Ether(bytes(frame))[ICMPv6ND_NA].cksum == sent


async def test_a_sandbox_that_is_gone_again_is_no_error(kernel: Kernel, sandbox: Sandboxes) -> None:
    told = Announcement(device="eth0", address=ip_address("10.9.0.9"), mac=BRIDGE_MAC, where="/run/netns/nowhere")
    absent = replace(told, device="nab7", where="")
    await kernel.apply(Plan((Announce(told), Announce(absent))))
    await kernel.drained()
    present, owner = sandbox(), sandbox()
    await kernel.apply(diff(union([NETWORK, endpoint(present, 2)]), State()))
    with _heard(present) as heard:
        await kernel.apply(diff(_owner(owner, "nae9"), State()))
        assert next(heard)


async def test_a_burst_of_announcements_holds_few_sockets_and_leaves_none(kernel: Kernel, sandbox: Sandboxes) -> None:
    neighbour = sandbox()
    await kernel.apply(diff(union([NETWORK, endpoint(neighbour, 2)]), State()))
    told = Announcement(device="eth0", address=ip_address("10.9.0.2"), mac=derive_mac("nae2"), where=neighbour.path)
    before = _descriptors()
    for _ in range(150):
        await kernel.apply(Plan((Announce(told),)))
        assert _descriptors() < before + 100
    await kernel.drained()
    eventually(lambda: _descriptors() <= before + 2)


def _descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


_LISTEN = """
import socket, sys
heard = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
heard.settimeout(60)
print("ready", flush=True)
while True:
    frame, (_, _, kind, *_) = heard.recvfrom(65536)
    is_arp = frame[12:14] == b"\\x08\\x06" and frame[28:32] == frame[38:42]
    is_advertisement = frame[12:14] == b"\\x86\\xdd" and frame[20] == 58 and frame[54] == 136
    if kind != socket.PACKET_OUTGOING and (is_arp or is_advertisement):
        print(frame.hex(), flush=True)
"""


@contextmanager
def _heard(namespace: Namespace) -> Iterator[Iterator[bytes]]:
    """Yield the gratuitous ARP frames and neighbour advertisements that come in."""
    command = ["nsenter", f"--net={namespace.path}", "python3", "-c", _LISTEN]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as listener:
        try:
            assert listener.stdout is not None
            assert listener.stdout.readline() == "ready\n"
            yield (bytes.fromhex(line.strip()) for line in listener.stdout)
        finally:
            listener.kill()
