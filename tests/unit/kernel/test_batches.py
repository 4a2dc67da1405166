"""How a plan is cut into batches."""

from ipaddress import ip_address

from netagent.kernel import kernel
from netagent.kernel.apply import batches
from netagent.model.address import Mac
from netagent.plan.desired import Bridge, InterfaceAddress, Link, Veth
from netagent.plan.operation import AddAddress, AddLink, Operation, Plan, SetLink

BRIDGE = Link(name="nab1", kind=Bridge(), mtu=1500, alias="netagent:x")


def _veth(number: int) -> AddLink:
    kind = Veth(sandbox=f"/run/{number}", interface="eth0", peer_mac=Mac("02:00:00:00:00:01"))
    return AddLink(Link(name=f"nae{number}", kind=kind, mtu=1500, alias="netagent:x", master="nab1"))


def _address(number: int, where: str = "") -> AddAddress:
    return AddAddress(InterfaceAddress(device="eth0", address=ip_address("10.0.0.0") + number, length=24, where=where))


def _sizes(*given: Operation) -> list[int]:
    return [len(batch) for batch in batches(Plan.ordered(given).operations)]


def test_bridges_are_made_before_their_ports_in_batches_of_their_own() -> None:
    assert _sizes(_veth(1), AddLink(BRIDGE), _veth(2)) == [1, 2]


def test_each_namespace_has_its_own_batch() -> None:
    assert _sizes(_address(1), _address(2), _address(3, "/run/1"), _address(4, "/run/1"), _address(5)) == [2, 2, 1]


def test_classes_are_not_mixed() -> None:
    assert _sizes(AddLink(BRIDGE), SetLink(BRIDGE)) == [1, 1]


def test_no_batch_names_more_sandboxes_than_are_open_at_once() -> None:
    sizes = _sizes(*(_veth(number) for number in range(100)))
    assert max(sizes) <= 64
    assert sum(sizes) == 100


def test_every_operation_has_its_crash_points() -> None:
    kinds = {kind.__name__ for kind in Operation.__subclasses__()}
    assert kinds
    named = set(kernel.failpoints())
    assert {f"kernel.{kind}.{side}" for kind in kinds for side in ("before", "after")} <= named
    assert len(named) == len(kernel.failpoints())
