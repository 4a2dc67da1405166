"""Who this host is: the same at every start, and reachable where it says."""

import socket
import uuid
from pathlib import Path

import pytest

from netagent.daemon.config import Config
from netagent.daemon.identity import DEFAULT_MTU, describe_host, load_host_id
from netagent.errors import EnvironmentProblem, InvalidRequest
from netagent.model.address import parse_address
from netagent.model.host import HostFacts
from tests.support.world import H1, facts

ETH0 = {"eth0": (1500, ("198.18.0.1", "fe80::1", "fd00::1", "198.18.0.2"))}
ETH1 = {"eth1": (9000, ("10.9.0.1",))}
LO = {"lo": (65536, ("127.0.0.1", "::1"))}


def with_default(device: str | None, interfaces: dict[str, tuple[int, tuple[str, ...]]]) -> HostFacts:
    known = facts(interfaces=interfaces)
    return HostFacts(interfaces=known.interfaces, routes=known.routes, default_device=device)


def test_a_hosts_id_is_made_once_and_kept(tmp_path: Path) -> None:
    first = load_host_id(tmp_path)
    assert str(uuid.UUID(first)) == first
    assert load_host_id(tmp_path) == first
    assert [path.name for path in tmp_path.iterdir()] == ["host-id"]


def test_two_hosts_have_two_ids(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    assert load_host_id(tmp_path / "a") != load_host_id(tmp_path / "b")


@pytest.mark.parametrize("content", [b"", b"h1\n", b"\xff\xfe"])
def test_a_damaged_id_is_never_replaced_by_a_new_one(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "host-id").write_bytes(content)
    with pytest.raises(EnvironmentProblem, match="does not hold a UUID") as caught:
        load_host_id(tmp_path)
    assert "restore it" in caught.value.hint
    assert (tmp_path / "host-id").read_bytes() == content


def test_an_id_that_a_crash_left_half_written_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "host-id.new").write_text("00000000")
    assert uuid.UUID(load_host_id(tmp_path))


def test_the_underlay_is_the_interface_of_the_default_route_with_one_address_a_family() -> None:
    host = describe_host(H1, Config(host_name="h1"), with_default("eth0", {**LO, **ETH1, **ETH0}))
    assert (host.id, host.name, host.interface, host.mtu) == (H1, "h1", "eth0", 1500)
    assert host.underlay == (parse_address("198.18.0.1"), parse_address("fd00::1"))


def test_the_address_of_the_command_line_decides_the_interface_and_comes_first() -> None:
    host = describe_host(H1, Config(host_name="h1", host_ip="10.9.0.1"), with_default("eth0", {**ETH0, **ETH1}))
    assert (host.interface, host.mtu, host.underlay) == ("eth1", 9000, (parse_address("10.9.0.1"),))
    host = describe_host(H1, Config(host_name="h1", host_ip="198.18.0.2"), with_default("eth0", ETH0))
    assert host.underlay == (parse_address("198.18.0.2"), parse_address("fd00::1"))
    host = describe_host(H1, Config(host_name="h1", host_ip="fd00::1"), with_default("eth0", ETH0))
    assert host.underlay == (parse_address("fd00::1"), parse_address("198.18.0.1"))


def test_an_address_that_this_host_does_not_have_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"no interface of this host has the address 10\.1\.1\.1") as caught:
        describe_host(H1, Config(host_name="h1", host_ip="10.1.1.1"), with_default("eth0", ETH0))
    assert "--host-ip" in caught.value.hint
    with pytest.raises(InvalidRequest, match="invalid --host-ip: here"):
        describe_host(H1, Config(host_name="h1", host_ip="here"), with_default("eth0", ETH0))


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "fe80::2", "0.0.0.0", "224.0.0.1"])
def test_an_address_that_no_other_host_can_reach_is_refused(address: str) -> None:
    facts = with_default("eth0", {**LO, **ETH0, "eth9": (1500, (address,))})
    with pytest.raises(InvalidRequest, match=r"invalid --host-ip: .* is no address that other hosts can reach"):
        describe_host(H1, Config(host_name="h1", host_ip=address), facts)


def test_without_a_default_route_any_interface_but_loopback_will_do() -> None:
    host = describe_host(H1, Config(host_name="h1"), with_default(None, {**LO, "eth9": (1500, ("fe80::2",)), **ETH1}))
    assert host.interface == "eth1"


def test_a_host_with_nothing_but_loopback_serves_itself() -> None:
    host = describe_host(H1, Config(host_name="h1"), with_default(None, LO))
    assert (host.underlay, host.mtu, host.interface) == ((), DEFAULT_MTU, "")


def test_the_name_is_the_machines_without_its_domain(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "gethostname", lambda: "h7.example.org")
    assert describe_host(H1, Config(), with_default(None, LO)).name == "h7"


def test_a_name_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="invalid host name 'a b'"):
        describe_host(H1, Config(host_name="a b"), with_default(None, LO))
