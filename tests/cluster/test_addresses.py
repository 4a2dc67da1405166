"""Addresses beyond the simple case: full blocks, addresses that change hands, many ports, namespaces without a path."""

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import address, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    create = ("network", "create", "--driver", "vxlan", "--subnet")
    netagent(h1, *create, "10.77.0.0/24", "small")
    netagent(h1, *create, "192.168.0.0/16", "staticnet")
    eventually(lambda: {"small", "staticnet"} <= set(netagent(h2, "network", "ls").stdout.split()))
    return lab


def test_a_host_whose_block_is_full_takes_another_and_both_are_reached(lab: Lab) -> None:
    h1, h2 = lab.hosts
    run(h2, "far", "--network", "small")
    found = []
    for number in range(16):
        path = f"/run/netns/grow{number}"
        h1.run("ip", "netns", "add", f"grow{number}")
        netagent(h1, "attach", "--netns", path, "--name", f"grow{number}", "--network", "small")
        found.append(address(h1, f"grow{number}"))
    assert len(set(found)) == 16
    eventually(lambda: pings(h2, "far", found[0]) and pings(h2, "far", found[-1]))
    for number in range(16):
        netagent(h1, "detach", f"grow{number}")
        h1.run("ip", "netns", "delete", f"grow{number}")


def test_a_fixed_address_is_free_for_the_next_container_at_once(lab: Lab) -> None:
    (h1, _) = lab.hosts
    for name in ("first", "second", "third"):
        run(h1, name, "--network", "staticnet", "--ip", "192.168.0.50")
        assert address(h1, name) == "192.168.0.50"
        netagent(h1, "rm", "-f", name)


def test_thousands_of_ports_survive_a_restart_of_the_agent(lab: Lab) -> None:
    (h1, _) = lab.hosts
    run(h1, "many", "--network", "staticnet", "-p", "20000-23999:20000-23999/udp")
    h1.agent.restart()
    assert len(netagent(h1, "port", "many").stdout.splitlines()) == 4000
    netagent(h1, "rm", "-f", "many")


def test_a_namespace_that_lost_its_path_keeps_its_connection(lab: Lab) -> None:
    (h1, _) = lab.hosts
    holder = h1.popen("unshare", "--net", "sleep", "1000")
    eventually(lambda: _netns_of(h1, holder.pid) != _netns_of(h1, "self"))
    netagent(h1, "attach", "--netns", str(holder.pid), "--name", "pathless", "--network", "staticnet")
    target = address(h1, "pathless")
    with h1.popen("nsenter", f"--net=/proc/{holder.pid}/ns/net", "sleep", "1000") as stays:
        eventually(lambda: _netns_of(h1, stays.pid) == _netns_of(h1, holder.pid))
        holder.kill()
        holder.wait()
        h1.agent.restart()
        assert h1.run("ping", "-n", "-c", "1", "-W", "2", target, check=False).returncode == 0
        stays.kill()
    netagent(h1, "detach", "pathless")


def _netns_of(host: object, pid: int | str) -> str:
    return host.run("readlink", f"/proc/{pid}/ns/net").stdout  # type: ignore[attr-defined]


def test_a_subnet_in_use_on_the_second_host_is_refused_there_and_harms_nothing(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h2, "network", "create", "--subnet", "10.88.5.0/24", "mine")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "10.88.0.0/16", "wide")
    eventually(lambda: "wide" in netagent(h2, "network", "ls").stdout)
    refused = netagent(h2, "run", "-d", "--network", "wide", "--", "sleep", "1", check=False)
    assert "overlaps with 10.88.5.0/24 of network mine" in refused.stderr
    assert "Kernel: as it should be" in netagent(h2, "info").stdout
    run(h2, "fine", "--network", "mine")
    netagent(h2, "rm", "-f", "fine")
