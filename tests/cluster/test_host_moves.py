"""A host whose place on the underlay changes, and what it routes itself: all follow, nobody is restarted."""

import itertools
import json
import subprocess
import time

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.underlay import plug_in, unplug
from tests.support.hosts import address, inside, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

NEW_ADDRESS = "198.18.0.77"
OTHER_ADDRESS = "198.18.0.88"
NOBODY = "198.18.0.250"
"""A router that nobody asks for anything."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, agents=False)
    h1, h2 = lab.hosts
    h1.agent.launch()
    # As on most machines: the address is the one that the interface has.
    h2.agent.launch(options=["--host-ip", ""])
    for host in lab.hosts:
        host.agent.wait_ready()
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    run(h1, "web", "--network", "staticnet")
    run(h2, "remote", "--network", "staticnet")
    eventually(lambda: pings(h1, "web", address(h2, "remote")))
    return lab


def _h2(of: Host) -> dict[str, object]:
    lines = netagent(of, "host", "ls", "--format", "json").stdout.splitlines()
    return next(entry for entry in map(json.loads, lines) if entry["Name"] == "h2")


def _mtu(host: Host, container: str) -> str:
    return inside(host, container, "cat", "/sys/class/net/eth0/mtu").stdout.strip()


def test_a_changed_mtu_of_the_underlay_is_followed_by_all(lab: Lab) -> None:
    h1, h2 = lab.hosts
    assert (_mtu(h1, "web"), _mtu(h2, "remote")) == ("1450", "1450")
    h2.run("ip", "link", "set", "eth0", "mtu", "1400")
    eventually(lambda: (_mtu(h1, "web"), _mtu(h2, "remote")) == ("1350", "1350"))
    eventually(lambda: _h2(h1)["MTU"] == 1400)
    eventually(lambda: pings(h1, "web", address(h2, "remote"), options=("-M", "do", "-s", str(1350 - 28))))
    h2.run("ip", "link", "set", "eth0", "mtu", "1500")
    eventually(lambda: (_mtu(h1, "web"), _mtu(h2, "remote")) == ("1450", "1450"))


def test_a_changed_underlay_address_is_followed_by_all(lab: Lab) -> None:
    h1, h2 = lab.hosts
    h2.run("sh", "-ec", f"ip address del {h2.ip}/24 dev eth0; ip address add {NEW_ADDRESS}/24 dev eth0")
    eventually(lambda: NEW_ADDRESS in _h2(h1)["Addresses"] and str(h2.ip) not in _h2(h1)["Addresses"])  # type: ignore[operator]
    assert eventually(lambda: pings(h1, "web", address(h2, "remote")))
    assert pings(h2, "remote", address(h1, "web"))
    eventually(lambda: _h2(h1)["Status"] == "Ready")


def test_an_uplink_that_is_gone_for_a_while_comes_back_to_what_it_was(lab: Lab) -> None:
    h1, h2 = lab.hosts
    # Another program's bridge for containers has an address as well, and for now the only one.
    h2.run("sh", "-ec", "ip link add docker0 type bridge; ip address add 172.17.0.1/16 dev docker0")
    unplug(lab.layout, h2.seat)
    try:
        # Time itself is what is tested: two looks and more.
        time.sleep(2.5)
        assert (_h2(h2)["Interface"], _h2(h2)["Addresses"]) == ("eth0", _h2(h1)["Addresses"])
    finally:
        plug_in(lab.layout, h2.seat)
        h2.run("ip", "link", "delete", "docker0")
    assert eventually(lambda: pings(h1, "web", address(h2, "remote")))
    eventually(lambda: (str(h2.ip) in _h2(h1)["Addresses"], _h2(h1)["Status"]) == (True, "Ready"))  # type: ignore[operator]


def test_a_default_route_by_another_interface_is_followed_once_it_has_lasted(lab: Lab) -> None:
    h1, h2 = lab.hosts
    (etcd,) = lab.etcd
    key = f"/netagent/v1/hosts/{_h2(h1)['ID']}"
    watch = etcd.popen("etcdctl", "--endpoints", etcd.url, "watch", key, stdout=subprocess.PIPE)
    route = f"""
        ip link add eth1 link eth0 type macvlan mode bridge
        ip address add {OTHER_ADDRESS}/24 dev eth1
        ip link set eth1 up
        ip route add default via {NOBODY} dev eth1
    """
    try:
        h2.run("sh", "-ec", f"{route}\nip link delete eth1\n{route}")
        eventually(lambda: OTHER_ADDRESS in _h2(h1)["Addresses"])  # type: ignore[operator]
        assert eventually(lambda: pings(h1, "web", address(h2, "remote")))
        assert pings(h2, "remote", address(h1, "web"))
        h2.run("ip", "link", "delete", "eth1")
        eventually(lambda: str(h2.ip) in _h2(h1)["Addresses"])  # type: ignore[operator]
        assert eventually(lambda: pings(h1, "web", address(h2, "remote")))
    finally:
        watch.terminate()
        said, _ = watch.communicate()
    records = [json.loads(line) for line in said.splitlines() if line.startswith("{")]
    told = [interface for interface, _ in itertools.groupby(record["interface"] for record in records)]
    assert told in (["eth1", "eth0"], ["eth0", "eth1", "eth0"]), "each move is written once, and none that did not last"


def test_a_subnet_that_another_host_routes_is_refused_and_taken_by_force(lab: Lab) -> None:
    h1, h2 = lab.hosts
    h2.run("ip", "route", "add", "10.77.0.0/16", "dev", "lo")
    create = ("network", "create", "--driver", "vxlan", "--subnet", "10.77.1.0/24")
    name = iter(f"n{number}" for number in range(1000))

    def said() -> str:
        result = netagent(h1, *create, next(name), check=False)
        if result.returncode == 0:
            netagent(h1, "network", "rm", result.stdout.strip())
        return result.stderr

    eventually(lambda: "overlaps with 10.77.0.0/16, which host h2 routes" in said())
    assert "take it with --force" in refusal(h1, *create, "taken")
    netagent(h1, *create, "--force", "taken")
    eventually(lambda: "taken" in netagent(h2, "network", "ls").stdout)
    run(h1, "one", "--network", "taken")
    run(h2, "two", "--network", "taken")
    assert eventually(lambda: pings(h1, "one", address(h2, "two")))
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.99.0.0/24", "wider")
    update = ("network", "update", "--subnet", "10.77.2.0/24", "wider")
    assert "overlaps with 10.77.0.0/16, which host h2 routes" in refusal(h1, *update)
    netagent(h1, *update, "--force")
    eventually(lambda: "10.77.2.0/24" in netagent(h2, "network", "ls").stdout)
    run(h2, "three", "--network", "wider", "--ip", "10.77.2.9")
    run(h1, "four", "--network", "wider")
    assert eventually(lambda: pings(h1, "four", "10.77.2.9"))


def test_an_automatic_subnet_is_none_that_another_host_routes(lab: Lab) -> None:
    h1, h2 = lab.hosts
    h2.run("ip", "route", "add", "10.128.0.0/10", "dev", "lo")

    def chosen() -> str:
        netagent(h1, "network", "create", "--driver", "vxlan", "auto")
        (details,) = json.loads(netagent(h1, "network", "inspect", "auto").stdout)
        netagent(h1, "network", "rm", "auto")
        return str(details["IPAM"]["Config"][0]["Subnet"])

    eventually(lambda: chosen().startswith("10.192."))
