"""A host that dies, is removed, and comes back with its containers still running: nothing is given twice.

One story, told once: ``lab`` is how it stands when h3, whose agent was killed, has been removed and its claims have
new owners; ``returned`` is when its agent runs again.
"""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, inspect, netagent, pings, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

MARKED_WITHIN_S = 45.0
"""A lease of 15 s, and what a busy machine needs to let it run out, hear of it and say so."""


def _host(of: Host, name: str) -> dict[str, object]:
    lines = netagent(of, "host", "ls", "--format", "json").stdout.splitlines()
    return next(entry for entry in map(json.loads, lines) if entry["Name"] == name)


def _networks(host: Host) -> list[str]:
    return netagent(host, "network", "ls", "--format", "{{.Name}}").stdout.split()


def _keys(lab: Lab, under: str) -> list[str]:
    etcd = lab.etcd[0]
    command = ("etcdctl", "--endpoints", etcd.url, "get", "--prefix", f"/netagent/v1/{under}", "--keys-only")
    return etcd.run(*command).stdout.split()


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=3)
    h1, _, h3 = lab.hosts
    subnets = {"kept": "10.1.0.0/16", "small": "10.2.0.0/24", "doomed": "10.3.0.0/16", "moved": "10.4.0.0/16"}
    for name, subnet in subnets.items():
        netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", subnet, name)
    eventually(lambda: set(_networks(h3)) >= subnets.keys())
    run(h1, "web", "--network", "kept")
    run(h3, "stays", "--network", "kept")
    run(h3, "loses", "--network", "small")
    run(h3, "fixed", "--network", "kept", "--ip", "10.1.0.9")
    run(h3, "leaves", "--network", "doomed")
    run(h3, "placed", "--network", "moved", "--ip", "10.4.0.9")
    eventually(lambda: all(pings(h1, "web", target) for target in (address(h3, "stays"), "10.1.0.9")))
    eventually(lambda: len(_keys(lab, "endpoints/")) == 6)
    return lab


def test_a_live_host_is_not_removed(lab: Lab) -> None:
    h1, _, h3 = lab.hosts
    before = _keys(lab, "")
    assert refusal(h1, "host", "rm", "h3").startswith("host h3 is live (stop its agent")
    assert refusal(h3, "host", "rm", "h3").startswith("host h3 is this one")
    assert refusal(h3, "host", "rm", "h9") == "host h9 not found (netagent host ls shows those there are)"
    assert _keys(lab, "") == before


def test_a_dead_host_is_marked_and_its_routes_stay_until_it_is_removed(lab: Lab) -> None:
    h1, _, h3 = lab.hosts
    h3.agent.kill()
    eventually(lambda: _host(h1, "h3")["Status"] == "Away", within=MARKED_WITHIN_S)
    assert pings(h1, "web", "10.1.0.9")
    (details,) = json.loads(netagent(h1, "host", "inspect", "h3").stdout)
    assert {block["Network"] for block in details["Blocks"]} == {"kept", "small", "doomed", "moved"}
    assert [entry["Address"] for entry in details["FixedAddresses"]] == ["10.1.0.9", "10.4.0.9"]
    assert {entry["Name"] for entry in details["Containers"]} == {"stays", "loses", "fixed", "leaves", "placed"}


def test_a_network_is_taken_from_a_host_that_does_not_answer_by_name(lab: Lab) -> None:
    h1, *_ = lab.hosts
    assert "; those of hosts that are away: netagent network rm -f doomed)" in refusal(h1, "network", "rm", "doomed")
    result = netagent(h1, "network", "rm", "-f", "doomed")
    assert "doomed: taken from h3, which did not answer" in result.stderr
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.3.0.0/16", "again")
    run(h1, "newcomer", "--network", "again")


def test_what_a_removed_host_held_is_free_for_others(lab: Lab) -> None:
    h1, h2, h3 = lab.hosts
    uuid = h3.path("/var/lib/netagent/host-id").read_text().strip()
    lost = address_of_dead(h1)
    (details,) = json.loads(netagent(h1, "host", "inspect", "h3").stdout)
    taken = next(block["Prefix"] for block in details["Blocks"] if block["Network"] == "moved")
    netagent(h1, "host", "rm", "h3")
    assert refusal(h1, "host", "inspect", "h3", output="[]\n").startswith("host h3 not found")
    left = [key for key in _keys(lab, "") if uuid in key]
    assert left == [f"/netagent/v1/removed/{uuid}"]
    eventually(lambda: "10.1.0.9" not in h1.run("ip", "route").stdout)
    eventually(lambda: json.loads(netagent(h2, "network", "inspect", "small").stdout)[0]["Blocks"] == [])
    run(h2, "heir", "--network", "small")
    assert address(h2, "heir") == lost
    run(h1, "mover", "--network", "kept", "--ip", "10.1.0.9")
    netagent(h1, "host", "reserve", "h1", "moved", "--block", taken)
    (details,) = json.loads(netagent(h2, "host", "inspect", "h2").stdout)
    assert [block["Epoch"] for block in details["Blocks"]] == [2]
    (details,) = json.loads(netagent(h1, "host", "inspect", "h1").stdout)
    assert [entry["Epoch"] for entry in details["FixedAddresses"]] == [2]


def address_of_dead(host: Host) -> str:
    """Return the address that ``loses`` has on h3, as its record in the store says."""
    (details,) = json.loads(netagent(host, "host", "inspect", "h3").stdout)
    (found,) = [entry for entry in details["Containers"] if entry["Name"] == "loses"]
    return str(found["Addresses"][0])


def test_a_removed_host_that_comes_back_serves_only_what_is_still_its_own(lab: Lab) -> None:
    h1, _, h3 = lab.hosts
    h3.agent.start()
    eventually(lambda: _host(h3, "h3")["Conflicts"] == ["fixed", "loses"])
    for words in ("h3 was removed from the cluster", "container loses is cut off: host h2 holds its address"):
        eventually(lambda words=words: words in h3.agent.log.read_text())
    for name in ("fixed", "loses"):
        eventually(lambda name=name: "eth0" not in inside(h3, name, "ip", "-o", "link", check=True).stdout)
    assert eventually(lambda: pings(h1, "web", address(h3, "stays")))
    assert eventually(lambda: pings(h3, "stays", "10.1.0.9"))
    eventually(lambda: _host(h1, "h3")["Status"] == "Ready")
    eventually(lambda: not _keys(lab, "removed/"))
    # Its address is still its own, the block that the way there led by is not: it has another.
    run(h1, "seeker", "--network", "moved")
    assert eventually(lambda: pings(h1, "seeker", "10.4.0.9"))


def test_a_container_that_was_cut_off_gets_another_address_by_a_restart(lab: Lab) -> None:
    h1, h2, h3 = lab.hosts
    netagent(h3, "restart", "loses")
    assert address(h3, "loses") != address(h2, "heir")
    assert eventually(lambda: pings(h3, "loses", address(h2, "heir")))
    netagent(h1, "rm", "-f", "mover")
    eventually(lambda: "eth0" in inside(h3, "fixed", "ip", "-o", "link").stdout)
    eventually(lambda: _host(h3, "h3")["Conflicts"] == [])


def test_a_host_that_comes_back_leaves_a_network_that_was_removed_meanwhile(lab: Lab) -> None:
    h1, _, h3 = lab.hosts
    eventually(lambda: inspect(h3, "leaves")["NetworkSettings"]["Networks"] == {})
    eventually(lambda: "doomed" not in _networks(h3))
    eventually(lambda: not _keys(lab, "gone/"))
    run(h3, "joins", "--network", "again")
    assert eventually(lambda: pings(h3, "joins", address(h1, "newcomer")))
