"""The fake kernel against the real one: the same plans, the same answers, the same state."""

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from types import MappingProxyType

import pytest

from netagent.errors import KernelRejected, NetagentError
from netagent.kernel.fake import FakeKernel
from netagent.kernel.kernel import Kernel
from netagent.model.address import Mac
from netagent.plan.desired import ElementSet, FdbEntry, Neighbour, Ruleset, Veth
from netagent.plan.operation import (
    AddAddress,
    AddElements,
    AddFdb,
    AddLink,
    AddNeighbour,
    AddRoute,
    DeleteElements,
    DeleteFdb,
    DeleteLink,
    DeleteRoute,
    Operation,
    Plan,
    ReplaceRuleset,
    SetLink,
    SetSysctl,
)
from netagent.reconcile import ports
from tests.support.netns import Namespace, address, bridge, route, state, veth, vxlan

pytestmark = pytest.mark.kernel

MAC = Mac("02:00:00:00:02:02")
NEIGHBOUR = Neighbour(device="nav1", address=ip_address("10.8.2.0"), mac=MAC)
FORWARDING = FdbEntry(device="nav1", mac=MAC, destination=ip_address("198.18.0.2"))
MOVED = replace(FORWARDING, destination=ip_address("198.18.0.3"))
ROUTE = route("10.8.2.0/24", "nav1", "10.8.2.0", onlink=True)
PUBLISH = ElementSet(name="publish", key="inet_service", data="ipv4_addr . inet_service")
RULESET = Ruleset(sets=(PUBLISH,), elements=MappingProxyType({"publish": frozenset({"80 : 10.0.0.2 . 80"})}))

SCRIPTS: dict[str, Callable[[Namespace], list[Operation]]] = {
    "link-twice": lambda _: [AddLink(bridge()), AddLink(bridge())],
    "port-of-nothing": lambda box: [AddLink(veth(box))],
    "interface-taken-in-sandbox": lambda box: [
        AddLink(bridge()),
        AddLink(veth(box)),
        AddLink(veth(box, "nae2")),
    ],
    "stranger-in-sandbox": lambda box: [
        AddLink(replace(veth(box, master=None), kind=replace(_kind(box), sandbox_inode=1)))
    ],
    "settings-of-nothing": lambda _: [SetLink(bridge())],
    "sysctl-of-nothing": lambda _: [SetSysctl(("net", "ipv4", "conf", "nab1", "proxy_arp"), "1")],
    "address-twice": lambda _: [AddLink(bridge()), *[AddAddress(address("10.9.0.1/16", "nab1"))] * 2],
    "address-on-nothing": lambda _: [AddAddress(address("10.9.0.1/16", "nab1"))],
    "everything-goes-with-its-device": lambda _: [
        AddLink(vxlan()),
        AddAddress(address("10.8.1.0/32", "nav1")),
        AddNeighbour(NEIGHBOUR),
        AddFdb(FORWARDING),
        AddRoute(ROUTE),
        DeleteLink(vxlan()),
        AddLink(vxlan()),
    ],
    "bridge-goes-before-its-port": lambda box: [AddLink(bridge()), AddLink(veth(box)), DeleteLink(bridge())],
    "route-replaced": lambda _: [
        AddLink(vxlan()),
        AddRoute(ROUTE),
        AddRoute(replace(ROUTE, gateway=ip_address("10.8.2.1"))),
        DeleteRoute(ROUTE),
    ],
    "forwarding-replaced": lambda _: [AddLink(vxlan()), AddFdb(FORWARDING), AddFdb(MOVED), DeleteFdb(FORWARDING)],
    "elements-without-table": lambda _: [AddElements("publish", ("80 : 10.0.0.2 . 80",))],
    "element-twice": lambda _: [ReplaceRuleset(RULESET), AddElements("publish", ("80 : 10.0.0.2 . 80",))],
    "element-with-other-data": lambda _: [ReplaceRuleset(RULESET), AddElements("publish", ("80 : 10.0.0.9 . 80",))],
    "element-gone-twice": lambda _: [
        ReplaceRuleset(RULESET),
        *[DeleteElements("publish", ("80 : 10.0.0.2 . 80",))] * 2,
        AddElements("publish", ("81 : 10.0.0.2 . 80",)),
    ],
    "set-unknown": lambda _: [ReplaceRuleset(RULESET), AddElements("nosuch", ("80",))],
}


def _kind(box: Namespace) -> Veth:
    kind = veth(box).kind
    assert isinstance(kind, Veth)
    return kind


async def _carry_out(kernel: ports.Kernel, script: list[Operation]) -> tuple[object, ...]:
    """Apply operations one by one until one is refused; return how it ended, comparable between kernels."""
    for number, operation in enumerate(script):
        try:
            await kernel.apply(Plan((operation,)))
        except KernelRejected as error:
            return (number, type(error), error.errno)
        except NetagentError as error:
            return (number, type(error))
    return ("done",)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
async def test_both_kernels_answer_alike_and_end_alike(
    kernel: Kernel, sandbox: Callable[[], Namespace], script: Callable[[Namespace], list[Operation]]
) -> None:
    box = sandbox()
    fake = FakeKernel()
    fake.sandboxes[box.path] = box.inode
    operations = script(box)
    assert await _carry_out(fake, operations) == await _carry_out(kernel, operations)
    links = [o.link for o in operations if isinstance(o, AddLink)]
    desired = state(*{link.name: link for link in links}.values(), ruleset=RULESET)
    real, pretended = await kernel.observe(desired), await fake.observe(desired)
    assert real.links == pretended.links
    assert (real.addresses, real.routes, real.neighbours, real.fdb) == (
        pretended.addresses,
        pretended.routes,
        pretended.neighbours,
        pretended.fdb,
    )
    assert (real.ruleset and real.ruleset.elements) == (pretended.ruleset and pretended.ruleset.elements)
