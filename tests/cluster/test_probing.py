"""A tunnel that tests itself: what is lost on the way to a peer is told, kept smaller, and so is its end."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, pings, run
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


LARGE = b"x" * 65536
PORT = "8000"


def route_mtus(host: Host) -> dict[str, str | None]:
    """Return how large packets may be by netagent's routes to other hosts, which are the ones with a gateway."""
    shown = [
        line for v in ("-4", "-6") for line in host.run("ip", v, "route", "show", "proto", "110").stdout.splitlines()
    ]
    words = [line.split() for line in shown if " via " in line]
    return {line[0]: line[line.index("lock") + 1] if "lock" in line else None for line in words}


def receives(server: Host, client: Host, family: int) -> bool:
    """Tell whether a container of ``client`` gets all of what one of ``server`` has for it, in large segments."""
    at = address(server, "two", family)
    at = f"[{at}]" if family == 6 else at
    got = inside(client, "one", "timeout", "5", "socat", "-u", f"TCP{family}:{at}:{PORT}", "SYSTEM:wc -c >&2")
    return str(len(LARGE)) in got.stderr


def test_large_packets_lost_on_the_way_are_told_and_kept_smaller_until_they_get_through(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 1400")
    serve = f"head -c {len(LARGE)} /dev/zero"
    run(
        h2,
        "two",
        "--network",
        "net",
        command=("socat", f"TCP6-LISTEN:{PORT},fork,reuseaddr,ipv6only=0", f"SYSTEM:{serve}"),
    )
    eventually(lambda: pings(h1, "one", address(h2, "two")))
    eventually(lambda: problems(h1) == {"net: loses packets of 1450 bytes, carries 1350"}, within=30)
    assert "loses packets of 1450 bytes, carries 1350" in netagent(h1, "host", "ls").stdout
    eventually(lambda: problems(h2) == {"net: loses packets of 1450 bytes, carries 1350"}, within=30)
    for host in lab.hosts:
        eventually(lambda host=host: "1350" in route_mtus(host).values())  # type: ignore[misc]
        assert {prefix for prefix, mtu in route_mtus(host).items() if mtu == "1350"} == {
            prefix for prefix in route_mtus(host) if "/" in prefix
        }, "a peer's own address is asked with packets of any size"
    assert receives(h2, h1, 4)
    assert receives(h2, h1, 6)
    assert inside(h1, "one", "ip", "-o", "link", "show", "eth0").stdout.find("mtu 1450") > 0
    h2.run("nft", "delete table netdev t")
    eventually(lambda: not problems(h1), within=45)
    eventually(lambda: not any(route_mtus(h1).values()))
    assert all("/" in prefix for prefix in route_mtus(h1)), "nothing is asked apart any more"
    results = [line.split("result=")[1].rstrip(")") for line in path_events(h1)]
    assert results[0] == "loses packets of 1450 bytes, carries 1350"
    assert results[-1] == "answers"


def test_a_peer_that_the_tunnel_does_not_reach_any_more_is_told(lab: Lab) -> None:
    h1, h2 = lab.hosts
    lose(h2, "ip length > 0")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.66.0.0/16", "other")
    eventually(lambda: "other" in netagent(h2, "network", "ls").stdout)
    for host, name in ((h1, "three"), (h2, "four")):
        run(host, name, "--network", "other")
    # It answered through the first network before: what was in order is asked again beside what is new.
    eventually(lambda: problems(h1) == {"other: does not answer", "net: does not answer"}, within=30)


def path_events(host: Host) -> list[str]:
    return [line for line in netagent(host, "events").stdout.splitlines() if " host path " in line]
