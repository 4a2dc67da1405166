"""Docker's containers in netagent's networks, through the real ``docker`` and one dockerd on each host."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.underlay import UNDERLAY_INTERFACE
from tests.support.docker import IMAGE, USR, Docker, dockers
from tests.support.docker_calls import call, done
from tests.support.hosts import fetches, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

SUBNET = "10.66.0.0/16"
SHORT_GRACE_S = 3
"""For what is to be collected: less than a busy dockerd may take from an address to the endpoint with it."""


def _configure(host: Host, grace_s: int) -> None:
    host.path("/etc/netagent/agent.toml").write_text(f"address_hold_down = 0\n[docker]\ngrace_s = {grace_s}\n")


def _veths(host: Host) -> list[tuple[str, str, str]]:
    """Return name, MAC and bridge of the veths of a host, without those that wait for their deletion."""
    links = json.loads(host.run("ip", "-d", "-j", "link", "show", "type", "veth").stdout)
    return [(link["ifname"], link["address"], link.get("master", "")) for link in links if link["group"] == "default"]


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, agents=False)
    for host in lab.hosts:
        _configure(host, 60)
        host.agent.start()
    return lab


@pytest.fixture(scope="module")
def daemons(lab: Lab) -> Iterator[tuple[Docker, ...]]:
    """Both daemons, with a network ``app`` of the same subnet and a container on each host: ``web`` and ``client``."""
    with dockers(*lab.hosts) as daemons:
        one, two = daemons
        for daemon in daemons:
            daemon.create_network("app", "--subnet", SUBNET)
        one.serve_name("web", "--network", "app", "-p", "4000:80")
        two.run("client", "--network", "app")
        yield daemons


def test_containers_of_different_daemons_reach_each_other(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    eventually(lambda: two.pings("client", one.address("web", "app")))
    assert one.pings("web", two.address("client", "app"))
    assert two.fetches("client", f"http://{one.address('web', 'app')}/hostname", "web")


def test_a_published_port_is_reached_from_everywhere(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    for host, name in ((two.host, one.host.ip), (one.host, one.host.ip), (one.host, "127.0.0.1")):
        assert fetches(host, f"http://{name}:4000/hostname", "web")


def test_a_fixed_address_is_had_once_in_the_cluster(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    one.run("fixed", "--network", "app", "--ip", "10.66.0.9")
    try:
        assert one.address("fixed", "app") == "10.66.0.9"
        eventually(lambda: two.pings("client", "10.66.0.9"))
        said = two.refusal("run", "--rm", "--network", "app", "--ip", "10.66.0.9", IMAGE, "true")
        assert "Address already in use: 10.66.0.9" in said
    finally:
        one("rm", "-f", "fixed")
    again = ("run", "--rm", *USR, "--network", "app", "--ip", "10.66.0.9", IMAGE, "true")
    eventually(lambda: two(*again, check=False).returncode == 0)


def test_containers_of_netagent_and_of_docker_share_a_network(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    netagent(one.host, "network", "create", "--driver", "vxlan", "--subnet", "10.67.0.0/16", "shared")
    eventually(lambda: "shared" in netagent(two.host, "network", "ls").stdout)
    two.create_network("joined", "--ipam-opt", "network=shared", "-o", "network=shared")
    try:
        run(one.host, "ours", "--network", "shared")
        two("network", "connect", "joined", "client")
        eventually(lambda: pings(one.host, "ours", two.address("client", "joined")))
    finally:
        two("network", "disconnect", "joined", "client", check=False)
        netagent(one.host, "rm", "-f", "ours", check=False)
        two("network", "rm", "joined")
    assert "shared" in netagent(two.host, "network", "ls").stdout, "Docker did not make it"


def test_names_are_known_on_all_hosts(daemons: tuple[Docker, ...]) -> None:
    """What 127.0.0.11 does not know leaves the container, and is answered at the network's gateway."""
    one, two = daemons
    eventually(lambda: two.fetches("client", "http://web/hostname", "web"))
    one("rename", "web", "shop")
    try:
        eventually(lambda: two.fetches("client", "http://shop/hostname", "web"))
    finally:
        one("rename", "shop", "web")
    eventually(lambda: "web" in netagent(one.host, "ps").stdout)


def test_a_network_stays_while_another_daemon_has_it(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    for daemon in daemons:
        daemon.create_network("both", "--subnet", "10.68.0.0/16", "-o", "network=both", "-o", "driver=route")
    one("network", "rm", "both")
    two.run_through("--network", "both")
    assert "both" in netagent(one.host, "network", "ls").stdout
    two("network", "rm", "both")
    eventually(lambda: "both" not in netagent(one.host, "network", "ls").stdout)


def test_a_network_is_there_however_close_one_daemon_removes_and_another_makes_it(daemons: tuple[Docker, ...]) -> None:
    """The last one that leaves removes it, and who comes in between has it, or makes it anew."""
    one, two = daemons
    options = ("--subnet", "10.71.0.0/16", "-o", "network=close")

    def again(daemon: Docker) -> None:
        for _ in range(8):
            daemon.create_network("close", *options)
            daemon("network", "rm", "close")
        daemon.create_network("close", *options)
        daemon.run_through("--network", "close")
        daemon("network", "rm", "close")

    with ThreadPoolExecutor(2) as both:
        list(both.map(again, (one, two)))
    eventually(lambda: "close" not in netagent(one.host, "network", "ls").stdout)


@pytest.mark.parametrize(("driver", "device"), [("vxlan", "nav"), ("route", UNDERLAY_INTERFACE)])
def test_the_option_driver_chooses_how_hosts_reach_each_other(
    daemons: tuple[Docker, ...], driver: str, device: str
) -> None:
    one, two = daemons
    for daemon in daemons:
        daemon.create_network("chosen", "--subnet", "10.72.0.0/16", "-o", f"driver={driver}")
        daemon.run("chosen", "--network", "chosen")
    try:
        assert eventually(lambda: one.pings("chosen", two.address("chosen", "chosen")))
        route = one.host.run("ip", "route", "get", two.address("chosen", "chosen")).stdout
        assert f"dev {device}" in route
        assert netagent(one.host, "network", "ls", "--format", "{{.Driver}}", "--filter", f"driver={driver}").stdout
    finally:
        for daemon in daemons:
            daemon("rm", "-f", "chosen", check=False)
            daemon("network", "rm", "chosen")


def test_an_unknown_driver_is_refused(daemons: tuple[Docker, ...]) -> None:
    options = ("-d", "netagent", "--ipam-driver", "netagent", "--subnet", "10.79.0.0/16")
    assert "driver" in daemons[0].refusal("network", "create", *options, "-o", "driver=pigeon", "bad")
    assert "10.79" not in netagent(daemons[0].host, "network", "ls").stdout


def test_a_network_with_containers_is_not_removed(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    assert "active endpoints" in two.refusal("network", "rm", "app")
    assert two.pings("client", one.address("web", "app"))


def test_ipv6_reaches_other_hosts_too(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    for daemon in daemons:
        daemon.create_network("dual", "--ipv6", "--subnet", "10.69.0.0/16", "--subnet", "fd00:69::/64")
        daemon.run("six", "--network", "dual")
    try:
        eventually(lambda: two.pings("six", one.address("six", "dual", 6)))
        eventually(lambda: one.pings("six", two.address("six", "dual")))
    finally:
        for daemon in daemons:
            daemon("rm", "-f", "six")
            daemon("network", "rm", "dual")


def test_an_internal_network_has_no_way_out(daemons: tuple[Docker, ...]) -> None:
    """And Docker gives it none of its own, as it does where no gateway is told."""
    one, _ = daemons
    one.create_network("inner", "--internal", "--subnet", "10.70.0.0/16")
    one.run("alone", "--network", "inner")
    try:
        assert one.inside("alone", "ip", "-4", "-o", "route").stdout.split()[0] == "10.70.0.0/16"
        assert "eth1" not in one.inside("alone", "ip", "-o", "link").stdout
        assert "docker_gwbridge" not in one.out("network", "ls")
    finally:
        one("rm", "-f", "alone")
        one("network", "rm", "inner")


def test_a_container_stays_connected_while_the_agent_restarts(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    before = _veths(one.host)
    one.host.agent.kill()
    assert two.pings("client", one.address("web", "app"))
    one.host.agent.start()
    assert two.pings("client", one.address("web", "app"))
    assert fetches(two.host, f"http://{one.host.ip}:4000/hostname", "web")
    eventually(lambda: "web" in netagent(one.host, "ps").stdout)
    assert _veths(one.host) == before
    one.run_through("--network", "app")


def test_a_container_stays_connected_while_dockerd_restarts(daemons: tuple[Docker, ...]) -> None:
    """With live-restore; Docker does not ask again for what is published."""
    one, two = daemons
    one.stop()
    assert two.fetches("client", f"http://{one.host.ip}:4000/hostname", "web")
    one.start()
    assert two.pings("client", one.address("web", "app"))
    assert fetches(two.host, f"http://{one.host.ip}:4000/hostname", "web")
    one.run_through("--network", "app")
    eventually(lambda: two.fetches("client", "http://web/hostname", "web"))


def test_a_container_that_stopped_comes_back(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    one("restart", "-t", "0", "web")
    eventually(lambda: two.fetches("client", "http://web/hostname", "web"))
    assert fetches(two.host, f"http://{one.host.ip}:4000/hostname", "web")
    one("stop", "-t", "0", "web")
    assert not fetches(two.host, f"http://{one.host.ip}:4000/hostname", "web")
    assert not [name for name, _, _ in _veths(one.host) if name.startswith("nae")]
    one("start", "web")
    eventually(lambda: two.fetches("client", "http://web/hostname", "web"))


def test_a_container_sends_with_its_own_addresses_only(daemons: tuple[Docker, ...]) -> None:
    one, two = daemons
    one.run("spoofer", "--network", "app", "--cap-add", "NET_ADMIN")
    try:
        one.inside("spoofer", "ip", "address", "add", "10.66.1.200/16", "dev", "eth0")
        target = two.address("client", "app")
        assert one.pings("spoofer", target)
        assert one.inside("spoofer", "ping", "-I", "10.66.1.200", "-c", "1", "-W", "1", target).returncode != 0
    finally:
        one("rm", "-f", "spoofer")


def test_an_address_that_docker_has_forgotten_is_free_again(daemons: tuple[Docker, ...]) -> None:
    """As when dockerd is killed after it was given the address, and before it made the endpoint."""
    one, two = daemons
    asked = {"PoolID": SUBNET, "Address": "10.66.0.66"}
    done(two.host, "IpamDriver.RequestAddress", **asked)
    taken = ("run", "--rm", *USR, "--network", "app", "--ip", "10.66.0.66", IMAGE, "true")
    assert "Address already in use" in two.refusal(*taken)
    _configure(two.host, SHORT_GRACE_S)
    two.host.agent.restart()
    assert "Address already in use" in call(two.host, "IpamDriver.RequestAddress", **asked)["Error"]
    eventually(lambda: two(*taken, check=False).returncode == 0)
    assert two.pings("client", one.address("web", "app"))


def test_what_a_dockerd_had_that_lost_its_state_is_free_again(daemons: tuple[Docker, ...]) -> None:
    """The machine loses its power and its dockerd's disk: dockerd knows neither its network nor its container."""
    one, two = daemons
    address = two.address("client", "app")
    two.host.power_off()
    two.host.power_on()
    _configure(two.host, SHORT_GRACE_S)
    two.host.agent.start()
    assert "client" in netagent(two.host, "ps").stdout
    two.start()
    two.make_image()
    two.create_network("app", "--subnet", SUBNET)
    eventually(lambda: netagent(two.host, "ps", "-aq").stdout == "")
    two.run("client", "--network", "app", "--ip", address)
    eventually(lambda: two.pings("client", one.address("web", "app")))
    two("rm", "-f", "client")
    for daemon in (two, one):
        daemon.remove_all()
    eventually(lambda: SUBNET not in netagent(one.host, "network", "ls").stdout)
