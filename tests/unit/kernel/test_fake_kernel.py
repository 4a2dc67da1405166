"""The fake kernel where tests lean on it: injected failures and cascades. That it agrees with the real one is tested
in tests/kernel/test_kernel_fake_agrees.py."""

import errno

import pytest

from netagent.errors import Conflict, KernelRejected
from netagent.kernel.fake import FakeKernel, FakeReservations
from netagent.model.address import Mac, parse_address, parse_prefix
from netagent.model.port import PortMapping, PortSlot
from netagent.plan.desired import Bridge, InterfaceAddress, Link, Route, Veth
from netagent.plan.operation import AddAddress, AddLink, AddRoute, Plan

BRIDGE = Link(name="nab1", kind=Bridge(), mtu=1500, alias="netagent:n")
ADDRESS = InterfaceAddress(device="nab1", address=parse_address("10.0.0.1"), length=24)


async def test_an_injected_failure_hits_the_chosen_operation_once() -> None:
    kernel = FakeKernel()
    kernel.rearm({1: KernelRejected("x", errno.ENOBUFS, "no buffer space")})
    plan = Plan((AddLink(BRIDGE), AddAddress(ADDRESS)))
    with pytest.raises(KernelRejected):
        await kernel.apply(plan)
    assert kernel.applied == [AddLink(BRIDGE)]
    await kernel.apply(Plan((AddAddress(ADDRESS),)))
    assert kernel.addresses == {ADDRESS}


async def test_a_sandbox_takes_its_veth_pairs_along() -> None:
    kernel = FakeKernel()
    inode = await kernel.create_sandbox("/run/box")
    kind = Veth(sandbox="/run/box", interface="eth0", peer_mac=Mac("02:00:00:00:00:01"), sandbox_inode=inode)
    link = Link(name="nae1", kind=kind, mtu=1500, alias="netagent:e")
    route = Route(destination=parse_prefix("0.0.0.0/0"), device="eth0", where="/run/box")
    await kernel.apply(Plan((AddLink(link), AddRoute(route))))
    await kernel.delete_sandbox("/run/box")
    assert (kernel.links, kernel.routes) == ({}, {})


def test_fake_reservations_refuse_taken_ports() -> None:
    held = FakeReservations(frozenset({("tcp", 80)}))
    with pytest.raises(Conflict):
        held.reserve(PortSlot("tcp", 80, None))
    with pytest.raises(Conflict):
        held.check_free(PortMapping(protocol="tcp", container_port=1, host_port=70, count=20))
    slot = PortSlot("tcp", 81, None)
    held.reserve(slot)
    held.reserve(slot)
    held.release(slot)
    assert held.held == set()
