"""The agent is killed at every crash point of every verb; after a restart nothing is leaked, lost or doubled.

Which points there are is not written here: each verb is run once while the agent notes what it reaches, then once
per point with a kill there. What the code can reach is read from the code, and a point that no verb here reaches
fails the last test, so a new step comes with its crash test or not at all.
"""

import ast
import json
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path

import pytest

from netagent.kernel import kernel
from netagent.lab.host import Host
from netagent.lab.lab import Lab
from netagent.model.address import parse_address, parse_prefix
from netagent.model.block import Block
from netagent.model.host import Host as ModelHost
from netagent.model.ids import HostId, NetworkId
from netagent.store import keys
from netagent.store.records import encode_block, encode_host
from tests.support import docker_calls
from tests.support.hosts import dump, netagent, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(600)]

PACKAGE = Path(__file__).parents[2] / "netagent"
POINTS = "/run/failpoints"
SANDBOX = "/run/netns/crash"
DOCKER_NETWORK = "d" * 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """``act`` is killed somewhere; ``prepare`` runs before it, ``settle`` must always bring back the beginning."""

    act: Callable[[Host], object]
    prepare: Callable[[Host], object] = lambda host: None
    settle: Callable[[Host], object]


def _attach(host: Host) -> None:
    options = ("--network", "app", "-p", "4000:80", "--ip", "10.55.0.9")
    netagent(host, "attach", "--netns", SANDBOX, "--name", "crash", *options, check=False)


def _detach(host: Host) -> None:
    result = netagent(host, "detach", "crash", check=False)
    assert result.returncode == 0 or "No such container" in result.stderr, result.stderr


def _run(host: Host) -> None:
    options = ("--network", "staticnet", "--network", "app", "--ip", "192.168.0.9", "-p", "4001:80")
    netagent(host, "run", "-d", "--name", "crash", *options, "--", "sleep", "infinity", check=False)


def _connect(host: Host) -> None:
    """Connect a container to a second network, which takes its default route over."""
    options = ("--gw-priority", "9", "--ip", "192.168.0.8")
    netagent(host, "network", "connect", *options, "staticnet", "keeper-app", check=False)


def _disconnect(host: Host) -> None:
    netagent(host, "network", "disconnect", "-f", "staticnet", "keeper-app", check=False)


def _rm(host: Host) -> None:
    result = netagent(host, "rm", "-f", "crash", check=False)
    assert result.returncode == 0 or "No such container" in result.stderr, result.stderr


def _cni(host: Host, command: str) -> None:
    configuration = {
        "cniVersion": "1.1.0",
        "name": "app",
        "type": "netagent",
        "runtimeConfig": {"portMappings": [{"hostPort": 4002, "containerPort": 80, "protocol": "tcp"}]},
    }
    env = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": "crash",
        "CNI_NETNS": SANDBOX,
        "CNI_IFNAME": "eth0",
        "CNI_PATH": "/opt/cni/bin",
    }
    host.run("/opt/cni/bin/netagent", check=False, env=env, stdin=json.dumps(configuration))


def _limit(host: Host) -> None:
    netagent(host, "update", "--rate-in", "10mbit", "--rate-out", "10mbit", "keeper-app", check=False)


def _unlimit(host: Host) -> None:
    netagent(host, "update", "--rate-in", "none", "--rate-out", "none", "keeper-app", check=False)


def _create_network(host: Host) -> None:
    netagent(host, "network", "create", "--driver", "vxlan", "--subnet", "10.66.0.0/16", "brief", check=False)


def _remove_network(host: Host) -> None:
    eventually(lambda: _is_gone(netagent(host, "network", "rm", "brief", check=False).stderr))


def _is_gone(complaint: str) -> bool:
    return not complaint or "not found" in complaint


PEER = ModelHost(
    id=HostId("00000000-0000-4000-8000-000000000009"),
    name="peer",
    underlay=(parse_address("198.18.0.99"),),
    mtu=1500,
)


def _peer_records(host: Host) -> dict[str, bytes]:
    """Return the records of a host that exists in the store only, with a block of the network across hosts."""
    (network,) = json.loads(netagent(host, "network", "inspect", "staticnet").stdout)
    block = Block(
        network_id=NetworkId(network["Id"]),
        prefix=parse_prefix("192.168.200.0/24"),
        owner=PEER.id,
        epoch=1,
        own_address=parse_address("192.168.200.0"),
    )
    return {
        keys.host_key(PEER.id): encode_host(PEER),
        keys.block_key(block.network_id, block.prefix): encode_block(block),
    }


def _etcdctl(host: Host, *arguments: str, stdin: str = "") -> None:
    host.run("etcdctl", "--endpoints", "http://198.18.0.201:2379", *arguments, stdin=stdin)


def _peer_comes(host: Host) -> None:
    for key, value in _peer_records(host).items():
        _etcdctl(host, "put", key, stdin=value.decode())
    eventually(lambda: not host.agent.running or "192.168.200.0/24" in host.run("ip", "route").stdout)


def _peer_goes(host: Host) -> None:
    for prefix in (keys.BLOCKS, keys.HOSTS):
        listed = host.run(
            "etcdctl", "--endpoints", "http://198.18.0.201:2379", "get", "--prefix", prefix, "--keys-only"
        )
        for key in listed.stdout.split():
            if key.endswith(("/192.168.200.0-24", PEER.id)):
                _etcdctl(host, "del", key)
    eventually(lambda: not host.agent.running or "192.168.200.0/24" not in host.run("ip", "route").stdout)


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


def _use_network_once(host: Host) -> None:
    _create_network(host)
    run(host, "user", "--network", "brief")


def _leave_network(host: Host) -> None:
    """Remove a network's last container and wait until the journal has let go of the network's records."""
    netagent(host, "rm", "-f", "user", check=False)
    trace = f"cat {POINTS}/trace 2>/dev/null || true"
    eventually(lambda: not host.agent.running or "disown.after" in host.run("sh", "-c", trace).stdout)


def _clear_network(host: Host) -> None:
    netagent(host, "rm", "-f", "user", check=False)
    _remove_network(host)


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
    "last-container": Verb(prepare=_use_network_once, act=_leave_network, settle=_clear_network),
    "peer-comes": Verb(act=_peer_comes, settle=_peer_goes),
    "peer-goes": Verb(prepare=_peer_comes, act=_peer_goes, settle=_peer_goes),
    "repair": Verb(act=_disturb, settle=lambda host: None),
    "name-server-dies": Verb(act=_kill_name_server, settle=lambda host: None),
    "docker-comes": Verb(act=_docker_comes, settle=_docker_goes),
    "attach": Verb(act=_attach, settle=_detach),
    "detach": Verb(prepare=_attach, act=lambda h: netagent(h, "detach", "crash", check=False), settle=_detach),
    "cni-add": Verb(act=lambda host: _cni(host, "ADD"), settle=lambda host: _cni(host, "DEL")),
    "cni-del": Verb(
        prepare=lambda host: _cni(host, "ADD"),
        act=lambda host: _cni(host, "DEL"),
        settle=lambda host: _cni(host, "DEL"),
    ),
    "run": Verb(act=_run, settle=_rm),
    "stop": Verb(prepare=_run, act=lambda h: netagent(h, "stop", "-t", "0", "crash", check=False), settle=_rm),
    "start": Verb(
        prepare=lambda host: (_run(host), netagent(host, "stop", "-t", "0", "crash")),
        act=lambda host: netagent(host, "start", "crash", check=False),
        settle=_rm,
    ),
    "rm": Verb(prepare=_run, act=lambda host: netagent(host, "rm", "-f", "crash", check=False), settle=_rm),
    "disconnect": Verb(prepare=_connect, act=_disconnect, settle=_disconnect),
    "limit": Verb(act=_limit, settle=_unlimit),
    "unlimit": Verb(prepare=_limit, act=_unlimit, settle=_unlimit),
    "network-create": Verb(act=_create_network, settle=_remove_network),
    "network-rm": Verb(
        prepare=lambda host: (
            _create_network(host),
            run(host, "user", "--network", "brief"),
            netagent(host, "rm", "-f", "user"),
        ),
        act=lambda host: netagent(host, "network", "rm", "brief", check=False),
        settle=_remove_network,
    ),
}

_reached: set[str] = set()


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """One host whose agent counts crash points, with a network of its own and one across hosts that is in use."""
    lab = make_lab(hosts=1)
    (host,) = lab.hosts
    host.run("mkdir", "-p", POINTS)
    host.agent.stop()
    host.path("/etc/netagent/agent.toml").write_text("docker = true\n")
    _start(host)
    netagent(host, "network", "create", "--subnet", "10.55.0.0/24", "app")
    netagent(host, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    host.run("ip", "netns", "add", "crash")
    for network in ("app", "staticnet", "bridge"):
        run(host, f"keeper-{network}", "--network", network)
    return lab


@pytest.fixture(autouse=True)
def _agent_runs(lab: Lab) -> None:
    (host,) = lab.hosts
    _disarm(host)
    if not host.agent.running:
        _start(host)


def _start(host: Host) -> None:
    host.agent.start(env={"NETAGENT_FAILPOINTS": POINTS})


def _arm(host: Host, number: int) -> None:
    host.run("sh", "-c", f"rm -f {POINTS}/trace; echo {number} > {POINTS}/armed")


def _disarm(host: Host) -> list[str]:
    host.run("rm", "-f", f"{POINTS}/armed")
    return host.run("sh", "-c", f"cat {POINTS}/trace 2>/dev/null || true").stdout.split()


def _store(lab: Lab) -> str:
    etcd = lab.etcd[0]
    lines = etcd.run("etcdctl", "--endpoints", etcd.url, "get", "--prefix", "/netagent/v1/").stdout.splitlines()
    pairs = dict(zip(lines[::2], lines[1::2], strict=True))
    return "\n".join(
        f"{key} {value}" for key, value in pairs.items() if "/live/" not in key and "generation" not in key
    )


@pytest.mark.parametrize("name", VERBS)
def test_a_kill_at_any_point_leaves_nothing_half_done(lab: Lab, name: str) -> None:
    (host,) = lab.hosts
    verb = VERBS[name]
    before, stored = dump(host), _store(lab)

    def as_before() -> bool:
        assert _store(lab) == stored
        return same(host, before)

    verb.prepare(host)
    _arm(host, 1_000_000)
    verb.act(host)
    points = _disarm(host)
    _reached.update(points)
    assert points, "this verb reaches no crash point"
    verb.settle(host)
    eventually(as_before)
    for number in range(1, len(points) + 1):
        verb.prepare(host)
        _arm(host, number)
        verb.act(host)
        where = f"{name}: killed at point {number} of {len(points)}: {points[number - 1]}"
        _disarm(host)
        if host.agent.running:
            # What goes on after the answer (the store's picture, deletions in the background) may come out shorter.
            host.agent.kill()
        _start(host)
        verb.settle(host)
        try:
            eventually(as_before)
        except AssertionError as error:
            error.add_note(where)
            raise


def _names_in_code() -> Iterator[str]:
    """Yield every crash point that the code can reach, f-strings with their parts filled in from where they come."""
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "reach":
                (argument,) = node.args
                if isinstance(argument, ast.Constant):
                    yield argument.value
    yield from kernel.failpoints()
    journal = "".join((PACKAGE / "store" / name).read_text() for name in ("journal.py", "docker.py"))
    for name in re.findall(r'self\._transaction\("(\w+)"\)', journal):
        yield from (f"journal.{name}.before", f"journal.{name}.after")
    runner = (PACKAGE / "runtime" / "runc.py").read_text()
    for verb in re.findall(r'self\._call\("(\w+)"', runner):
        yield from (f"runtime.{verb}.before", f"runtime.{verb}.after")


def test_every_crash_point_of_the_code_was_tried() -> None:
    missing = set(_names_in_code()) - _reached
    assert not missing, f"no verb reaches {sorted(missing)}: add one to VERBS"


def test_everything_that_changes_the_journal_is_a_crash_point() -> None:
    """A write outside ``_transaction`` would be a step that no kill is tried at."""
    tree = ast.parse((PACKAGE / "store" / "journal.py").read_text())
    (journal,) = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    for method in (node for node in journal.body if isinstance(node, ast.FunctionDef)):
        text = ast.unparse(method)
        if re.search(r"INSERT|DELETE|UPDATE", text):
            assert "self._transaction(" in text or method.name.startswith("_put_"), method.name
