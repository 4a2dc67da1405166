"""The driver's protocol, case by case (D01 to D24): what dockerd may send twice, late, wrong or all at once."""

import socket
import stat
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from netagent.lab.host import Host
from tests.support.docker_calls import (
    ENDPOINT,
    NETWORK,
    SOCKET,
    SPACE,
    call,
    create_endpoint,
    create_network,
    delete_endpoint,
    done,
    ids,
    port,
    port_map,
    remove_network,
    send,
)
from tests.support.hosts import dump, fetches, netagent, same
from tests.support.lab import MakeLab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SUBNET = "10.80.0.0/16"
OTHER = "c" * 64


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Host:
    (host,) = make_lab(hosts=1, agents=False).hosts
    host.path("/etc/netagent/agent.toml").write_text("docker = true\naddress_hold_down = 0\n")
    host.agent.start()
    return host


@pytest.fixture
def pool(host: Host) -> Iterator[str]:
    """The pool of a Docker network that is gone after the test."""
    pool = create_network(host, SUBNET)
    yield pool
    remove_network(host, pool)
    eventually(lambda: SUBNET not in netagent(host, "network", "ls").stdout)


def _veths(host: Host) -> str:
    return host.run("ip", "-o", "link", "show", "type", "veth").stdout


def test_the_manifest_names_both_drivers(host: Host) -> None:
    """D01."""
    assert sorted(done(host, "Plugin.Activate")["Implements"]) == ["IpamDriver", "NetworkDriver"]
    assert done(host, "NetworkDriver.GetCapabilities") == {"Scope": "local", "ConnectivityScope": "global"}
    assert done(host, "IpamDriver.GetCapabilities")["RequiresRequestReplay"] is False
    assert done(host, "IpamDriver.GetDefaultAddressSpaces")["LocalDefaultAddressSpace"]


def test_a_method_nobody_knows_is_not_found(host: Host) -> None:
    """D02."""
    assert send(host, "NetworkDriver.Teleport", b"{}")[0] == 404


def test_methods_are_called_by_post_alone(host: Host) -> None:
    """D03."""
    assert send(host, "Plugin.Activate", b"", verb="GET")[0] == 405


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"NetworkID": 7}',
        b'{"NetworkID": "../../etc"}',
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"Options": {}}',
    ],
    ids=["empty", "half", "a-list", "a-number", "no-id", "deep", "no-text", "nothing-needed"],
)
def test_a_body_that_is_wrong_is_refused_and_changes_nothing(host: Host, body: bytes) -> None:
    """D04; an empty body also comes from a retry with a drained buffer."""
    before = dump(host)
    status, answer = send(host, "NetworkDriver.CreateNetwork", body)
    assert status == 400
    assert answer["Err"] == answer["Error"]
    assert same(host, before)


def _data(**fields: object) -> list[dict[str, object]]:
    return [{"AddressSpace": SPACE, "Pool": "10.87.0.0/16", "Gateway": "10.87.0.1/16", **fields}]


HOSTILE: dict[str, tuple[str, dict[str, object]]] = {
    "pool-no-cidr": ("IpamDriver.RequestPool", {"AddressSpace": SPACE, "Pool": "10.0.0.0/99"}),
    "pool-of-the-underlay": ("IpamDriver.RequestPool", {"AddressSpace": SPACE, "Pool": "198.18.0.0/24"}),
    "pool-option": ("IpamDriver.RequestPool", {"AddressSpace": SPACE, "Options": {"network": "../../etc"}}),
    "pool-id": ("IpamDriver.RequestAddress", {"PoolID": "../../etc", "Address": "10.0.0.1"}),
    "network-pool": ("NetworkDriver.CreateNetwork", {"NetworkID": OTHER, "IPv4Data": _data(Pool="x")}),
    "network-gateway": ("NetworkDriver.CreateNetwork", {"NetworkID": OTHER, "IPv4Data": _data(Gateway="10.1.0.1/16")}),
    "network-aux": ("NetworkDriver.CreateNetwork", {"NetworkID": OTHER, "IPv4Data": _data(AuxAddresses={"a": "x"})}),
    "network-option": (
        "NetworkDriver.CreateNetwork",
        {"NetworkID": OTHER, "IPv4Data": _data(), "Options": {"com.docker.network.generic": {"mtu": "x"}}},
    ),
    "network-name": (
        "NetworkDriver.CreateNetwork",
        {"NetworkID": OTHER, "IPv4Data": _data(), "Options": {"com.docker.network.generic": {"network": "a/b"}}},
    ),
    "endpoint-address": ("NetworkDriver.CreateEndpoint", {**ids(), "Interface": {"Address": "10.80.0.300/16"}}),
    "endpoint-mac": ("NetworkDriver.CreateEndpoint", {**ids(), "Interface": {"MacAddress": "01:00:5e:00:00:01"}}),
    "endpoint-elsewhere": ("NetworkDriver.CreateEndpoint", {**ids(), "Interface": {"Address": "192.0.2.1/24"}}),
    "join-nowhere": ("NetworkDriver.Join", {**ids(), "SandboxKey": ""}),
    "join-unknown": ("NetworkDriver.Join", {**ids(), "SandboxKey": "/var/run/docker/netns/../../../../etc/passwd"}),
    "ports-unknown": (
        "NetworkDriver.ProgramExternalConnectivity",
        {**ids(), "Options": port_map({"Proto": 6, "Port": 80, "HostIP": "$(id)", "HostPort": 1, "HostPortEnd": 1})},
    ),
}


def test_what_makes_no_sense_is_refused_and_changes_nothing(host: Host, pool: str) -> None:
    before = dump(host)
    for case, (method, fields) in HOSTILE.items():
        answer = call(host, method, **fields)
        assert answer.get("Err"), (case, answer)
        assert answer["Err"] == answer["Error"], case
        assert "internal error" not in answer["Err"], case
    assert same(host, before)


def test_a_network_is_created_once(host: Host, pool: str) -> None:
    """D05 and D06."""
    data = [{"AddressSpace": SPACE, "Pool": SUBNET, "Gateway": "10.80.0.1/16", "AuxAddresses": {}}]
    generic = {"com.docker.network.generic": {}, "com.docker.network.internal": False}
    request = {"NetworkID": NETWORK, "Options": generic, "IPv4Data": data, "IPv6Data": []}
    assert done(host, "NetworkDriver.CreateNetwork", **request) == {}
    changed = {**request, "Options": {"com.docker.network.generic": {"mtu": "1400"}}}
    assert "exists already, with other settings" in call(host, "NetworkDriver.CreateNetwork", **changed)["Err"]
    assert netagent(host, "network", "ls").stdout.count(SUBNET) == 1


def test_an_endpoint_answers_only_what_was_not_given(host: Host, pool: str) -> None:
    """D07 and D08: and the same request gets the same answer."""
    address, interface = create_endpoint(host, pool)
    assert set(interface) == {"MacAddress"}
    again = done(host, "NetworkDriver.CreateEndpoint", **ids(), Interface={"Address": address}, Options={})
    assert again["Interface"] == interface
    other = call(host, "NetworkDriver.CreateEndpoint", **ids(), Interface={"Address": "10.80.0.77/16"}, Options={})
    assert "exists already" in other["Err"]
    given = done(
        host,
        "NetworkDriver.CreateEndpoint",
        **ids(OTHER),
        Interface={"MacAddress": "02:00:00:00:00:09"},
        Options={},
    )["Interface"]
    assert set(given) == {"Address"}
    assert given["Address"].endswith("/16")
    delete_endpoint(host, pool, address)
    delete_endpoint(host, pool, given["Address"], endpoint=OTHER)


def test_joining_and_everything_after_it_may_come_twice(host: Host, pool: str) -> None:
    """D09 and D10."""
    address, _ = create_endpoint(host, pool)
    sandbox = {"SandboxKey": "/var/run/docker/netns/0123456789ab", "Options": {}}
    first = done(host, "NetworkDriver.Join", **ids(), **sandbox)
    assert first["Gateway"] == "10.80.0.1"
    assert first["InterfaceName"]["DstPrefix"] == "eth"
    assert f"{first['InterfaceName']['SrcName']}@" in _veths(host)
    assert done(host, "NetworkDriver.Join", **ids(), **sandbox) == first
    elsewhere = call(host, "NetworkDriver.Join", **ids(), SandboxKey="/var/run/docker/netns/other")
    assert "another sandbox" in elsewhere["Err"]
    for method in ("NetworkDriver.Leave", "NetworkDriver.DeleteEndpoint"):
        assert done(host, method, **ids()) == {}
        assert done(host, method, **ids()) == {}
    eventually(lambda: "nae" not in _veths(host))
    for _ in range(2):
        done(host, "IpamDriver.ReleaseAddress", PoolID=pool, Address=address.partition("/")[0])
    assert done(host, "NetworkDriver.DeleteNetwork", NetworkID=OTHER) == {}


def test_a_network_with_endpoints_is_not_deleted(host: Host, pool: str) -> None:
    """D11."""
    address, _ = create_endpoint(host, pool)
    assert "active endpoints" in call(host, "NetworkDriver.DeleteNetwork", NetworkID=NETWORK)["Err"]
    done(host, "NetworkDriver.Join", **ids(), SandboxKey="/var/run/docker/netns/0123456789ab")
    assert "active endpoints" in call(host, "NetworkDriver.DeleteNetwork", NetworkID=NETWORK)["Err"]
    assert "nae" in _veths(host)
    done(host, "NetworkDriver.Leave", **ids())
    delete_endpoint(host, pool, address)


def test_an_endpoint_outlives_the_agent_between_its_creation_and_joining(host: Host, pool: str) -> None:
    """D12."""
    address, _ = create_endpoint(host, pool)
    host.agent.kill()
    host.agent.start()
    assert (
        "Address already in use"
        in call(host, "IpamDriver.RequestAddress", PoolID=pool, Address=address.partition("/")[0])["Error"]
    )
    done(host, "NetworkDriver.Join", **ids(), SandboxKey="/var/run/docker/netns/0123456789ab")
    host.agent.kill()
    host.agent.start()
    done(host, "NetworkDriver.Leave", **ids())
    delete_endpoint(host, pool, address)
    eventually(lambda: "nae" not in _veths(host))


def test_a_pool_is_held_until_all_who_asked_have_released_it(host: Host) -> None:
    """D13."""
    asked = {"AddressSpace": SPACE, "Pool": "10.81.0.0/16"}
    one, two = (done(host, "IpamDriver.RequestPool", **asked) for _ in range(2))
    assert one == two
    gateway = {"PoolID": one["PoolID"], "Options": {"RequestAddressType": "com.docker.network.gateway"}}
    done(host, "IpamDriver.ReleasePool", PoolID=one["PoolID"])
    assert done(host, "IpamDriver.RequestAddress", **gateway)["Address"] == "10.81.0.1/16"
    for _ in range(2):
        done(host, "IpamDriver.ReleasePool", PoolID=one["PoolID"])
    assert "not held" in call(host, "IpamDriver.RequestAddress", **gateway)["Error"]


def test_a_pool_that_is_held_is_not_given_again(host: Host) -> None:
    """D14: dockerd holds what overlaps and asks again."""
    pools = [done(host, "IpamDriver.RequestPool", AddressSpace=SPACE) for _ in range(5)]
    assert len({pool["Pool"] for pool in pools}) == 5
    for pool in pools:
        done(host, "IpamDriver.ReleasePool", PoolID=pool["PoolID"])


def test_an_address_is_given_exactly_or_refused(host: Host, pool: str) -> None:
    """D15 and D16."""
    asked = {"PoolID": pool, "Address": "10.80.0.9"}
    assert done(host, "IpamDriver.RequestAddress", **asked)["Address"] == "10.80.0.9/16"
    assert "Address already in use" in call(host, "IpamDriver.RequestAddress", **asked)["Error"]
    for wrong in ("10.80.0.1", "10.99.0.1", "10.80.255.255", "nonsense", "fd00::1"):
        assert call(host, "IpamDriver.RequestAddress", PoolID=pool, Address=wrong)["Error"], wrong
    done(host, "IpamDriver.ReleaseAddress", **asked)
    assert done(host, "IpamDriver.RequestAddress", **asked)["Address"] == "10.80.0.9/16"
    done(host, "IpamDriver.ReleaseAddress", **asked)


def test_addresses_come_from_the_part_of_the_pool_that_was_asked_for(host: Host) -> None:
    """D17."""
    asked = {"AddressSpace": SPACE, "Pool": "10.82.0.0/16", "SubPool": "10.82.7.0/24"}
    assert call(host, "IpamDriver.RequestPool", AddressSpace=SPACE, SubPool="10.82.7.0/24")["Error"]
    assert call(host, "IpamDriver.RequestPool", **{**asked, "SubPool": "10.83.0.0/24"})["Error"]
    pool = done(host, "IpamDriver.RequestPool", **asked)["PoolID"]
    data = [{"AddressSpace": SPACE, "Pool": "10.82.0.0/16", "Gateway": "10.82.0.1/16", "AuxAddresses": {}}]
    done(host, "NetworkDriver.CreateNetwork", NetworkID=OTHER, Options={}, IPv4Data=data)
    given = done(host, "IpamDriver.RequestAddress", PoolID=pool, Address="")["Address"]
    assert given.startswith("10.82.7.")
    done(host, "IpamDriver.ReleaseAddress", PoolID=pool, Address=given.partition("/")[0])
    remove_network(host, pool, network=OTHER)


def test_pools_of_ipv6_are_given_too(host: Host) -> None:
    """D18."""
    pool = done(host, "IpamDriver.RequestPool", AddressSpace=SPACE, V6=True)
    assert pool["Pool"].startswith("fd")
    asked = {"RequestAddressType": "com.docker.network.gateway"}
    gateway = done(host, "IpamDriver.RequestAddress", PoolID=pool["PoolID"], Address="", Options=asked)["Address"]
    assert gateway.endswith("::1/64")
    done(host, "IpamDriver.ReleasePool", PoolID=pool["PoolID"])


def test_a_refusal_is_told_under_both_names(host: Host) -> None:
    """D19: the network driver's callers read one of them, the IPAM driver's the other."""
    for method in ("NetworkDriver.Join", "NetworkDriver.CreateEndpoint"):
        answer = call(host, method, **ids(), SandboxKey="/var/run/docker/netns/x")
        assert answer["Err"] == answer["Error"]
        assert "not known" in answer["Err"]
    assert "not held" in call(host, "IpamDriver.ReleaseAddress", PoolID="nobody's", Address="10.0.0.1")["Error"]


def test_ports_are_published_when_docker_says_so_and_no_longer(host: Host, pool: str) -> None:
    """D20."""
    address, _ = create_endpoint(host, pool)
    joined = done(host, "NetworkDriver.Join", **ids(), SandboxKey="/var/run/docker/netns/0123456789ab")
    source = joined["InterfaceName"]["SrcName"]
    host.run("ip", "netns", "add", "dockers")
    server = None
    try:
        host.run("ip", "link", "set", source, "netns", "dockers", "name", "eth0")
        host.run("ip", "-n", "dockers", "address", "add", address, "dev", "eth0")
        host.run("ip", "-n", "dockers", "link", "set", "eth0", "up")
        host.run("ip", "-n", "dockers", "route", "add", "default", "via", "10.80.0.1")
        inside = ("nsenter", "--net=/run/netns/dockers")
        server = host.popen(*inside, "busybox", "httpd", "-f", "-p", "80", "-h", "/etc")
        options = port_map(
            port(80, 4100), port(80, 0), port(53, 5300, protocol=17), port(80, 4101, address="127.0.0.1")
        )
        for _ in range(2):
            done(host, "NetworkDriver.ProgramExternalConnectivity", **ids(), Options=options)
        expected = host.run("cat", "/etc/hostname").stdout.strip()
        eventually(lambda: fetches(host, f"http://{host.ip}:4100/hostname", expected))
        assert fetches(host, "http://127.0.0.1:4101/hostname", expected)
        host.agent.restart()
        assert fetches(host, f"http://{host.ip}:4100/hostname", expected)
        connections = ("conntrack", "-L", "-p", "tcp", "--orig-port-dst", "4100")
        assert "dport=4100" in host.run(*connections).stdout
        for _ in range(2):
            done(host, "NetworkDriver.RevokeExternalConnectivity", **ids())
        eventually(lambda: "dport=4100" not in host.run(*connections).stdout)
        assert not fetches(host, f"http://{host.ip}:4100/hostname", expected)
        bad = port_map(port(80, 4100, protocol=1))
        assert "protocol" in call(host, "NetworkDriver.ProgramExternalConnectivity", **ids(), Options=bad)["Err"]
    finally:
        if server is not None:
            server.kill()
            server.wait()
        host.run("ip", "netns", "del", "dockers")
        done(host, "NetworkDriver.Leave", **ids())
        delete_endpoint(host, pool, address)


def test_an_internal_network_is_told_no_gateway(host: Host) -> None:
    """D21."""
    pool = create_network(host, "10.84.0.0/16", internal=True)
    address, _ = create_endpoint(host, pool)
    joined = done(host, "NetworkDriver.Join", **ids(), SandboxKey="/var/run/docker/netns/0123456789ab")
    assert "Gateway" not in joined
    assert joined["DisableGatewayService"] is True
    done(host, "NetworkDriver.Leave", **ids())
    delete_endpoint(host, pool, address)
    remove_network(host, pool)


def test_half_a_request_holds_nobody_up(host: Host) -> None:
    """D22."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as slow:
        slow.connect(str(host.path(SOCKET)))
        slow.sendall(b"POST /NetworkDriver.CreateNetwork HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        done(host, "Plugin.Activate")
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):  # it is still waited for
            slow.recv(1)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("POST /Plugin.Activate HTTP/1.1\r\nTransfer-Encoding: chunked", 411),
        ("POST /Plugin.Activate HTTP/1.1\r\nContent-Length: -1", 400),
        ("POST /Plugin.Activate HTTP/1.1\r\nContent-Length: 99999999999", 413),
        ("POST /Plugin.Activate HTTP/1.1\r\nX: " + "x" * 70_000, 431),
        ("nonsense", 400),
    ],
    ids=["chunked", "negative", "too-large", "long-head", "no-http"],
)
def test_what_is_no_request_is_answered_by_a_status(host: Host, head: str, status: int) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(30)
        client.connect(str(host.path(SOCKET)))
        client.sendall(f"{head}\r\n\r\n".encode())
        assert client.recv(64).split(b" ")[1] == str(status).encode()


def test_a_hundred_endpoints_at_once_have_a_hundred_addresses(host: Host, pool: str) -> None:
    """D23."""
    endpoints = [f"{number:064x}" for number in range(1, 101)]
    with ThreadPoolExecutor(20) as callers:
        given = list(callers.map(lambda e: create_endpoint(host, pool, endpoint=e)[0], endpoints))
        assert len(set(given)) == 100
        list(callers.map(lambda e, a: delete_endpoint(host, pool, a, endpoint=e), endpoints, given))


def test_a_socket_that_is_removed_or_replaced_comes_back(host: Host) -> None:
    """D24; also one that a killed agent left behind."""
    path = host.path(SOCKET)
    path.unlink()
    eventually(lambda: _is_served(host))
    other = path.with_suffix(".other")
    other.write_text("somebody else's")
    other.rename(path)
    path.unlink(missing_ok=True)
    eventually(lambda: path.is_socket() and _is_served(host))
    assert stat.S_IMODE(path.stat().st_mode) == 0o660
    host.agent.kill()
    assert path.is_socket()
    host.agent.start()
    done(host, "Plugin.Activate")


def _is_served(host: Host) -> bool:
    try:
        return bool(done(host, "Plugin.Activate"))
    except OSError:
        return False


def test_addresses_of_docker_need_the_network_driver_too(host: Host) -> None:
    """Neither driver goes without the other: two hosts would give the same addresses."""
    pool = done(host, "IpamDriver.RequestPool", AddressSpace=SPACE, Pool="10.85.0.0/16")["PoolID"]
    assert "--driver netagent" in call(host, "IpamDriver.RequestAddress", PoolID=pool, Address="")["Error"]
    done(host, "IpamDriver.ReleasePool", PoolID=pool)
    data = [{"AddressSpace": "LocalDefault", "Pool": "10.86.0.0/16", "Gateway": "10.86.0.1/16"}]
    answer = call(host, "NetworkDriver.CreateNetwork", NetworkID=OTHER, Options={}, IPv4Data=data)
    assert "--ipam-driver netagent" in answer["Err"]
    assert ENDPOINT not in netagent(host, "ps", "-a").stdout
