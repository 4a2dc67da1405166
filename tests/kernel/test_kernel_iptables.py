"""The iptables backend: what is put is observed as it was put, the save programs are witness."""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from types import MappingProxyType

import pytest

from netagent.firewall import admin
from netagent.firewall.ruleset import CHAINS, SETS
from netagent.kernel.kernel import Kernel
from netagent.plan.desired import Ruleset, State
from netagent.plan.diff import diff
from netagent.plan.operation import AddElements, DeleteElements, Plan
from netagent.plan.render import union
from tests.support import netns as namespaces
from tests.support.netns import Namespace, address, bridge, endpoint

pytestmark = pytest.mark.kernel

BLOCK6 = "0xfd000009000000000000000000000000-0xfd00000900000000000000000000ffff"
ADDRESS6 = "0xfd000008000000000000000000000002"

ELEMENTS = {
    "inside": frozenset({"nab1", "nav1", "nab2"}),
    "tunnels": frozenset({"nav1"}),
    "internal": frozenset({"nab2"}),
    "separate": frozenset({"nab2"}),
    "paths": frozenset({"nab1 . nab1", "nab1 . nav1", "nav1 . nab1", "nab2 . nab2"}),
    "linked4": frozenset({"10.2.0.2 . 10.2.0.3 . tcp . 80", "10.2.0.2 . 10.2.0.3 . udp . 53-54"}),
    "linked6": frozenset({"fd00:9::2 . fd00:9::3 . tcp . 80"}),
    "ways": frozenset({"eth0", "nav1"}),
    "routed4": frozenset({"10.3.0.0/24", "10.3.1.7"}),
    "routed6": frozenset({"fd00:8::/80"}),
    "remote4": frozenset({"10.3.0.0/24 . nab1", "10.3.0.0/24 . nav1", "10.3.1.7 . nab1"}),
    "remote6": frozenset({"fd00:8::/80 . nab1"}),
    "masquerade4": frozenset({"10.1.0.0/16", "10.2.0.1"}),
    "masquerade6": frozenset({"fd00:9::/64"}),
    "kept4": frozenset({"10.1.0.0/16 . 198.18.0.0/15", "10.2.0.1 . 203.0.113.7"}),
    "kept6": frozenset({"fd00:9::/64 . 2001:db8::/32"}),
    "outbound4": frozenset({"10.1.0.0/16 : 198.18.0.9"}),
    "outbound6": frozenset({"fd00:9::/64 : 2001:db8::9"}),
    "hairpin4": frozenset({"10.1.0.2 . 10.1.0.2"}),
    "hairpin6": frozenset({"fd00:9::2 . fd00:9::2"}),
    "publish4": frozenset({"tcp . 4000 : 10.1.0.2 . 80", "udp . 53 : 10.1.0.3 . 5353", "sctp . 7 : 10.1.0.3 . 7"}),
    "publish4_at": frozenset({"127.0.0.1 . tcp . 4001 : 10.1.0.2 . 80"}),
    "publish6": frozenset({"tcp . 4000 : fd00:9::2 . 80"}),
    "publish6_at": frozenset({"2001:db8::1 . tcp . 80 : fd00:9::2 . 8080"}),
    "ranges4": frozenset({"tcp . 8000-8100 : 10.1.0.2"}),
    "ranges4_at": frozenset({"127.0.0.1 . udp . 8000-8100 : 10.1.0.2"}),
    "ranges6": frozenset({"tcp . 8000-8100 : fd00:9::2"}),
    "ranges6_at": frozenset({"2001:db8::1 . tcp . 9000-9001 : fd00:9::2"}),
    "limited4": frozenset({"0.0.0.0/0 . tcp . 4000", "127.0.0.1 . udp . 8000-8100"}),
    "limited6": frozenset({"::/0 . tcp . 4000"}),
    "allowed4": frozenset({"10.0.0.0/8 . 0.0.0.0/0 . tcp . 4000", "10.9.0.7 . 127.0.0.1 . udp . 8000-8100"}),
    "allowed6": frozenset({"fd00:7::/64 . ::/0 . tcp . 4000"}),
    "vnis": frozenset({"4097", "16777215"}),
    "peers4": frozenset({"198.18.0.2 . 4097", "198.18.0.3 . 4097", "198.18.0.2 . 16777215"}),
    "peers6": frozenset({"2001:db8::7 . 4097"}),
    "behind44": frozenset({"198.18.0.2 . 4097 . 3232236032-3232236287", "198.18.0.2 . 4097 . 3232240000"}),
    "behind46": frozenset({f"198.18.0.2 . 4097 . {BLOCK6}"}),
    "behind64": frozenset({"2001:db8::7 . 4097 . 3232236032-3232236287"}),
    "behind66": frozenset({f"2001:db8::7 . 4097 . {BLOCK6}", f"2001:db8::7 . 4097 . {ADDRESS6}"}),
    "grebehind44": frozenset({"198.18.0.2 . 4097 . 3232236032-3232236287"}),
    "grebehind46": frozenset({f"198.18.0.2 . 4097 . {BLOCK6}"}),
    "grebehind64": frozenset({"2001:db8::7 . 4097 . 3232236032-3232236287"}),
    "grebehind66": frozenset({f"2001:db8::7 . 4097 . {BLOCK6}"}),
    "blocks44": frozenset({"198.18.0.2 . 1048832 . 49320 . 7"}),
    "blocks46": frozenset({"198.18.0.2 . 1048832 . 0xfd000009000000000007"}),
    "blocks64": frozenset({"2001:db8::7 . 1048832 . 49320 . 7"}),
    "blocks66": frozenset({"2001:db8::7 . 1048832 . 0xfd000009000000000007"}),
    "greblocks44": frozenset({"198.18.0.2 . 4097 . 49320 . 7"}),
    "greblocks46": frozenset({"198.18.0.2 . 4097 . 0xfd000009000000000007"}),
    "greblocks64": frozenset({"2001:db8::7 . 4097 . 49320 . 7"}),
    "greblocks66": frozenset({"2001:db8::7 . 4097 . 0xfd000009000000000007"}),
    "bridge/macs": frozenset({"nae1 . 02:00:00:00:00:01", "nae2 . 02:0a:00:00:00:0b"}),
    "bridge/sources4": frozenset({"nae1 . 02:00:00:00:00:01 . 10.1.0.2", "nae2 . 02:0a:00:00:00:0b . 10.1.0.3"}),
    "bridge/sources6": frozenset(
        {f"nae1 . 02:00:00:00:00:01 . {address}" for address in ("fd00:9::2", "fe80::ff:fe00:1")}
    ),
    "bridge/nd_targets": frozenset({"nae1 . 0xfd000009000000000000000000000002"}),
}


def state(elements: dict[str, frozenset[str]], *, with_admin: bool = False) -> State:
    """Return a state that is a firewall with ``elements`` only."""
    ruleset = Ruleset(sets=SETS, chains=CHAINS, elements=MappingProxyType(elements))
    return State(ruleset=ruleset, admin=admin.CHAINS if with_admin else ())


def everything(host: Namespace) -> str:
    """Return all rules and ipsets there are, whosever they are."""
    programs = ("iptables-nft", "ip6tables-nft", "ebtables-nft", "iptables-legacy", "ip6tables-legacy")
    text = "".join(host.run(f"{program}-save") for program in programs) + host.run("ipset", "save")
    return "\n".join(line for line in text.splitlines() if not line.startswith(("#", ":")))


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
async def kernel(request: pytest.FixtureRequest, host: Namespace) -> AsyncIterator[Kernel]:
    """The real kernel, its firewall programmed by one of the two flavours of iptables."""
    running = Kernel(namespace=host.path, iptables=request.param)
    yield running
    await running.close()


async def test_all_that_is_put_is_observed_as_it_was_put(kernel: Kernel) -> None:
    desired = state(ELEMENTS, with_admin=True)
    assert (await kernel.observe(desired)).ruleset is None
    await kernel.apply(diff(desired, State()))
    assert not diff(desired, await kernel.observe(desired))


@pytest.mark.parametrize("name", sorted(ELEMENTS.keys() - {"bridge/nd_targets"}))
async def test_the_elements_of_every_set_come_and_go(kernel: Kernel, host: Namespace, name: str) -> None:
    empty, full = state({}), state({name: ELEMENTS[name]})
    await kernel.apply(diff(empty, State()))
    before = everything(host)
    addition = diff(full, await kernel.observe(full))
    assert [type(o) for o in addition.operations if not str(o).startswith("conntrack")] == [AddElements]
    await kernel.apply(addition)
    await kernel.apply(addition)
    assert not diff(full, await kernel.observe(full))
    removal = diff(empty, full)
    await kernel.apply(removal)
    await kernel.apply(removal)
    assert not diff(empty, await kernel.observe(empty))
    if name not in ("peers4", "peers6"):
        assert everything(host) == before


async def test_the_filter_of_neighbour_messages_comes_with_the_port_and_is_put_back(
    kernel: Kernel, host: Namespace, sandbox: Callable[[], Namespace]
) -> None:
    network = namespaces.state(bridge(), addresses=[address("fd00:9::1/64", "nab1")])
    container = endpoint(sandbox(), 2)
    targets = frozenset({"nae2 . 0xfd000009000000000000000000000002", "nae2 . 0xfe80000000000000000000fffe000002"})
    desired = replace(union([network, container]), ruleset=state({"bridge/nd_targets": targets}).ruleset)

    def filters() -> str:
        return host.run("tc", "filter", "show", "dev", "nae2", "ingress")

    await kernel.apply(diff(desired, State()))
    assert "bpf" in filters()
    assert str(0xFD000009) in filters()
    assert not diff(desired, await kernel.observe(desired))
    host.run("tc", "filter", "del", "dev", "nae2", "ingress")
    repair = diff(desired, await kernel.observe(desired))
    assert [str(o) for o in repair.operations] == [
        f"nft add element bridge/nd_targets {{ {', '.join(sorted(targets))} }}"
    ]
    await kernel.apply(repair)
    assert not diff(desired, await kernel.observe(desired))
    fewer = replace(desired, ruleset=state({"bridge/nd_targets": frozenset(sorted(targets)[:1])}).ruleset)
    await kernel.apply(diff(fewer, desired))
    assert not diff(fewer, await kernel.observe(fewer))
    await kernel.apply(Plan((DeleteElements("bridge/nd_targets", tuple(sorted(targets))),)))
    assert "bpf" not in filters()
