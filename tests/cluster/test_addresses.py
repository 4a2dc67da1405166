"""Addresses beyond the simple case: full blocks, addresses that change hands, many ports, namespaces without a path."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, dump, inside, inspect, netagent, pings, refusal, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    create = ("network", "create", "--driver", "vxlan", "--subnet")
    netagent(h1, *create, "10.77.0.0/24", "small")
    netagent(h1, *create, "192.168.0.0/16", "staticnet")
    netagent(h1, *create, "10.78.0.0/16", "--subnet", "fd78::/64", "both")
    eventually(lambda: {"small", "staticnet", "both"} <= set(netagent(h2, "network", "ls").stdout.split()))
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


def test_a_link_local_address_is_there_beside_the_others_and_goes_with_its_container(lab: Lab) -> None:
    (h1, _) = lab.hosts
    run(h1, "witness", "--network", "both", "--link-local-ip", "169.254.8.9")
    run(h1, "beside", "--network", "staticnet")
    before = dump(h1)
    run(h1, "local", "--network", "name=both,link-local-ip=169.254.8.8,link-local-ip=fe80::8")
    netagent(h1, "restart", "-t", "0", "local")
    shown = inspect(h1, "local")["NetworkSettings"]["Networks"]["both"]["IPAMConfig"]
    assert shown == {"LinkLocalIPs": ["169.254.8.8", "fe80::8"]}
    assert pings(h1, "witness", "169.254.8.8")
    assert pings(h1, "witness", "fe80::8%eth0")
    assert pings(h1, "witness", address(h1, "local"))
    # Theirs, and not the bridge's: with proxy ARP it answers for what the host routes elsewhere.
    neighbours = inside(h1, "witness", "ip", "neigh", "show", "169.254.8.8").stdout
    assert inspect(h1, "local")["NetworkSettings"]["MacAddress"] in neighbours
    assert not pings(h1, "beside", "169.254.8.8")
    for options, said in (
        (("--network", "both", "--link-local-ip", "fe80::8"), "Address already in use: fe80::8 of container local ("),
        (("--network", "staticnet", "--link-local-ip", "169.254.8.8"), "Address already in use: 169.254.8.8 of con"),
        (("--network", "both", "--link-local-ip", "fe80::1"), "Address already in use: fe80::1 is the gateway of "),
        (("--network", "staticnet", "--link-local-ip", "fe80::9"), "no configured subnet contains IP address fe80::9"),
        (("--network", "both", "--link-local-ip", "10.78.0.9"), "invalid link-local IP address: 10.78.0.9 ("),
        (("--network", "host", "--link-local-ip", "169.254.8.7"), "user specified IP address is supported on user"),
    ):
        assert refusal(h1, "run", "-d", *options, "--", "true", status=125).startswith(said)
    netagent(h1, "rm", "-f", "local")
    eventually(lambda: same(h1, before))
    netagent(h1, "network", "connect", "--link-local-ip", "169.254.8.8", "both", "beside")
    eventually(lambda: pings(h1, "witness", "169.254.8.8"), within=TOLD_WITHIN_S)
    netagent(h1, "rm", "-f", "witness", "beside")


TOLD_WITHIN_S = 3.0
"""Neighbours are told while the command is answered. By themselves they ask again after some eight seconds."""
FIXED = ("10.78.0.60", "fd78::60")


def _run_fixed(host: Host, name: str) -> None:
    run(host, name, "--network", "both", "--ip", FIXED[0], "--ip", FIXED[1])


def test_neighbours_and_the_host_reach_the_next_owner_of_an_address_at_once(lab: Lab) -> None:
    (h1, _) = lab.hosts
    run(h1, "witness", "--network", "both")
    _run_fixed(h1, "former")
    for target in FIXED:
        assert pings(h1, "witness", target)
        assert h1.run("ping", "-n", "-c", "1", "-W", "2", target, check=False).returncode == 0
    netagent(h1, "rm", "-f", "former")
    _run_fixed(h1, "latter")
    for target in FIXED:
        ping = ("ping", "-n", "-c", "1", "-W", "1", target)
        eventually(lambda ping=ping: inside(h1, "witness", *ping).returncode == 0, within=TOLD_WITHIN_S)
        eventually(lambda ping=ping: h1.run(*ping, check=False).returncode == 0, within=TOLD_WITHIN_S)
    netagent(h1, "rm", "-f", "witness", "latter")


def test_neighbours_on_all_hosts_follow_an_address_that_moves_to_another_host_and_back(lab: Lab) -> None:
    for host in lab.hosts:
        run(host, "witness", "--network", "both")
    _move_fixed(lab, *lab.hosts)
    _move_fixed(lab, *lab.hosts[::-1])
    for host in lab.hosts:
        netagent(host, "rm", "-f", "witness")


def _move_fixed(lab: Lab, before: Host, after: Host) -> None:
    _run_fixed(before, "former")
    eventually(lambda: all(pings(host, "witness", target) for host in lab.hosts for target in FIXED))
    netagent(before, "rm", "-f", "former")
    eventually(lambda: _runs_fixed(after, "latter"))
    eventually(lambda: all(_reaches_soon(host, target) for host in lab.hosts for target in FIXED), within=20)
    netagent(after, "rm", "-f", "latter")


def _reaches_soon(host: Host, target: str) -> bool:
    return inside(host, "witness", "ping", "-n", "-c", "1", "-W", "0.2", target).returncode == 0


def _runs_fixed(host: Host, name: str) -> bool:
    """Tell whether the container could be started; the other host gives its claim back a moment after the removal."""
    options = ("--network", "both", "--ip", FIXED[0], "--ip", FIXED[1])
    result = netagent(host, "run", "-d", "--name", name, *options, "--", "sleep", "1000", check=False)
    return result.returncode == 0


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
