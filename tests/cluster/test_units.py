"""What the systemd units leave to the agent and to the DNS process is enough for them."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from netagent.lab import process
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import dump, fetches, netagent, same, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

UNITS = Path(__file__).parents[2] / "deploy" / "systemd"


def capabilities(*files: str) -> list[str]:
    """Return the capabilities that units leave, as setpriv(1) spells them; an empty line forgets those before."""
    left: list[str] = []
    for line in "\n".join((UNITS / file).read_text() for file in files).splitlines():
        if line.startswith("CapabilityBoundingSet="):
            named = line.partition("=")[2].split()
            left = [*left, *(name.removeprefix("CAP_").lower() for name in named)] if named else []
    return left


def start_as(host: Host, lab: Lab, *files: str) -> None:
    """Start the agent of a host with the capabilities of these units alone, and with none to gain."""
    bounded = "-all," + ",".join(f"+{name}" for name in capabilities(*files))
    own = ["--store", lab.layout.store_url, "--host-name", host.name, "--host-ip", str(host.ip)]
    host.spawn("agent", ["setpriv", "--no-new-privs", "--bounding-set", bounded, "netagent", "agent", *own])
    host.agent.wait_ready()


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """h1 has the agent of netagent.service with its drop-in run.conf, h2 that of the unit alone."""
    lab = make_lab(2, agents=False)
    h1, h2 = lab.hosts
    start_as(h1, lab, "netagent.service", "run.conf")
    start_as(h2, lab, "netagent.service")
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    return lab


def test_the_capabilities_of_the_units_are_enough(lab: Lab) -> None:
    h1, h2 = lab.hosts
    serve_name(h1, "web", "--network", "app", "-p", "8080:80")
    eventually(lambda: "app" in netagent(h2, "network", "ls").stdout)
    h2.run("ip", "netns", "add", "blue")
    netagent(h2, "attach", "--netns", "/run/netns/blue", "--name", "blue", "--network", "app", "-p", "8081:81")
    nsenter = ("nsenter", "--net=/run/netns/blue", "--")
    web = netagent(h1, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    eventually(lambda: h2.run(*nsenter, "ping", "-c1", "-W1", web, check=False).returncode == 0)
    eventually(lambda: netagent(h1, "exec", "web", "--", "ping", "-c1", "-W1", "blue", check=False).returncode == 0)
    assert fetches(h2, f"http://{h1.ip}:8080/hostname", "web")
    netagent(h2, "detach", "blue")
    netagent(h1, "rm", "-f", "web")
    for host in lab.hosts:
        assert "not permitted" not in host.agent.log.read_text()


def test_the_unit_alone_refuses_to_run_containers_and_says_what_allows_it(lab: Lab) -> None:
    host = lab.host("h2")
    before = dump(host)
    for options in ((), ("--cap-drop", "ALL")):
        said = netagent(host, "run", "--rm", "--network", "app", *options, "--", "true", check=False).stderr
        assert "CAP_MKNOD" in said
        assert "make install RUN=yes" in said
    assert same(host, before)


def test_a_capability_that_the_agent_itself_lacks_is_refused(lab: Lab) -> None:
    run = ("run", "--rm", "--network", "app", "--cap-add", "SYS_TIME", "--", "true")
    assert "it lacks CAP_SYS_TIME (" in netagent(lab.host("h1"), *run, check=False).stderr


@pytest.fixture
def name_server(lab: Lab) -> Iterator[Host]:
    """A host whose DNS process was started as systemd would: with its listening socket."""
    host = lab.host("h2")
    host.agent.stop()
    former = int(host.path("/run/netagent/dns.pid").read_text())
    process.end(process.family(lambda pid: pid == former), within_s=30)
    host.run("rm", "-f", "/run/netagent/dns.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
        control.bind(str(host.path("/run/netagent/dns.sock")))
        control.listen(8)
        program = [sys.executable, "-P", "-m", "netagent.dns", "--control-fd", str(control.fileno())]
        argv = host.command(program)
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
        server = subprocess.Popen(argv, pass_fds=[control.fileno()], env=environment)
    yield host
    server.kill()
    server.wait()


def test_the_agent_tells_a_dns_process_that_systemd_started(lab: Lab, name_server: Host) -> None:
    said = len(name_server.agent.log.read_text())
    start_as(name_server, lab, "netagent.service")
    name_server.run("ip", "netns", "add", "green")
    netagent(name_server, "attach", "--netns", "/run/netns/green", "--name", "green", "--network", "app")
    eventually(lambda: "green." in netagent(name_server, "dns", "green", check=False).stdout)
    assert "started the DNS process" not in name_server.agent.log.read_text()[said:]
    netagent(name_server, "detach", "green")
