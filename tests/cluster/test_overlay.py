"""Containers on three hosts in one VXLAN network, addresses leased from a real etcd."""

import json
from functools import partial
from itertools import permutations

import pytest
from scapy.layers.inet import IP, UDP
from scapy.layers.vxlan import VXLAN

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    client_address_at,
    dump,
    inside,
    inspect,
    netagent,
    pings,
    refusal,
    run,
    same,
    serve_client_address,
)
from tests.support.lab import MakeLab, eventually
from tests.support.wire import captured

pytestmark = pytest.mark.cluster

NETWORK = ("--network", "staticnet")
NAMES = {"c1": "h1", "c2": "h2", "c3": "h3", "fixed": "h1"}


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=3)
    h1 = lab.host("h1")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: all("staticnet" in netagent(host, "network", "ls").stdout for host in lab.hosts))
    for name, host in NAMES.items():
        options = ("--ip", "192.168.0.2") if name == "fixed" else ()
        run(lab.host(host), name, *NETWORK, *options)
    return lab


def _address(lab: Lab, name: str) -> str:
    return address(lab.host(NAMES[name]), name)


def test_each_host_leases_a_block_and_gives_addresses_from_it(lab: Lab) -> None:
    def seen() -> dict[str, str]:
        details = json.loads(netagent(lab.host("h2"), "network", "inspect", "staticnet").stdout)[0]
        return {block["Host"]: block["Prefix"] for block in details["Blocks"]}

    eventually(lambda: set(seen()) == {"h1", "h2", "h3"})
    owners = seen()
    assert len(set(owners.values())) == 3
    assert "192.168.0.0/24" not in owners.values()
    for name, host in NAMES.items():
        if name != "fixed":
            assert _address(lab, name).rpartition(".")[0] == owners[host].rpartition(".")[0]


def test_a_container_has_the_fixed_address_it_asked_for_and_sees_the_whole_subnet(lab: Lab) -> None:
    assert _address(lab, "fixed") == "192.168.0.2"
    shown = inside(lab.host("h1"), "fixed", "ip", "-4", "-o", "address", "show", "eth0", check=True).stdout
    assert "192.168.0.2/16" in shown
    assert "default via 192.168.0.1" in inside(lab.host("h1"), "fixed", "ip", "route", check=True).stdout


@pytest.mark.parametrize(("source", "target"), list(permutations(NAMES, 2)), ids="-to-".join)
def test_every_pair_of_containers_reaches_each_other(lab: Lab, source: str, target: str) -> None:
    host = lab.host(NAMES[source])
    eventually(lambda: pings(host, source, _address(lab, target)))
    assert pings(host, source, _address(lab, target), count=5)


def test_containers_see_each_others_own_addresses_and_not_their_hosts(lab: Lab) -> None:
    serve_client_address(lab.host("h3"), "peek", *NETWORK)
    ask = client_address_at(address(lab.host("h3"), "peek"), 80)
    eventually(lambda: inside(lab.host("h2"), "c2", *ask).stdout.strip() == _address(lab, "c2"))
    netagent(lab.host("h3"), "rm", "-f", "peek")


def test_a_host_reaches_containers_of_the_others(lab: Lab) -> None:
    ping = ("ping", "-n", "-c", "2", "-W", "2", "192.168.0.2")
    eventually(lambda: " 2 received" in lab.host("h3").run(*ping, check=False).stdout)


def test_full_sized_packets_pass_and_larger_ones_are_not_sent(lab: Lab) -> None:
    mtu = int(inside(lab.host("h2"), "c2", "cat", "/sys/class/net/eth0/mtu", check=True).stdout)
    assert mtu == 1450
    assert pings(lab.host("h2"), "c2", _address(lab, "c3"), options=("-M", "do", "-s", str(mtu - 28)))
    assert not pings(lab.host("h2"), "c2", _address(lab, "c3"), options=("-M", "do", "-s", str(mtu - 27)))


def test_nothing_but_vxlan_crosses_the_underlay(lab: Lab) -> None:
    with captured(lab.host("h3"), "icmp or udp port 4789") as frames:
        eventually(lambda: pings(lab.host("h2"), "c2", _address(lab, "c3"), count=3))
    assert frames
    for frame in frames:
        assert frame[IP].src.startswith("198.18."), frame.summary()
        assert (frame[UDP].dport, frame[VXLAN].vni) == (4789, 4097)


def test_one_route_leads_to_each_other_host_whatever_the_number_of_containers(lab: Lab) -> None:
    routes = lab.host("h1").run("ip", "route", "show", "proto", "110").stdout.splitlines()
    remote = [line for line in routes if " via " in line]
    assert len(remote) == 2
    assert all(" src 192.168." in line and "onlink" in line for line in remote)


def test_a_fixed_address_of_a_stopped_container_stays_its_own(lab: Lab) -> None:
    h1 = lab.host("h1")
    mac = inspect(h1, "fixed")["NetworkSettings"]["MacAddress"]
    netagent(h1, "stop", "-t", "0", "fixed")
    words = refusal(lab.host("h2"), "run", "-d", *NETWORK, "--ip", "192.168.0.2", "--", "sleep", "1", status=125)
    assert "Address already in use: 192.168.0.2" in words
    netagent(h1, "start", "fixed")
    assert _address(lab, "fixed") == "192.168.0.2"
    assert inspect(h1, "fixed")["NetworkSettings"]["MacAddress"] == mac
    eventually(lambda: pings(lab.host("h3"), "c3", "192.168.0.2"))
    netagent(h1, "restart", "-t", "0", "fixed")
    assert _address(lab, "fixed") == "192.168.0.2"


def test_a_network_goes_when_its_last_container_does_and_leaves_nothing(lab: Lab) -> None:
    before = [dump(host) for host in lab.hosts]
    create = ("network", "create", "--driver", "vxlan", "--subnet", "10.77.0.0/16", "brief")
    netagent(lab.host("h2"), *create)
    eventually(lambda: "brief" in netagent(lab.host("h3"), "network", "ls").stdout)
    for name in ("h2", "h3"):
        run(lab.host(name), "brief", "--network", "brief", "-p", "4100:80")
    known = ("network", "inspect", "--format", "{{len .Containers}}", "brief")
    eventually(lambda: netagent(lab.host("h1"), *known).stdout == "2\n")
    words = refusal(lab.host("h1"), "network", "rm", "brief")
    assert words.startswith('error while removing network: network brief has active endpoints (name:"brief"')
    for name in ("h2", "h3"):
        netagent(lab.host(name), "rm", "-f", "brief")
    eventually(lambda: netagent(lab.host("h1"), "network", "rm", "brief", check=False).returncode == 0)
    eventually(lambda: all(same(host, state) for host, state in zip(lab.hosts, before, strict=True)))
    stored = ("etcdctl", "--endpoints", lab.etcd[0].url, "get", "--prefix", "/netagent/")
    eventually(lambda: "10.77" not in lab.etcd[0].run(*stored).stdout)


def test_two_hosts_that_create_overlapping_networks_at_once_do_not_both_succeed(lab: Lab) -> None:
    for number in range(5):
        started = [
            host.popen(
                *("netagent", "network", "create", "--driver", "vxlan"),
                *("--subnet", f"10.{80 + index}.0.0/{15 - index % 2}" if index else "10.80.0.0/12"),
                f"race{number}-{index}",
                stdout=-1,
                stderr=-1,
            )
            for index, host in enumerate(lab.hosts)
        ]
        results = [process.communicate(timeout=60) for process in started]
        statuses = sorted(process.returncode for process in started)
        assert statuses.count(0) >= 1, results
        names = eventually(partial(_made, lab.host("h1"), f"race{number}-", statuses.count(0)))
        assert f"race{number}-0" not in names or len(names) == 1
        for name in names:
            netagent(lab.host("h1"), "network", "rm", name)


def _made(host: Host, prefix: str, count: int) -> list[str]:
    """Return the names of networks that begin so, as soon as the host knows of that many."""
    names = [name for name in netagent(host, "network", "ls").stdout.split() if name.startswith(prefix)]
    return names if len(names) == count else []
