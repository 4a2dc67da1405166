"""A network's driver changed under traffic: nothing is lost, and no host turns to a way that does not answer."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, inspect, lost, netagent, pinging, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

SPARED_BY_OVS = 50
"""A second, in which its userspace datapath asks for a peer or reads the host's devices and routes anew."""

_BLOCK = ("table inet cut { chain input { type filter hook input priority -10; udp dport 4789 drop; }; }",)


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Three hosts with a container each in the network ``net``, between them nothing but kernels."""
    return _inhabited(make_lab(hosts=3))


@pytest.fixture(scope="module")
def ovs_lab(make_lab: MakeLab) -> Lab:
    """The same by Open vSwitch's userspace datapath, which has GRE here."""
    return _inhabited(make_lab(hosts=3, underlay="ovs"))


def _inhabited(lab: Lab) -> Lab:
    h1 = lab.hosts[0]
    subnets = ("--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64")
    netagent(h1, "network", "create", "--driver", "vxlan", *subnets, "net")
    netagent(h1, "network", "create", "local")
    eventually(
        lambda: all(
            "net" in netagent(host, "network", "ls", "-q", "-f", "name=net").stdout or True for host in lab.hosts
        )
    )
    for number, host in enumerate(lab.hosts, 1):
        eventually(lambda host=host: netagent(host, "network", "inspect", "net", check=False).returncode == 0)
        run(host, f"c{number}", "--network", "net")
    run(lab.hosts[1], "fixed", "--network", "net", "--ip", "192.168.0.9")
    for target in (address(lab.hosts[1], "c2"), address(lab.hosts[2], "c3"), "192.168.0.9"):
        eventually(lambda target=target: pings(h1, "c1", target))
    return lab


def _way_to(host: Host, prefix: str) -> str:
    return host.run("ip", "route", "show", prefix).stdout


def _block(host: Host, name: str) -> str:
    return f"{address(host, name).rpartition('.')[0]}.0/24"


def _mtu(host: Host) -> int:
    return int(inside(host, f"c{host.name[1:]}", "cat", "/sys/class/net/eth0/mtu").stdout)


def _is_done(host: Host) -> bool:
    """Tell whether the network has one way again: nothing in the store is left of the move."""
    found = host.run("etcdctl", "--endpoints=http://198.18.0.201:2379", "get", "/netagent/v1/networks/net").stdout
    return '"before":null' in found.replace(" ", "")


@pytest.mark.parametrize(
    ("arguments", "device", "mtu"),
    [
        (("--driver", "route"), "eth0", 1500),
        (("--driver", "vxlan"), "nav", 1450),
        (("--opt", "direct-routing=true"), "eth0", 1450),
        (("--opt", "direct-routing=false"), "nav", 1450),
    ],
    ids=["route", "vxlan", "direct-routing", "no-direct-routing"],
)
def test_a_network_is_moved_and_no_packet_is_lost(lab: Lab, arguments: tuple[str, ...], device: str, mtu: int) -> None:
    missing = _move(lab, arguments, device)
    assert not any(missing), missing
    left = {"nav"} - {device} if arguments[0] == "--driver" else set()
    for host in lab.hosts:
        eventually(lambda host=host: not any(old in host.run("ip", "-br", "link").stdout for old in left))
        eventually(lambda host=host: _mtu(host) == mtu)


@pytest.mark.parametrize(
    ("driver", "device", "old", "mtu"), [("gre", "nao", "nav", 1458), ("vxlan", "nav", "nao", 1450)]
)
def test_a_network_is_moved_to_gre_and_back(ovs_lab: Lab, driver: str, device: str, old: str, mtu: int) -> None:
    missing = _move(ovs_lab, ("--driver", driver), device)
    assert all(len(numbers) <= SPARED_BY_OVS for numbers in missing), missing
    for host in ovs_lab.hosts:
        eventually(lambda host=host: old not in host.run("ip", "-br", "link").stdout)
        eventually(lambda host=host: _mtu(host) == mtu)


def _move(lab: Lab, arguments: tuple[str, ...], device: str) -> list[set[int]]:
    """Change the network while containers ping each other; return which pings of each were not answered."""
    h1, h2, h3 = lab.hosts
    with (
        pinging(h1, "c1", address(h2, "c2")) as there,
        pinging(h3, "c3", address(h1, "c1", 6)) as back,
        pinging(h3, "c3", "192.168.0.9") as fixed,
    ):
        netagent(h1, "network", "update", *arguments, "net")
        eventually(lambda: f" dev {device}" in _way_to(h1, _block(h2, "c2")))
        eventually(lambda: f" dev {device}" in _way_to(h3, _block(h1, "c1")))
        eventually(lambda: _is_done(h1))
    eventually(lambda: f" dev {device}" in _way_to(h3, "192.168.0.9"))
    return [lost(answered) for answered in (there, back, fixed)]


def test_a_host_stays_with_the_old_way_until_the_new_one_answers(lab: Lab) -> None:
    h1, h2, h3 = lab.hosts
    netagent(h1, "network", "update", "--driver", "route", "net")
    eventually(lambda: _is_done(h1))
    h2.run("nft", *_BLOCK)
    try:
        with pinging(h1, "c1", address(h2, "c2")) as answered, pinging(h1, "c1", address(h3, "c3")) as turned:
            for is_called_back in (True, False):
                netagent(h1, "network", "update", "--driver", "vxlan", "net")
                eventually(lambda: " dev nav" in _way_to(h1, _block(h3, "c3")))
                assert " dev eth0" in _way_to(h1, _block(h2, "c2"))
                assert not _is_done(h1)
                words = refusal(h1, "network", "update", "--driver", "gre", "net")
                assert words.startswith("network net is still being moved from the driver route to vxlan")
                if is_called_back:
                    assert words.endswith("; to turn back: netagent network update --driver route net)")
                    netagent(h1, "network", "update", "--driver", "route", "net")
                    eventually(lambda: _is_done(h1))
                    assert " dev eth0" in _way_to(h1, _block(h3, "c3"))
                    eventually(lambda: "nav" not in h1.run("ip", "-br", "link").stdout)
    finally:
        h2.run("nft", "delete", "table", "inet", "cut")
    assert not lost(answered)
    assert not lost(turned)
    eventually(lambda: " dev nav" in _way_to(h1, _block(h2, "c2")), within=40)
    eventually(lambda: _is_done(h1), within=40)


def test_a_local_network_stays_local_and_an_unknown_driver_is_refused(lab: Lab) -> None:
    h1 = lab.hosts[0]
    assert "cannot get the driver vxlan" in refusal(h1, "network", "update", "--driver", "vxlan", "local")
    assert 'plugin "overlay" not found' in refusal(h1, "network", "update", "--driver", "overlay", "net")


def test_no_pass_fails(lab: Lab, ovs_lab: Lab) -> None:
    for host in (*lab.hosts, *ovs_lab.hosts):
        eventually(lambda host=host: "Kernel: as it should be" in netagent(host, "info").stdout)
    assert inspect(lab.hosts[0], "c1")
