"""What other hosts, other programs and dockerd do, killed at every step of it."""

from contextlib import suppress
from functools import partial
from http.client import HTTPException

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support import docker_calls
from tests.support.crash import Reached, Verb, kill_at_every_point
from tests.support.lab import eventually
from tests.support.stored_peer import peer_comes, peer_goes

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

DOCKER_NETWORK = "d" * 64


def _disturb(host: Host) -> None:
    """Do by hand what the agent mends: another MTU, another address, a flushed ruleset, a setting turned off."""
    bridge = next(word for word in host.run("ip", "route", "show", "192.168.0.0/16").stdout.split() if "nab" in word)
    host.run("ip", "link", "set", bridge, "mtu", "1300")
    host.run("ip", "address", "add", "10.99.0.1/32", "dev", bridge)
    host.run("nft", "flush", "ruleset")
    host.run("sysctl", "-qw", f"net.ipv4.conf.{bridge}.proxy_arp=0")
    host.run("ip", "link", "set", bridge, "mtu", "1310")

    def is_mended() -> bool:
        setting = host.run("sysctl", "-n", f"net.ipv4.conf.{bridge}.proxy_arp").stdout.strip()
        return setting == "1" and "table inet netagent" in host.run("nft", "list", "tables").stdout

    eventually(lambda: not host.agent.running or is_mended())


def _kill_name_server(host: Host) -> None:
    """End the DNS process, and wait until there is another."""
    host.run("sh", "-c", "kill -9 $(cat /run/netagent/dns.pid)", check=False)
    listening = "sed -n 's/^Name:.//p' /proc/$(cat /run/netagent/dns.pid)/status && ss -Hlnu 'sport = 53'"
    eventually(lambda: not host.agent.running or ":53" in host.run("sh", "-c", listening, check=False).stdout)


def _docker_comes(host: Host) -> None:
    """Make the chain that Docker leaves to others, and wait for the rules in it."""
    host.run("iptables-nft", "-N", "DOCKER-USER", check=False)
    rules = ("iptables-nft", "-S", "DOCKER-USER")
    eventually(lambda: not host.agent.running or "netagent" in host.run(*rules).stdout)


def _docker_goes(host: Host) -> None:
    host.run("nft", "delete", "table", "ip", "filter", check=False)


def _docker(host: Host) -> None:
    """Do what dockerd does for a network, a container in it with a published port, and the end of both."""
    with suppress(OSError, HTTPException, AssertionError):
        pool = docker_calls.create_network(host, "10.55.0.0/24", network=DOCKER_NETWORK)
        ids = {"NetworkID": DOCKER_NETWORK, "EndpointID": docker_calls.ENDPOINT}
        done = partial(docker_calls.done, host)
        done("IpamDriver.RequestAddress", PoolID=pool, Address="10.55.0.9")
        done("NetworkDriver.CreateEndpoint", **ids, Interface={"Address": "10.55.0.9/24"})
        done("NetworkDriver.Join", **ids, SandboxKey="/var/run/docker/netns/0123456789ab")
        ports = docker_calls.port_map(docker_calls.port(80, 4000))
        done("NetworkDriver.ProgramExternalConnectivity", **ids, Options=ports)
        _docker_goes_on(host)


def _docker_goes_on(host: Host) -> None:
    """Do what dockerd does to be rid of them, whether they are there or not."""
    ids = {"NetworkID": DOCKER_NETWORK, "EndpointID": docker_calls.ENDPOINT}
    for method in ("Leave", "DeleteEndpoint"):
        docker_calls.done(host, f"NetworkDriver.{method}", **ids)
    docker_calls.call(host, "IpamDriver.ReleaseAddress", PoolID="10.55.0.0/24", Address="10.55.0.9")
    docker_calls.done(host, "NetworkDriver.DeleteNetwork", NetworkID=DOCKER_NETWORK)
    docker_calls.done(host, "IpamDriver.ReleasePool", PoolID="10.55.0.0/24")


VERBS = {
    "docker": Verb(act=_docker, settle=_docker_goes_on),
    "peer-comes": Verb(act=partial(peer_comes, network="staticnet"), settle=peer_goes),
    "peer-goes": Verb(prepare=partial(peer_comes, network="staticnet"), act=peer_goes, settle=peer_goes),
    "repair": Verb(act=_disturb, settle=lambda host: None),
    "name-server-dies": Verb(act=_kill_name_server, settle=lambda host: None),
    "docker-comes": Verb(act=_docker_comes, settle=_docker_goes),
}


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(crash_lab: Lab, reached: Reached, name: str) -> None:
    kill_at_every_point(crash_lab, reached, name, VERBS[name])


def test_every_crash_point_of_the_code_was_tried(reached: Reached) -> None:
    missing = reached.missing()
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS of a tests/cluster/test_crash_*.py"
