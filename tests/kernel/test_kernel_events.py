"""What others do to ours is noticed; what we do ourselves, and what does not concern us, is not."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address

import pytest

from netagent.kernel.kernel import Kernel
from netagent.plan.desired import ElementSet, FdbEntry, Neighbour, Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.union import union
from tests.support.netns import Namespace, address, bridge, endpoint, route, state, vxlan

pytestmark = pytest.mark.kernel

MAC = bridge("nab2").mac
assert MAC is not None
SETS = (ElementSet(name="inside", key="ifname"),)
WHOLE = union(
    [
        state(
            bridge(),
            vxlan(),
            addresses=[address("10.9.0.1/16", "nab1")],
            routes=[route("10.8.2.0/24", "nav1", "10.8.2.0", onlink=True)],
            neighbours=[Neighbour(device="nav1", address=ip_address("10.8.2.0"), mac=MAC)],
            fdb=[FdbEntry(device="nav1", mac=MAC, destination=ip_address("198.18.0.2"))],
        )
    ]
)


@asynccontextmanager
async def _watching(kernel: Kernel) -> AsyncIterator[asyncio.Event]:
    noticed = asyncio.Event()
    async with kernel.watched(noticed.set):
        yield noticed


async def _happens(noticed: asyncio.Event) -> None:
    async with asyncio.timeout(60):
        await noticed.wait()


CHANGES = {
    "link-down": ("ip", "link", "set", "nab1", "down"),
    "mtu-changed": ("ip", "link", "set", "nab1", "mtu", "1300"),
    "bridge-mac-changed": ("ip", "link", "set", "nab1", "address", "02:00:00:00:00:99"),
    "tunnel-mac-changed": ("ip", "link", "set", "nav1", "address", "02:00:00:00:00:99"),
    "link-deleted": ("ip", "link", "delete", "nav1"),
    "address-deleted": ("ip", "address", "delete", "10.9.0.1/16", "dev", "nab1"),
    "link-local-gateway-deleted": (
        "sh",
        "-ec",
        "ip address add fe80::1/64 dev nab1 nodad; ip address delete fe80::1/64 dev nab1",
    ),
    "route-deleted": ("ip", "route", "delete", "10.8.2.0/24"),
    "forwarding-entry-deleted": ("bridge", "fdb", "delete", MAC, "dst", "198.18.0.2", "dev", "nav1"),
    "neighbour-deleted": ("ip", "neighbour", "delete", "10.8.2.0", "dev", "nav1"),
    "forwarding-off": ("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv4.ip_forward=0"),
    "ipv6-forwarding-off": ("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", "net.ipv6.conf.all.forwarding=0"),
    "answering-off": ("sysctl", "-qw", "net.ipv4.conf.nab1.proxy_arp=1", "net.ipv4.conf.nab1.proxy_arp=0"),
    "table-flushed": ("nft", "flush", "ruleset"),
    "table-changed": ("nft", "add", "chain", "inet", "netagent", "extra"),
}


@pytest.mark.parametrize("command", CHANGES.values(), ids=CHANGES.keys())
async def test_a_change_by_another_program_is_noticed(
    kernel: Kernel, host: Namespace, command: tuple[str, ...]
) -> None:
    await kernel.apply(diff(WHOLE, State()))
    async with _watching(kernel) as noticed:
        host.run(*command)
        await _happens(noticed)


async def test_a_neighbour_that_is_lost_by_a_port_of_open_vswitch_is_noticed(kernel: Kernel, host: Namespace) -> None:
    """Its userspace datapath has taps; of the kernel's GRE devices the same holds (tests/kernel/test_vm_gre.py)."""
    host.ip("tuntap", "add", "nao1", "mode", "tap")
    host.ip("link", "set", "nao1", "alias", "netagent:nao1", "up")
    host.ip("neighbour", "add", "10.8.2.0", "lladdr", MAC, "dev", "nao1", "nud", "permanent")
    async with _watching(kernel) as noticed:
        host.ip("neighbour", "flush", "dev", "nao1", "nud", "permanent")
        await _happens(noticed)


async def test_our_own_changes_and_foreign_ones_are_not_noticed(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    await kernel.apply(diff(WHOLE, State()))
    noticed: list[str] = []
    heard: list[str] = []
    uplinks: list[str] = []
    step = ""
    async with kernel.watched(
        lambda: noticed.append(step),
        surroundings=lambda: heard.append(step),
        uplinks=lambda: uplinks.append(step),
    ):
        attached = endpoint(sandbox(), 2)
        for step, plan in {
            "attach": diff(attached, State()),
            "detach": diff(State(), attached),
            "network-removed": diff(State(ruleset=Ruleset(sets=SETS)), WHOLE),
            "network-made": diff(WHOLE, State()),
        }.items():
            await kernel.apply(plan)
            await kernel.drained()
            await _read_all(host, step, heard)
        step = "foreign"
        host.ip("link", "add", "other", "type", "bridge")
        host.ip("route", "add", "198.51.100.0/24", "dev", "nab1", "proto", "static")
        host.ip("route", "delete", "198.51.100.0/24")
        host.ip("link", "delete", "other")
        host.ip("address", "add", "fe80::77/64", "dev", "nab1", "nodad")
        host.ip("address", "delete", "fe80::77/64", "dev", "nab1")
        await _read_all(host, step, heard)
        assert noticed == []
        # The two are of the address by which is seen that all was read.
        assert [each for each in uplinks if each.endswith("tach")] == ["attach"] * 2 + ["detach"] * 2


async def test_lost_notifications_are_a_reason_to_look(
    kernel: Kernel, host: Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Others' routes concern nobody, but what was lost among so many messages may have been anything."""
    monkeypatch.setattr("netagent.kernel.netlink._NOTIFICATION_BYTES", 65536)
    host.ip("link", "set", "lo", "up")
    routes = 'BEGIN { for (n = 0; n < 3000; n++) printf "route add 10.77.%d.%d/32 dev lo\\n", n / 256, n % 256 }'
    async with _watching(kernel) as noticed:
        # The loop stands still meanwhile, and nobody reads.
        host.run("sh", "-ec", f"awk '{routes}' | ip -batch -")
        await _happens(noticed)


async def test_a_port_that_loses_its_bridge_is_noticed_and_so_is_the_bridge_when_it_is_made_again(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    host.ip("link", "add", "kbr0", "type", "bridge")
    await kernel.apply(diff(endpoint(sandbox(), 2, master="kbr0"), State()))
    noticed, heard = asyncio.Event(), list[str]()
    async with kernel.watched(noticed.set, surroundings=lambda: heard.append("deleted")):
        host.ip("link", "delete", "kbr0")
        await _happens(noticed)
        await _read_all(host, "deleted", heard)
        noticed.clear()
        host.ip("link", "add", "kbr0", "type", "bridge")
        await _happens(noticed)


async def _read_all(host: Namespace, step: str, heard: list[str]) -> None:
    """Return when the watch has read what was queued on both its sockets: it hears of these three after all else."""
    heard.clear()
    for verb in ("add", "delete"):
        host.ip("address", verb, "198.51.100.1/32", "dev", "lo")
    host.run("nft", "add", "table", "inet", step)
    async with asyncio.timeout(60):
        while len(heard) < 3:
            await asyncio.sleep(0)
