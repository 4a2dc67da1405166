"""Docker's containers in netagent's networks, through the real ``docker`` and one dockerd on each host."""

from collections.abc import Iterator

import pytest

from netagent.lab.lab import Lab
from tests.support.docker import IMAGE, USR, Docker, dockers
from tests.support.hosts import fetches, netagent, pings, run
from tests.support.lab import MakeLab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]

SUBNET = "10.66.0.0/16"


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, agents=False)
    for host in lab.hosts:
        host.path("/etc/netagent/agent.toml").write_text("docker = true\n")
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
    assert two.pings("client", one.address("web", "app"))
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
        assert two.pings("client", "10.66.0.9")
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
        assert pings(one.host, "ours", two.address("client", "joined"))
    finally:
        two("network", "disconnect", "joined", "client", check=False)
        netagent(one.host, "rm", "-f", "ours", check=False)
        two("network", "rm", "joined")
    assert "shared" in netagent(two.host, "network", "ls").stdout, "Docker did not make it"
