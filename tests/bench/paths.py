"""The ways between two containers that are measured beside each other, each in a lab of its kind.

netagent's are in a lab without Docker, Docker's in one without netagent, those by hand on hosts without either:
nobody's rules are on the other's way. The first two labs have a plain way between their hosts to compare with.
"""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.runtimes import Docker
from tests.bench.by_hand import set_up_bridge, way_by_hand
from tests.bench.way import End, Way, enter
from tests.support.lab import eventually

DRIVERS = ("route", "vxlan", "gre")
SWARM = "swarm"
SAME_HOST = "same"


@contextmanager
def between_hosts(drivers: Sequence[str], *, same_host: bool) -> Iterator[list[Way]]:
    """Give netagent's ways by ``vxlan`` and ``route``, those by hand beside them, and those on one host."""
    with (
        Lab.up(f"bn{os.getpid()}", hosts=2) as lab,
        Lab.up(f"bh{os.getpid()}", hosts=2, agents=False) as bare,
        Lab.up(f"bc{os.getpid()}", hosts=2, agents=False) as checked,
    ):
        ways = _by_drivers(lab, bare, checked, drivers, "plain")
        if same_host:
            ways += _on_one_host(lab.hosts[0], bare.hosts[0])
        yield ways


@contextmanager
def over_ovs() -> Iterator[list[Way]]:
    """Give netagent's way by GRE and Open vSwitch's userspace datapath, and the same by hand."""
    with (
        Lab.up(f"bo{os.getpid()}", hosts=2, underlay="ovs") as lab,
        Lab.up(f"bv{os.getpid()}", hosts=2, underlay="ovs", agents=False) as bare,
        Lab.up(f"bw{os.getpid()}", hosts=2, underlay="ovs", agents=False) as checked,
    ):
        yield _by_drivers(lab, bare, checked, ["gre"], "plain, Open vSwitch")


def _by_drivers(lab: Lab, bare: Lab, checked: Lab, drivers: Sequence[str], plain: str) -> list[Way]:
    client, server = lab.hosts
    ways = [Way(name=plain, client=End(host=client), server=End(host=server), target=str(server.ip))]
    for number, driver in enumerate(drivers, 1):
        client.run("netagent", "network", "create", "--driver", driver, "--subnet", f"10.5{number}.0.0/16", driver)
        for host in (client, server):
            _attach(host, driver, driver)
        hands = [
            way_by_hand(checked.hosts, driver, number, plain=plain, checked=True),
            way_by_hand(bare.hosts, driver, number, plain=plain, checked=False),
        ]
        ways.append(
            Way(
                name=f"netagent {driver}",
                client=End(host=client, inside=enter(driver)),
                server=End(host=server, inside=enter(driver)),
                target=_address_of(server, driver),
                group=driver,
                closely=True,
                plain=plain,
                by_hand=hands[1].name,
                checked=hands[0].name,
            )
        )
        ways += hands
    return ways


def _on_one_host(host: Host, bare: Host) -> list[Way]:
    host.run("netagent", "network", "create", "--subnet", "10.58.0.0/16", "local")
    for name in ("local1", "local2"):
        _attach(host, name, "local")
    set_up_bridge(bare)
    by_hand = "one host, bridge by hand"
    ends = [End(host=host, inside=enter(f"local{number}")) for number in (1, 2)]
    target = _address_of(host, "local2")
    hands = [End(host=bare, inside=enter(f"hand{number}")) for number in (1, 2)]
    return [
        Way(name="one host, netagent", client=ends[0], server=ends[1], target=target, group=SAME_HOST, by_hand=by_hand),
        Way(name=by_hand, client=hands[0], server=hands[1], target="10.68.0.2", group=SAME_HOST),
    ]


def _attach(host: Host, name: str, network: str) -> None:
    eventually(lambda: host.run("netagent", "network", "inspect", network, check=False).returncode == 0)
    host.run("ip", "netns", "add", name)
    host.run("netagent", "attach", "--netns", f"/run/netns/{name}", "--name", name, "--network", network)


def _address_of(host: Host, name: str) -> str:
    shown = host.run(*enter(name), "ip", "-4", "-j", "address", "show", "dev", "eth0")
    return str(json.loads(shown.stdout)[0]["addr_info"][0]["local"])


@contextmanager
def docker(*, same_host: bool) -> Iterator[list[Way]]:
    """Give the ways of Swarm's overlay between two dockerds, and of Docker's bridge."""
    with Lab.up(f"bs{os.getpid()}", hosts=2, agents=False) as lab:
        daemons = tuple(Docker(host) for host in lab.hosts)
        for daemon in daemons:
            daemon.start("--live-restore=false")  # which Swarm refuses
            daemon.load_image()
        yield _swarm(*daemons) + (_docker_bridge(daemons[0]) if same_host else [])


def _swarm(first: Docker, second: Docker) -> list[Way]:
    plain = "plain, Swarm's hosts"
    address = str(first.host.ip)
    first.docker("swarm", "init", "--advertise-addr", address, "--data-path-port", "4791")
    token = first.docker("swarm", "join-token", "-q", "worker").stdout.strip()
    second.docker("swarm", "join", "--token", token, "--advertise-addr", str(second.host.ip), f"{address}:2377")
    first.docker("network", "create", "-d", "overlay", "--attachable", "--subnet", "10.57.0.0/16", "over")
    ends, target = [], ""
    for daemon in (first, second):
        ends.append(_container(daemon, "over", "over"))
        target = _docker_address(daemon, "over", "over")
    hosts = [End(host=daemon.host) for daemon in (first, second)]
    eventually(lambda: _pings(ends[0], target))
    return [
        Way(name=plain, client=hosts[0], server=hosts[1], target=str(second.host.ip), group=SWARM),
        Way(name="Swarm overlay", client=ends[0], server=ends[1], target=target, group=SWARM, plain=plain),
    ]


def _docker_bridge(daemon: Docker) -> list[Way]:
    daemon.docker("network", "create", "local")
    ends = [_container(daemon, f"local{number}", "local") for number in (1, 2)]
    target = _docker_address(daemon, "local2", "local")
    by_hand = "one host, bridge by hand"
    return [
        Way(
            name="one host, Docker bridge",
            client=ends[0],
            server=ends[1],
            target=target,
            group=SAME_HOST,
            by_hand=by_hand,
        )
    ]


def _container(daemon: Docker, name: str, network: str) -> End:
    daemon.run(name, "--network", network)
    pid = _inspect(daemon, name)["State"]["Pid"]
    return End(host=daemon.host, inside=("nsenter", f"--net=/proc/{pid}/ns/net"))


def _docker_address(daemon: Docker, name: str, network: str) -> str:
    return str(_inspect(daemon, name)["NetworkSettings"]["Networks"][network]["IPAddress"])


def _inspect(daemon: Docker, name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(daemon.docker("inspect", name).stdout)[0]
    return found


def _pings(end: End, target: str) -> bool:
    return end.host.run(*end.inside, "ping", "-c1", "-W1", target, check=False).returncode == 0
