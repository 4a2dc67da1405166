"""A tunnel that tests itself: what is lost on the way to a peer is told, and so is its end."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, pings, run
from tests.support.lab import MakeLab, eventually

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


def problems(host: Host) -> set[str]:
    """Return what ``host`` says about the ways to all others."""
    shown = [json.loads(line) for line in netagent(host, "host", "ls", "--format", "json").stdout.splitlines()]
    return {problem for entry in shown for problem in entry["Problems"]}


def lose(host: Host, which: str) -> None:
    """Let ``host`` lose the tunnel packets that come in and match ``which``."""
    chain = "add chain netdev t in { type filter hook ingress device eth0 priority 0; }"
    host.run("nft", f"add table netdev t; {chain}; add rule netdev t in udp dport 4789 {which} drop")


def test_large_packets_lost_on_the_way_are_told_and_so_is_their_return(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 1400")
    run(h2, "two", "--network", "net")
    eventually(lambda: pings(h1, "one", address(h2, "two")))
    eventually(lambda: problems(h1) == {"net: loses packets of 1450 bytes"}, within=30)
    assert "loses packets of 1450 bytes" in netagent(h1, "host", "ls").stdout
    h2.run("nft", "delete table netdev t")
    eventually(lambda: not problems(h1), within=45)
    assert next(line.split("result=")[1].rstrip(")") for line in path_events(h1)) == "loses packets of 1450 bytes"
    assert path_events(h1)[-1].endswith("result=answers)")


def test_a_peer_that_the_tunnel_does_not_reach_is_told(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 0")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.66.0.0/16", "other")
    eventually(lambda: "other" in netagent(h2, "network", "ls").stdout)
    for host, name in ((h1, "three"), (h2, "four")):
        run(host, name, "--network", "other")
    eventually(lambda: problems(h1) == {"other: does not answer"}, within=30)


def path_events(host: Host) -> list[str]:
    return [line for line in netagent(host, "events").stdout.splitlines() if " host path " in line]
