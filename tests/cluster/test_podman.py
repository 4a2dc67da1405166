"""Podman with its network backend ``cni``, in a network that reaches another host; with its settings as they come."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.lab.runtimes import Podman, install_list, write_list
from tests.support.hosts import PATIENCE, netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

EXAMPLES = Path(__file__).parents[2] / "deploy" / "examples"
SERVE = ("httpd", "-f", "-p", "80", "-h", "/etc")


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts with the network ``app``; on h2 runs ``peer``."""
    lab = make_lab(2)
    netagent(lab.hosts[0], "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    netagent(lab.hosts[0], "network", "create", "--subnet", "10.20.0.0/16", "local")
    eventually(lambda: "app" in netagent(lab.hosts[1], "network", "ls").stdout)
    run(lab.hosts[1], "peer", "--network", "app")
    return lab


@pytest.fixture(scope="module")
def h1(lab: Lab) -> Host:
    return lab.host("h1")


@pytest.fixture(scope="module")
def h2(lab: Lab) -> Host:
    return lab.host("h2")


@pytest.fixture(scope="module")
def prepared(h1: Host) -> Podman:
    install_list(h1, EXAMPLES / "podman" / "10-app.conflist")
    write_list(h1, "local")
    podman = Podman(h1)
    podman.prepare()
    return podman


@pytest.fixture
def podman(prepared: Podman, h1: Host) -> Iterator[Podman]:
    """Podman without containers, before and after."""
    yield prepared
    prepared.podman("rm", "--force", "--all", "--time", "0")
    eventually(lambda: netagent(h1, "ps", "-a", "-q").stdout == "")


def page(host: Host, address: object, port: int) -> str:
    """Return what the web server at a port says of its host name."""
    return host.run("curl", "-s", *PATIENCE, f"http://{address}:{port}/hostname", check=False).stdout.strip()


def test_podman_lists_the_networks(podman: Podman) -> None:
    listed = podman.podman("network", "ls", "--format", "{{.Name}} {{.Driver}}").stdout.splitlines()
    assert {"app netagent", "local netagent"} <= set(listed)


def test_a_container_has_its_fixed_address_its_names_and_its_ports(podman: Podman, h1: Host, h2: Host) -> None:
    options = (
        "--network",
        "app",
        "--ip",
        "192.168.0.9",
        "--network-alias",
        "www",
        "-p",
        "8080:80",
        "-p",
        "5353:53/udp",
    )
    podman.run("web", *options, command=SERVE)
    short = podman.podman("ps", "-q").stdout.strip()
    assert podman.podman("inspect", "--format", "{{.NetworkSettings.Networks.app.IPAddress}}", "web").stdout == (
        "192.168.0.9\n"
    )
    for name in ("web", "www", short):
        ping = ("netagent", "exec", "peer", "--", "ping", "-c1", "-W1", name)
        eventually(lambda ping=ping: "(192.168.0.9)" in h2.run(*ping, check=False).stdout)
    for host, at in ((h2, h1.ip), (h1, "127.0.0.1")):
        assert eventually(lambda host=host, at=at: page(host, at, 8080)) == short
    netagent(h2, "rm", "-f", "peer")
    run(h2, "peer", "--network", "app")
    eventually(lambda: podman.podman("exec", "web", "ping", "-c1", "-W1", "peer", check=False).returncode == 0)


def test_a_published_port_is_podmans_to_hold_and_free_after_removal(podman: Podman, h1: Host) -> None:
    podman.run("web", "--network", "app", "-p", "8081:80", command=SERVE)
    assert "conmon" in h1.run("ss", "-Hltnp", "sport = :8081").stdout
    refused = podman.podman(
        "run", "--rm", "--network", "app", "-p", "8081:80", "localhost/busybox", "true", check=False
    )
    assert refused.returncode != 0
    assert "8081" in refused.stderr
    said = len(h1.agent.log.read_text())
    h1.agent.restart()
    assert ":8081" not in h1.agent.log.read_text()[said:], "a port that Podman holds is no problem"
    podman.podman("restart", "--time", "0", "web")
    assert eventually(lambda: page(h1, h1.ip, 8081))
    podman.podman("rm", "--force", "--time", "0", "web")
    podman.run("next", "--network", "app", "-p", "8081:80", command=SERVE)
    assert eventually(lambda: page(h1, h1.ip, 8081))


def test_containers_join_and_leave_networks_while_they_run(podman: Podman, h1: Host) -> None:
    podman.run("web", "--network", "app")
    podman.podman("network", "connect", "local", "web")
    assert "inet 10.20." in podman.podman("exec", "web", "ip", "address").stdout
    podman.podman("network", "disconnect", "local", "web")
    assert "inet 10.20." not in podman.podman("exec", "web", "ip", "address").stdout
    (found,) = json.loads(netagent(h1, "inspect", netagent(h1, "ps", "-q").stdout.strip()).stdout)
    assert list(found["NetworkSettings"]["Networks"]) == ["app"]


def test_a_pod_of_podman_is_one_attachment_under_its_own_name(podman: Podman, h2: Host) -> None:
    infra = ("--infra-image", "localhost/busybox", "--infra-command", "sleep 1000")
    parent = f"/{podman.host.seat.netns}"
    podman.podman("pod", "create", "--name", "pod", "--cgroup-parent", parent, "--network", "app", *infra)
    podman.podman("run", "-d", "--pod", "pod", "--name", "inside", "localhost/busybox")
    try:
        eventually(
            lambda: h2.run("netagent", "exec", "peer", "--", "ping", "-c1", "-W1", "pod", check=False).returncode == 0
        )
    finally:
        podman.podman("pod", "rm", "--force", "--time", "0", "pod")


def test_an_address_that_another_has_is_refused_and_nothing_stays(podman: Podman, h1: Host) -> None:
    podman.run("web", "--network", "app", "--ip", "192.168.0.9")
    before = netagent(h1, "ps", "-a", "-q").stdout
    refused = podman.podman(
        "run", "--rm", "--network", "app", "--ip", "192.168.0.9", "localhost/busybox", "true", check=False
    )
    assert "192.168.0.9" in refused.stderr
    assert netagent(h1, "ps", "-a", "-q").stdout == before
