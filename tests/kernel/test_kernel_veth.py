"""Veth pairs: made straight into a sandbox, checked there, and taken down so that a detach need not wait."""

import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import pytest

from netagent.errors import Conflict, InvalidRequest, KernelRejected, NotFound
from netagent.kernel.encode import GROUP_DYING
from netagent.kernel.kernel import Kernel
from netagent.model.address import Mac
from netagent.plan.desired import Link, State, Veth
from netagent.plan.diff import diff
from netagent.plan.operation import AddLink, DeleteLink, Plan, SetLink
from netagent.plan.union import union
from tests.support.netns import Namespace, address, bridge, endpoint, eventually, state, veth

pytestmark = pytest.mark.kernel

Sandboxes = Callable[[], Namespace]
_CLAIM = """
import socket, sys
out = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
out.bind(("eth0", 0))
for last in range(1, 16):
    group = bytes.fromhex("0180c20000%02x" % last)
    out.send(group + bytes.fromhex(sys.argv[1].replace(":", "")) + bytes.fromhex("88cc") + bytes(50))
"""
"""Sends a frame with a neighbour's MAC to every group address that bridges keep to themselves."""
NETWORK = state(bridge(), addresses=[address("10.9.0.1/16", "nab1"), address("fd00:9::1/64", "nab1")])


async def _attach(kernel: Kernel, *endpoints: State) -> State:
    desired = union([NETWORK, *endpoints])
    desired = replace(desired, ruleset=None)
    await kernel.apply(diff(desired, State()))
    return desired


async def test_two_containers_reach_each_other_and_the_gateway(kernel: Kernel, sandbox: Sandboxes) -> None:
    one, other = sandbox(), sandbox()
    desired = await _attach(kernel, endpoint(one, 2), endpoint(other, 3))
    for target in ("10.9.0.3", "fd00:9::3", "10.9.0.1", "fd00:9::1", "127.0.0.1"):
        assert one.ping(target), target
    assert await kernel.observe(desired) == desired


async def test_a_bridge_learns_no_address_from_frames_to_its_own_groups(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    one, other = sandbox(), sandbox()
    desired = await _attach(kernel, endpoint(one, 2), endpoint(other, 3))
    victim = other.links()["eth0"]["address"]

    def claims() -> list[str]:
        assert other.ping("10.9.0.1")
        one.run(sys.executable, "-c", _CLAIM, victim)
        learnt = host.run("bridge", "fdb", "show", "br", "nab1").splitlines()
        return [line for line in learnt if line.startswith(victim) and " nae2 " in line]

    assert not claims()
    host.run("ip", "link", "set", "nab1", "type", "bridge", "no_linklocal_learn", "0")
    # The other one may speak again before it is looked, and so be learnt where it is.
    eventually(lambda: bool(claims()))
    repair = diff(desired, await kernel.observe(desired))
    assert [type(operation) for operation in repair.operations] == [SetLink]
    await kernel.apply(repair)
    assert not diff(desired, await kernel.observe(desired))
    host.run("bridge", "fdb", "del", victim, "dev", "nae2", "master", check=False)
    assert not claims()


async def test_the_far_end_is_as_its_value_says(kernel: Kernel, host: Namespace, sandbox: Sandboxes) -> None:
    container = sandbox()
    await _attach(kernel, endpoint(container, 2))
    inside = container.links()["eth0"]
    near = host.links()["nae2"]
    kind = endpoint(container, 2).links["nae2"].kind
    assert isinstance(kind, Veth)
    assert (inside["mtu"], inside["address"], "UP" in inside["flags"]) == (1450, kind.peer_mac, True)
    assert (near["mtu"], near["master"], near["ifalias"], near["group"]) == (1450, "nab1", "netagent:nae2", "default")


async def test_an_endpoint_alone_is_observed_alone(kernel: Kernel, sandbox: Sandboxes) -> None:
    one, other = endpoint(sandbox(), 2), endpoint(sandbox(), 3)
    await _attach(kernel, one, other)
    assert await kernel.observe_endpoint(one) == one
    assert (await kernel.observe_endpoint(endpoint(sandbox(), 4))).links == {}


async def test_two_networks_in_one_sandbox_are_told_apart(kernel: Kernel, sandbox: Sandboxes) -> None:
    container = sandbox()
    second = state(
        veth(container, "nae9", interface="eth1"), addresses=[address("10.8.0.9/16", "eth1", container.path)]
    )
    desired = await _attach(kernel, endpoint(container, 2), second)
    assert await kernel.observe(desired) == desired
    await kernel.apply(diff(State(), second))
    assert sorted(name for name in container.links() if name.startswith("eth")) == ["eth0"]
    assert await kernel.observe_endpoint(endpoint(container, 2)) == endpoint(container, 2)


async def test_a_detached_interface_is_gone_at_once_and_the_pair_soon(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    container = sandbox()
    attached = endpoint(container, 2)
    await _attach(kernel, attached)
    await kernel.apply(diff(State(), attached))
    assert "eth0" not in container.links()
    assert "nae2" not in host.links()
    assert sorted((await kernel.observe(State())).links) == ["nab1"]
    await kernel.drained()
    assert sorted(host.links()) == ["lo", "nab1"]
    assert sorted(container.links()) == ["lo"]


async def test_a_name_can_be_used_again_right_after_a_detach(kernel: Kernel, sandbox: Sandboxes) -> None:
    attached = endpoint(sandbox(), 2)
    desired = await _attach(kernel, attached)
    for _ in range(20):
        await kernel.apply(diff(State(), attached))
        await kernel.apply(diff(attached, State()))
    assert await kernel.observe(desired) == desired


async def test_an_interface_name_taken_in_the_sandbox_is_named(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    container = sandbox()
    container.ip("link", "add", "eth0", "type", "bridge")
    await kernel.apply(Plan((AddLink(bridge()),)))
    with pytest.raises(Conflict, match=f"eth0 already exists in network namespace {container.path}"):
        await kernel.apply(Plan((AddLink(veth(container)),)))
    assert sorted(host.links()) == ["lo", "nab1"]
    assert container.links()["eth0"]["linkinfo"]["info_kind"] == "bridge"


async def test_a_link_that_exists_is_refused_with_eexist(kernel: Kernel, sandbox: Sandboxes) -> None:
    attached = endpoint(sandbox(), 2)
    await _attach(kernel, attached)
    with pytest.raises(KernelRejected) as caught:
        await kernel.apply(diff(attached, State()))
    assert caught.value.errno == 17


async def test_a_vanished_sandbox_is_refused_and_nothing_made(kernel: Kernel, host: Namespace) -> None:
    link = Link(
        name="nae1",
        kind=Veth(sandbox="/run/netns/natest-absent", interface="eth0", peer_mac=Mac("02:00:00:00:00:01")),
        mtu=1500,
        alias="netagent:nae1",
    )
    with pytest.raises(NotFound, match="natest-absent"):
        await kernel.apply(Plan((AddLink(link),)))
    assert sorted(host.links()) == ["lo"]


async def test_another_namespace_at_the_path_is_a_stranger(kernel: Kernel, host: Namespace, sandbox: Sandboxes) -> None:
    container = sandbox()
    link = veth(container, master=None)
    assert isinstance(link.kind, Veth)
    stranger = replace(link, kind=replace(link.kind, sandbox_inode=container.inode + 1))
    with pytest.raises(NotFound, match="another one now"):
        await kernel.apply(Plan((AddLink(stranger),)))
    assert sorted(container.links()) == ["lo"]
    await kernel.apply(Plan((AddLink(link),)))
    observed = await kernel.observe(state(stranger))
    assert "another one now" in observed.broken["nae1"]


async def test_a_forgotten_endpoint_at_the_same_path_does_not_make_the_new_one_broken(
    kernel: Kernel, sandbox: Sandboxes
) -> None:
    """The path was used again; the old endpoint's record still names it, with another inode."""
    container = sandbox()
    desired = await _attach(kernel, endpoint(container, 2))
    stale = veth(container, "nae3", interface="eth1")
    assert isinstance(stale.kind, Veth)
    stale = replace(stale, kind=replace(stale.kind, sandbox_inode=container.inode + 1))
    for links in ({**desired.links, "nae3": stale}, {"nae3": stale, **desired.links}):
        assert (await kernel.observe(replace(desired, links=MappingProxyType(links)))) == desired


async def test_deleting_never_touches_a_stranger_at_the_path(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    """The stranger's eth0 has the index that ours had, and no inode was recorded."""
    container, stranger = sandbox(), sandbox()
    link = veth(container, master=None)
    assert isinstance(link.kind, Veth)
    await kernel.apply(Plan((AddLink(link),)))
    stranger.ip("link", "add", "eth0", "type", "veth", "peer", "other")
    misled = replace(link, kind=replace(link.kind, sandbox=stranger.path, sandbox_inode=0))
    await kernel.apply(Plan((DeleteLink(misled),)))
    await kernel.drained()
    assert sorted(host.links()) == ["lo"]
    assert sorted(stranger.links()) == ["eth0", "lo", "other"]


async def test_deleting_after_the_sandbox_is_gone_succeeds(kernel: Kernel, host: Namespace, sandbox: Sandboxes) -> None:
    container = sandbox()
    attached = endpoint(container, 2)
    await _attach(kernel, attached)
    container.delete()
    eventually(lambda: "nae2" not in host.links())
    await kernel.apply(diff(State(), attached))
    await kernel.drained()
    assert sorted(host.links()) == ["lo", "nab1"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (("link", "set", "eth0", "name", "eth7"), "missing"),
        (("link", "set", "eth0", "address", "02:00:00:00:00:77"), "MAC"),
    ],
    ids=["renamed", "other-mac"],
)
async def test_a_damaged_far_end_makes_the_link_broken_and_is_rebuilt(
    kernel: Kernel, sandbox: Sandboxes, damage: tuple[str, ...], reason: str
) -> None:
    container = sandbox()
    desired = await _attach(kernel, endpoint(container, 2))
    container.ip("link", "set", "eth0", "down")
    container.ip(*damage)
    observed = await kernel.observe(desired)
    assert reason in observed.broken["nae2"]
    await kernel.apply(diff(desired, observed))
    assert await kernel.observe(desired) == desired


@pytest.mark.parametrize(
    "damage",
    [
        ("link", "set", "eth0", "down"),
        ("link", "set", "eth0", "mtu", "1300"),
        ("address", "flush", "dev", "eth0", "scope", "global"),
        ("route", "delete", "default"),
    ],
    ids=["down", "mtu", "addresses", "route"],
)
async def test_settings_of_the_far_end_are_mended_in_place(
    kernel: Kernel, sandbox: Sandboxes, damage: tuple[str, ...]
) -> None:
    container = sandbox()
    desired = await _attach(kernel, endpoint(container, 2))
    index = container.links()["eth0"]["ifindex"]
    container.ip(*damage)
    plan = diff(desired, await kernel.observe(desired))
    assert plan
    await kernel.apply(plan)
    assert await kernel.observe(desired) == desired
    assert container.links()["eth0"]["ifindex"] == index


async def test_a_smaller_mtu_reaches_both_ends(kernel: Kernel, host: Namespace, sandbox: Sandboxes) -> None:
    container = sandbox()
    await _attach(kernel, endpoint(container, 2))
    await kernel.apply(Plan((SetLink(veth(container, "nae2", mtu=1300)),)))
    assert (host.links()["nae2"]["mtu"], container.links()["eth0"]["mtu"]) == (1300, 1300)


async def test_more_sandboxes_than_are_open_at_once(kernel: Kernel, sandbox: Sandboxes) -> None:
    descriptors = len(list(Path("/proc/self/fd").iterdir()))
    desired = await _attach(kernel, *(endpoint(sandbox(), number) for number in range(2, 82)))
    assert await kernel.observe(desired) == desired
    assert len(list(Path("/proc/self/fd").iterdir())) < descriptors + 16


async def test_a_full_bridge_is_refused_by_name_and_leaves_nothing(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes, tmp_path: Path
) -> None:
    """A Linux bridge takes 1,023 ports (BR_MAX_PORTS)."""
    container = sandbox()
    await kernel.apply(Plan((AddLink(bridge()),)))
    ports = "\n".join(f"link add p{number} master nab1 type veth peer q{number}" for number in range(1023))
    batch = tmp_path / "ports"
    batch.write_text(ports)
    host.ip("-batch", str(batch))
    with pytest.raises(KernelRejected, match="1,023 ports"):
        await kernel.apply(Plan((AddLink(veth(container)),)))
    assert "nae1" not in host.links()
    assert sorted(container.links()) == ["lo"]


async def test_a_sweep_deletes_what_a_crash_left_and_spares_strangers(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    desired = await _attach(kernel, endpoint(sandbox(), 2))
    host.ip("link", "add", "na-77", "group", str(GROUP_DYING), "type", "veth", "peer", "na-78")
    host.ip("link", "set", "na-77", "alias", "netagent:gone")
    host.ip("link", "add", "foreign", "group", str(GROUP_DYING), "type", "bridge")
    assert await kernel.own_links() == {"nab1", "nae2"}
    await kernel.sweep()
    assert sorted(host.links()) == ["foreign", "lo", "nab1", "nae2"]
    assert await kernel.observe(desired) == desired


async def test_a_sweep_deletes_what_a_crash_left_on_its_bridge(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    await _attach(kernel, endpoint(sandbox(), 2), endpoint(sandbox(), 3))
    host.ip("link", "set", "nae3", "group", str(GROUP_DYING))
    await kernel.sweep()
    assert sorted(host.links()) == ["lo", "nab1", "nae2"]


async def test_many_detached_pairs_go_together_and_a_stranger_on_a_bridge_stays(
    kernel: Kernel, host: Namespace, sandbox: Sandboxes
) -> None:
    container = sandbox()
    pairs = [veth(container, f"nae{number}", interface=f"eth{number}") for number in range(5)]
    await _attach(kernel, *(state(link) for link in pairs))
    host.ip("link", "add", "foreign", "group", str(GROUP_DYING), "master", "nab1", "type", "veth", "peer", "far")
    await kernel.apply(Plan(tuple(DeleteLink(link) for link in pairs)))
    await kernel.drained()
    assert sorted(host.links()) == ["far", "foreign", "lo", "nab1"]


async def test_a_bridge_port_has_no_ipv6_of_its_own(kernel: Kernel, host: Namespace, sandbox: Sandboxes) -> None:
    await _attach(kernel, endpoint(sandbox(), 2))
    assert host.ip("-6", "-o", "address", "show", "dev", "nae2") == ""
    assert "nae2" not in host.ip("-6", "route", "show", "table", "all")


async def test_the_hosts_own_namespace_is_no_sandbox(kernel: Kernel, host: Namespace) -> None:
    with pytest.raises(InvalidRequest, match="host itself"):
        await kernel.sandbox_inode(host.path)
    with pytest.raises(InvalidRequest, match="host itself"):
        await kernel.apply(Plan((AddLink(veth(host, master=None)),)))
    assert sorted(host.links()) == ["lo"]
