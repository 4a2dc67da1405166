"""Plans against the real kernel: applied, observed, applied again, taken away; iproute2 is the witness."""

import errno
import time
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import MappingProxyType

import pytest

from netagent.errors import EnvironmentProblem, KernelRejected
from netagent.kernel.kernel import Kernel
from netagent.model.address import Mac
from netagent.plan.desired import FdbEntry, Neighbour, State
from netagent.plan.diff import diff
from netagent.plan.operation import (
    AddAddress,
    AddFdb,
    AddLink,
    AddNeighbour,
    AddRoute,
    DeleteAddress,
    DeleteFdb,
    DeleteLink,
    DeleteNeighbour,
    DeleteRoute,
    Operation,
    Plan,
    SetLink,
    SetSysctl,
)
from tests.support.netns import Namespace, address, bridge, endpoint, route, state, veth, vxlan

pytestmark = pytest.mark.kernel

PEER_MAC = Mac("02:00:00:00:02:02")
NEIGHBOUR = Neighbour(device="nav1", address=ip_address("10.9.2.0"), mac=PEER_MAC)
FORWARDING = FdbEntry(device="nav1", mac=PEER_MAC, destination=ip_address("198.18.0.2"))
PROXY_ARP = ("net", "ipv4", "conf", "nab1", "proxy_arp")

STATES = {
    "bridge-alone": state(bridge()),
    "bridge-with-large-mtu": state(bridge(mtu=9000)),
    "bridge-with-gateways": state(
        bridge(), addresses=[address("10.9.0.1/16", "nab1"), address("fd00:9::1/64", "nab1")]
    ),
    "vxlan-over-ipv4": state(vxlan()),
    "vxlan-over-ipv6": state(vxlan(local="2001:db8::1", vni=16777215)),
    "vxlan-with-unconnected-address": state(vxlan(), addresses=[address("10.9.1.0/16", "nav1", connected=False)]),
    "route-to-a-remote-block": state(
        vxlan(),
        addresses=[address("10.9.1.0/32", "nav1")],
        neighbours=[NEIGHBOUR],
        fdb=[FORWARDING],
        routes=[route("10.9.2.0/24", "nav1", "10.9.2.0", source=ip_address("10.9.1.0"), onlink=True)],
    ),
    "ipv6-route-to-a-remote-block": state(
        vxlan(),
        addresses=[address("fd00:9:1::/128", "nav1")],
        neighbours=[replace(NEIGHBOUR, address=ip_address("fd00:9:2::"))],
        fdb=[FORWARDING],
        routes=[route("fd00:9:2::/80", "nav1", "fd00:9:2::", source=ip_address("fd00:9:1::"), onlink=True)],
    ),
    "fixed-address-on-the-bridge": state(bridge(), routes=[route("10.9.0.7/32", "nab1"), route("fd00:9::7", "nab1")]),
    "proxy-arp": state(bridge(), sysctls=MappingProxyType({PROXY_ARP: "1"})),
}


@pytest.mark.parametrize("desired", STATES.values(), ids=STATES.keys())
async def test_what_was_applied_is_observed_and_can_be_taken_away(
    kernel: Kernel, host: Namespace, desired: State
) -> None:
    before = host.snapshot()
    await kernel.apply(diff(desired, State()))
    observed = await kernel.observe(desired)
    assert str(diff(desired, observed)) == ""
    assert observed == desired
    await kernel.apply(diff(State(), observed))
    assert host.snapshot() == before


async def test_a_bridge_is_as_its_value_says(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(Plan((AddLink(bridge()),)))
    link = host.links()["nab1"]
    data = link["linkinfo"]["info_data"]
    assert (link["mtu"], link["address"], link["ifalias"]) == (1450, bridge().mac, "netagent:nab1")
    assert (link["group"], "UP" in link["flags"]) == ("default", True)
    assert (data["stp_state"], data["forward_delay"], data["vlan_filtering"]) == (0, 0, 0)


async def test_a_bridge_keeps_its_mtu_when_its_last_port_goes(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    container = sandbox()
    await kernel.apply(diff(state(bridge()), State()))
    attached = endpoint(container, 2)
    await kernel.apply(diff(attached, State()))
    await kernel.apply(diff(State(), attached))
    await kernel.drained()
    assert host.links()["nab1"]["mtu"] == 1450


async def test_a_vxlan_device_is_as_its_value_says(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(Plan((AddLink(vxlan()),)))
    link = host.links()["nav1"]
    data = link["linkinfo"]["info_data"]
    assert (data["id"], data["local"], data["port"], data["learning"]) == (77, "198.18.0.1", 4789, False)
    assert (link["mtu"], link["address"], link["ifalias"]) == (1400, vxlan().mac, "netagent:nav1")


async def test_ipv6_addresses_are_usable_at_once(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(diff(STATES["bridge-with-gateways"], State()))
    [entry] = [a for a in host.json("addr", "show", "dev", "nab1")[0]["addr_info"] if a["local"] == "fd00:9::1"]
    assert entry["nodad"]
    assert "tentative" not in entry


async def test_routes_carry_our_protocol_number(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(diff(STATES["route-to-a-remote-block"], State()))
    [entry] = host.json("-N", "route", "show", "10.9.2.0/24")
    assert (entry["protocol"], entry["gateway"], entry["prefsrc"]) == ("110", "10.9.2.0", "10.9.1.0")
    assert "onlink" in entry["flags"]


DELETIONS: dict[str, Operation] = {
    "link": DeleteLink(bridge()),
    "address": DeleteAddress(address("10.9.0.1/16", "nab1")),
    "address-of-present-link": DeleteAddress(address("10.9.0.1/16", "nav1")),
    "route": DeleteRoute(route("10.9.2.0/24", "nab1")),
    "route-of-present-link": DeleteRoute(route("10.9.2.0/24", "nav1")),
    "ipv6-route-of-present-link": DeleteRoute(route("fd00:9::/64", "nav1")),
    "neighbour": DeleteNeighbour(NEIGHBOUR),
    "forwarding-entry": DeleteFdb(FORWARDING),
    "address-in-lost-sandbox": DeleteAddress(address("10.9.0.2/16", "eth0", "/run/netns/natest-absent")),
    "route-in-lost-sandbox": DeleteRoute(route("0.0.0.0/0", "eth0", "10.9.0.1", "/run/netns/natest-absent")),
}


@pytest.mark.parametrize("operation", DELETIONS.values(), ids=DELETIONS.keys())
async def test_deleting_what_is_absent_succeeds(kernel: Kernel, operation: Operation) -> None:
    await kernel.apply(Plan((AddLink(vxlan()),)))
    await kernel.apply(Plan((operation,)))


ADDITIONS: dict[str, Operation] = {
    "address": AddAddress(address("10.9.1.1/24", "nav1")),
    "ipv6-address": AddAddress(address("fd00::1/64", "nav1")),
    "neighbour": AddNeighbour(NEIGHBOUR),
    "forwarding-entry": AddFdb(FORWARDING),
    "route": AddRoute(route("10.9.2.0/24", "nav1")),
    "ipv6-route": AddRoute(route("fd00:9::/64", "nav1")),
    "settings": SetLink(vxlan()),
    "sysctl": SetSysctl(("net", "ipv4", "conf", "nav1", "proxy_arp"), "1"),
}


@pytest.mark.parametrize("operation", ADDITIONS.values(), ids=ADDITIONS.keys())
async def test_adding_what_is_there_succeeds(kernel: Kernel, host: Namespace, operation: Operation) -> None:
    await kernel.apply(Plan((AddLink(vxlan()), operation)))
    before = host.snapshot()
    await kernel.apply(Plan((operation,)))
    assert host.snapshot() == before


@pytest.mark.parametrize(
    "operation",
    [
        AddAddress(address("10.9.1.1/24", "nab9")),
        AddRoute(route("10.9.2.0/24", "nab9")),
        AddNeighbour(replace(NEIGHBOUR, device="nab9")),
        SetLink(bridge("nab9")),
        AddLink(bridge("nab8", master="nab9")),
    ],
    ids=["address", "route", "neighbour", "settings", "master"],
)
async def test_a_missing_interface_is_named_in_the_refusal(kernel: Kernel, operation: Operation) -> None:
    with pytest.raises(KernelRejected, match="nab9") as caught:
        await kernel.apply(Plan((operation,)))
    assert caught.value.errno == 19


async def test_a_missing_setting_is_named(kernel: Kernel) -> None:
    with pytest.raises(EnvironmentProblem, match="/proc/sys/net/ipv4/conf/nab9/proxy_arp"):
        await kernel.apply(Plan((SetSysctl(("net", "ipv4", "conf", "nab9", "proxy_arp"), "1"),)))


async def test_a_network_whose_mtu_is_too_small_for_ipv6_is_as_it_should_be(kernel: Kernel, host: Namespace) -> None:
    conf = ("net", "ipv6", "conf", "nab1")
    sysctls = MappingProxyType({(*conf, "accept_ra"): "0", (*conf, "disable_ipv6"): "1"})
    for mtu in (1500, 1279, 1280):
        desired = state(bridge(mtu=mtu), sysctls=sysctls)
        await kernel.apply(diff(desired, await kernel.observe(desired)))
        await kernel.apply(diff(desired, await kernel.observe(desired)))
        assert str(diff(desired, await kernel.observe(desired))) == ""
        assert int(host.links()["nab1"]["mtu"]) == mtu
    assert host.run("cat", "/proc/sys/net/ipv6/conf/nab1/disable_ipv6").strip() == "1"
    narrow = state(bridge(mtu=1279), sysctls=MappingProxyType({(*conf, "disable_ipv6"): "0"}))
    with pytest.raises(EnvironmentProblem, match=r"IPv6 needs an MTU of 1280 or more"):
        await kernel.apply(diff(narrow, await kernel.observe(narrow)))


async def test_settings_are_written_in_the_kernels_own_namespace(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(Plan((SetSysctl(("net", "ipv4", "ip_forward"), "1"),)))
    assert host.run("cat", "/proc/sys/net/ipv4/ip_forward").strip() == "1"


async def test_a_changed_next_hop_replaces_our_route(kernel: Kernel, host: Namespace) -> None:
    old, new = (route("10.9.2.0/24", "nav1", hop, onlink=True) for hop in ("10.9.2.0", "10.9.2.1"))
    await kernel.apply(Plan((AddLink(vxlan()), AddRoute(old))))
    await kernel.apply(Plan((AddRoute(new), DeleteRoute(old))))
    assert [entry["gateway"] for entry in host.json("route", "show", "10.9.2.0/24")] == ["10.9.2.1"]


@pytest.mark.parametrize(("own", "block"), [("10.9.2.0/32", "10.9.2.0/24"), ("fd00:9:2::/128", "fd00:9:2::/80")])
async def test_a_route_leads_to_what_was_an_own_address_before(
    kernel: Kernel, host: Namespace, own: str, block: str
) -> None:
    """As when a peer holds a block that was this host's."""
    before = state(vxlan(), addresses=[address(own, "nav1")])
    gateway = own.partition("/")[0]
    neighbour = replace(NEIGHBOUR, address=ip_address(gateway))
    after = state(vxlan(), neighbours=[neighbour], routes=[route(block, "nav1", gateway, onlink=True)])
    await kernel.apply(diff(before, State()))
    await kernel.apply(diff(after, await kernel.observe(after)))
    assert f"via {gateway}" in host.run("ip", "-6" if ":" in own else "-4", "route", "show", block)
    assert not diff(after, await kernel.observe(after))


@pytest.mark.parametrize("destination", ["10.9.2.0/24", "fd00:9:0:1::/64"])
async def test_what_packets_a_route_takes_can_be_limited_and_no_more_so(
    kernel: Kernel, host: Namespace, destination: str
) -> None:
    usual = route(destination, "nav1")
    limited = replace(usual, mtu=1380)
    await kernel.apply(Plan((AddLink(vxlan()), AddRoute(usual))))
    await kernel.apply(Plan((AddRoute(limited),)))
    assert "mtu lock 1380" in host.ip(f"-{limited.destination.version}", "route", "show", destination)
    assert limited in (await kernel.observe(State())).routes
    # What a start recalls of limits.
    assert await kernel.own_routes() == {limited}
    await kernel.apply(Plan((AddRoute(usual),)))
    assert usual in (await kernel.observe(State())).routes
    await kernel.apply(Plan((AddRoute(limited), DeleteRoute(limited))))
    assert not (await kernel.observe(State())).routes


async def test_a_changed_destination_replaces_the_forwarding_entry(kernel: Kernel, host: Namespace) -> None:
    moved = replace(FORWARDING, destination=ip_address("198.18.0.3"))
    await kernel.apply(Plan((AddLink(vxlan()), AddFdb(FORWARDING))))
    await kernel.apply(Plan((AddFdb(moved), DeleteFdb(FORWARDING))))
    entries = host.json("bridge", "fdb", "show", "dev", "nav1")
    assert [entry["dst"] for entry in entries if entry["mac"] == PEER_MAC] == ["198.18.0.3"]


async def test_settings_of_a_link_are_mended(kernel: Kernel, host: Namespace) -> None:
    await kernel.apply(Plan((AddLink(bridge()), AddLink(vxlan()))))
    host.ip("link", "set", "nav1", "down", "mtu", "1300", "address", "02:00:00:00:00:99", "master", "nab1")
    desired = state(bridge(), vxlan())
    plan = diff(desired, await kernel.observe(desired))
    assert [type(operation) for operation in plan.operations] == [SetLink]
    await kernel.apply(plan)
    assert await kernel.observe(desired) == desired


async def test_a_tunnel_that_gets_another_mtu_keeps_its_neighbours(kernel: Kernel) -> None:
    neighbour = Neighbour(device="nav1", address=ip_address("10.8.2.0"), mac=PEER_MAC)
    before, after = (state(vxlan(mtu=mtu), neighbours=[neighbour]) for mtu in (1400, 1300))
    await kernel.apply(diff(before, State()))
    plan = diff(after, await kernel.observe(after))
    assert [type(operation) for operation in plan.operations] == [SetLink]
    await kernel.apply(plan)
    assert not diff(after, await kernel.observe(after))


@pytest.mark.parametrize("is_new", [True, False], ids=["a-new-device", "one-that-is-there"])
async def test_a_tunnel_device_can_be_told_to_leave_no_checksums_to_others(
    kernel: Kernel, host: Namespace, is_new: bool
) -> None:
    link = replace(vxlan(), offload=False)
    wanted = State(links={link.name: link})
    await kernel.apply(Plan((AddLink(link if is_new else vxlan()),)))
    assert bool(diff(wanted, await kernel.observe(wanted), prune=False)) is not is_new
    await kernel.apply(diff(wanted, await kernel.observe(wanted), prune=False))
    assert "tx-checksumming: off" in host.run("ethtool", "--show-features", link.name)
    assert not diff(wanted, await kernel.observe(wanted), prune=False)
    usual = State(links={link.name: vxlan()})
    assert not diff(usual, await kernel.observe(usual), prune=False), "it is not turned on again by itself"


async def test_what_others_made_is_neither_reported_nor_touched(kernel: Kernel, host: Namespace) -> None:
    """A link with our prefix only, one with our alias only, and everything else that bears not both of our marks."""
    host.ip("link", "add", "nab5", "type", "bridge")
    host.ip("link", "add", "other", "type", "bridge")
    host.ip("link", "set", "other", "up", "alias", "netagent:other")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "other")
    host.ip("route", "add", "198.51.100.0/24", "via", "192.0.2.9")
    host.ip("neigh", "add", "192.0.2.9", "lladdr", str(PEER_MAC), "dev", "other", "nud", "permanent")
    host.run("nft", "add table inet other { chain c { counter; }; }")
    before = host.snapshot()
    observed = await kernel.observe(State())
    assert observed == State()
    await kernel.apply(Plan((DeleteLink(bridge("nab5")), DeleteLink(bridge("other")))))
    await kernel.apply(Plan((DeleteRoute(route("198.51.100.0/24", "other", "192.0.2.9")),)))
    await kernel.sweep()
    assert host.snapshot() == before


async def test_another_programs_route_is_not_replaced(kernel: Kernel, host: Namespace) -> None:
    host.ip("link", "add", "other", "type", "bridge")
    host.ip("link", "set", "other", "up")
    host.ip("route", "add", "10.9.2.0/24", "dev", "other", "proto", "static")
    with pytest.raises(KernelRejected, match="another program") as caught:
        await kernel.apply(Plan((AddLink(bridge()), AddRoute(route("10.9.2.0/24", "nab1")))))
    assert caught.value.errno == 17
    assert [entry["dev"] for entry in host.json("route", "show", "10.9.2.0/24")] == ["other"]


async def test_another_programs_link_of_the_name_is_left_alone(kernel: Kernel, host: Namespace) -> None:
    host.ip("link", "add", "nab1", "type", "bridge")
    for operation in (AddLink(bridge()), SetLink(bridge())):
        with pytest.raises(KernelRejected) as caught:
            await kernel.apply(Plan((operation,)))
        assert caught.value.errno == 17
    assert "ifalias" not in host.links()["nab1"]


async def test_the_kernels_own_words_are_in_the_refusal(kernel: Kernel) -> None:
    with pytest.raises(KernelRejected, match="VNI") as caught:
        await kernel.apply(Plan((AddLink(vxlan()), AddLink(vxlan("nav2")))))
    assert caught.value.errno == 17


async def test_a_refused_link_leaves_nothing_and_its_neighbours_in_the_batch_stay(
    kernel: Kernel, host: Namespace
) -> None:
    with pytest.raises(KernelRejected):
        await kernel.apply(Plan((AddLink(bridge("nab1")), AddLink(bridge("nab2", mtu=70000)), AddLink(bridge("nab3")))))
    assert sorted(host.links()) == ["lo", "nab1", "nab3"]
    assert (await kernel.observe(state(bridge("nab3")))).links["nab3"] == bridge("nab3")


async def test_what_one_network_lacks_keeps_nothing_from_the_others_of_a_batch(kernel: Kernel, host: Namespace) -> None:
    wanted = STATES["route-to-a-remote-block"]
    await kernel.apply(Plan(tuple(o for o in diff(wanted, State()).operations if isinstance(o, AddLink | AddAddress))))
    host.ip("link", "add", "other", "type", "bridge")
    host.ip("link", "set", "other", "up")
    host.ip("route", "add", "10.8.2.0/24", "dev", "other", "proto", "static")
    missing = replace(NEIGHBOUR, device="na-away")
    plan = Plan(
        (
            AddLink(replace(bridge("nae8"), master="na-away")),
            AddLink(bridge("nab9")),
            SetLink(vxlan("na-away")),
            SetLink(replace(vxlan(), mtu=1300)),
            AddNeighbour(missing),
            AddNeighbour(NEIGHBOUR),
            AddFdb(replace(FORWARDING, device="na-away")),
            AddFdb(FORWARDING),
            AddRoute(route("10.7.2.0/24", "na-away")),
            AddRoute(route("10.8.2.0/24", "nav1")),
            *(AddRoute(entry) for entry in wanted.routes),
        )
    )
    with pytest.raises(KernelRejected, match="nae8"):
        await kernel.apply(plan, carry_on=True)
    observed = await kernel.observe(replace(wanted, links=MappingProxyType({**wanted.links, "nab9": bridge("nab9")})))
    assert (observed.links["nav1"].mtu, "nab9" in observed.links) == (1300, True)
    assert (observed.neighbours, observed.fdb) == (wanted.neighbours, wanted.fdb)
    assert observed.routes == wanted.routes
    assert [entry["dev"] for entry in host.json("route", "show", "10.8.2.0/24")] == ["other"]


async def test_facts_are_the_machines_own(kernel: Kernel, host: Namespace) -> None:
    host.ip("link", "add", "uplink", "mtu", "1400", "type", "bridge")
    host.ip("link", "set", "uplink", "up")
    host.ip("addr", "add", "192.0.2.1/24", "dev", "uplink")
    host.ip("route", "add", "default", "via", "192.0.2.254", "metric", "100")
    host.ip("route", "add", "198.51.100.0/24", "via", "192.0.2.9", "proto", "static")
    await kernel.apply(diff(STATES["route-to-a-remote-block"], State()))
    facts = await kernel.facts()
    assert sorted(facts.interfaces) == ["lo", "uplink"]
    mtu, addresses = facts.interfaces["uplink"]
    assert (mtu, ip_address("192.0.2.1") in addresses) == (1400, True)
    assert facts.default_device == "uplink"
    prefixes = {entry.prefix for entry in facts.routes}
    assert {ip_network("192.0.2.0/24"), ip_network("198.51.100.0/24"), ip_network("0.0.0.0/0")} <= prefixes
    assert ip_network("10.9.2.0/24") not in prefixes


async def test_a_thousand_peers_are_applied_and_observed(kernel: Kernel) -> None:
    gateways = [ip_address("10.128.0.0") + 256 * number for number in range(1000)]
    macs = [Mac(f"02:00:00:01:{number >> 8:02x}:{number & 255:02x}") for number in range(1000)]
    underlay = [ip_address("198.18.1.0") + number for number in range(1000)]
    desired = state(
        vxlan(),
        neighbours=[Neighbour(device="nav1", address=g, mac=m) for g, m in zip(gateways, macs, strict=True)],
        fdb=[FdbEntry(device="nav1", mac=m, destination=u) for m, u in zip(macs, underlay, strict=True)],
        routes=[route(f"{gateway}/24", "nav1", str(gateway), onlink=True) for gateway in gateways],
    )
    await kernel.apply(Plan((AddLink(vxlan()),)))
    plan = diff(desired, state(vxlan()))
    begun = time.perf_counter()
    await kernel.apply(plan)
    applied = time.perf_counter()
    assert await kernel.observe(desired) == desired
    print(f"\n3,000 entries: applied in {applied - begun:.3f} s, observed in {time.perf_counter() - applied:.3f} s")


async def test_a_port_that_another_program_holds_is_refused_as_busy_and_the_rest_is_done(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    """A macvlan on a container's port keeps it from its bridge (netdev_rx_handler_register, net/core/dev.c)."""
    held, other = veth(sandbox(), "nae1"), veth(sandbox(), "nae2")
    wanted = state(bridge(), held, other)
    await kernel.apply(diff(wanted, await kernel.observe(wanted)))
    for name in ("nae1", "nae2"):
        host.ip("link", "set", name, "nomaster")
    host.ip("link", "add", "link", "nae1", "name", "theirs", "type", "macvlan")
    with pytest.raises(KernelRejected) as refused:
        await kernel.apply(diff(wanted, await kernel.observe(wanted)), carry_on=True)
    assert refused.value.errno == errno.EBUSY
    assert "nae1" in str(refused.value)
    left = diff(wanted, await kernel.observe(wanted))
    assert [str(o).split()[2] for o in left.operations] == ["nae1"]
    host.ip("link", "delete", "theirs")
    await kernel.apply(left)
    assert not diff(wanted, await kernel.observe(wanted))
