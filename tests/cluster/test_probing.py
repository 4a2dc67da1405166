"""A tunnel that tests itself: what goes wrong on the way to a peer is told and answered, and so is its end."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, pings, run, serve_name
from tests.support.lab import MakeLab, eventually
from tests.support.paths import (
    SPOILED,
    SWITCHED_OFF,
    path_results,
    problems,
    receives,
    route_mtus,
    serve_bytes,
)
from tests.support.spoiling import spoiling

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(
        h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "--subnet", "fd00:77::/64", "net"
    )
    eventually(lambda: "net" in netagent(h2, "network", "ls").stdout)
    run(h1, "one", "--network", "net")
    return lab


def lose(host: Host, which: str) -> None:
    """Let ``host`` lose the tunnel packets that come in and match ``which``."""
    chain = "add chain netdev t in { type filter hook ingress device eth0 priority 0; }"
    host.run("nft", f"add table netdev t; {chain}; add rule netdev t in udp dport 4789 {which} drop")


BYTES = 65536


def test_large_packets_lost_on_the_way_are_told_and_kept_smaller_until_they_get_through(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 1400")
    serve_bytes(h2, "two", BYTES, "--network", "net")
    eventually(lambda: pings(h1, "one", address(h2, "two")))
    eventually(lambda: problems(h1) == {"net: loses packets of 1450 bytes, carries 1350"}, within=60)
    assert "loses packets of 1450 bytes, carries 1350" in netagent(h1, "host", "ls").stdout
    eventually(lambda: problems(h2) == {"net: loses packets of 1450 bytes, carries 1350"}, within=60)
    for host in lab.hosts:
        # A peer's own address is asked with packets of any size.
        eventually(lambda host=host: _is_all_narrow(route_mtus(host), "1350"))  # type: ignore[misc]
    eventually(lambda: receives(h1, "one", address(h2, "two"), BYTES))
    eventually(lambda: receives(h1, "one", address(h2, "two", 6), BYTES))
    assert inside(h1, "one", "ip", "-o", "link", "show", "eth0").stdout.find("mtu 1450") > 0
    h1.agent.stop()
    h1.agent.start()
    eventually(lambda: netagent(h1, "host", "ls", check=False).returncode == 0)
    assert "1350" in route_mtus(h1).values(), "what an earlier life found stands until it is tested again"
    eventually(lambda: problems(h1) == {"net: loses packets of 1450 bytes, carries 1350"}, within=60)
    h2.run("nft", "delete table netdev t")
    eventually(lambda: not problems(h1), within=90)
    # Nothing is asked apart any more.
    eventually(lambda: all("/" in prefix and not mtu for prefix, mtu in route_mtus(h1).items()))
    results = path_results(h1)
    assert results[0] == "loses packets of 1450 bytes, carries 1350"
    assert results[-1] == "answers"


def _is_all_narrow(routes: dict[str, str | None], mtu: str) -> bool:
    """Tell whether just the routes to prefixes say that packets may have ``mtu`` bytes, and whether there are any."""
    narrow = {prefix for prefix, said in routes.items() if said == mtu}
    return bool(narrow) and narrow == {prefix for prefix in routes if "/" in prefix}


UDP, TCP = 17, 6
CHECKSUM_BITS = {UDP: 8 * (50 + 6), TCP: 8 * (50 + 16)}
"""From outer UDP's header to the checksum in the inner transport header, behind VXLAN, Ethernet and IPv4."""


def spoil(host: Host, protocol: int, source: str, target: str) -> None:
    inner, checksum = f"udp dport 4789 @th,312,8 {protocol}", f"@th,{CHECKSUM_BITS[protocol]},16"
    host.run("nft", spoiling("eth0", inner, checksum, protocol=protocol, source=source, target=target))


def fetches(host: Host, name: str, target: str) -> bool:
    got = inside(host, name, "busybox", "timeout", "3", "busybox", "wget", "-qO-", f"http://{target}/hostname")
    return got.returncode == 0


def test_checksums_that_the_interface_works_out_wrong_are_left_to_it_no_more(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.77.0.0/16", "sums")
    eventually(lambda: "sums" in netagent(h2, "network", "ls").stdout)
    run(h1, "five", "--network", "sums")
    one, two = address(h1, "five"), "10.77.2.1"
    h1.run("ethtool", "-K", "eth0", "tx", "off")
    spoil(h1, TCP, one, two)
    serve_name(h2, "six", "--network", "sums")
    assert address(h2, "six") == two
    eventually(lambda: pings(h1, "five", two))
    off = f"sums: {SWITCHED_OFF}"
    assert not fetches(h1, "five", two)
    # The way was in order as far as the agent could see. Any change has some of these asked again.
    spoil(h1, UDP, one.rpartition(".")[0] + ".0", "10.77.2.0")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.78.0.0/16", "wake")
    eventually(lambda: problems(h1) == {off}, within=60)
    eventually(lambda: fetches(h1, "five", two))
    assert "checksum offload is off" in netagent(h1, "host", "ls").stdout
    eventually(lambda: problems(h2) == set())
    assert path_results(h1, "sums") == [SPOILED, "answers"]
    h1.run("nft", "delete table netdev sums")


def test_a_peer_that_the_tunnel_does_not_reach_any_more_is_told(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 0")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.66.0.0/16", "other")
    eventually(lambda: "other" in netagent(h2, "network", "ls").stdout)
    for host, name in ((h1, "three"), (h2, "four")):
        run(host, name, "--network", "other")
    # It answered through the first network before: what was in order is asked again beside what is new.
    lost = {f"{network}: does not answer" for network in ("other", "net", "sums")}
    eventually(lambda: problems(h1) >= lost, within=60)
