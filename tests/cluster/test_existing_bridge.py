"""The default bridge's configured address, and a network on a bridge that netagent did not make."""

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import dump, fetches, inside, inspect, netagent, pings, refusal, run, same, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

PEER = "10.77.0.50"
_BRIDGE = (
    "ip link add kbr0 type bridge",
    "ip address add 10.77.0.1/24 dev kbr0",
    "ip address add fd00:77::1/64 dev kbr0 nodad",
    "ip link set kbr0 up",
)


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    """Two hosts; on h1 the bridge kbr0 with another machine, ``vm``, behind it."""
    lab = make_lab(hosts=2)
    h1, _ = lab.hosts
    for command in (
        *_BRIDGE,
        "ip netns add vm",
        "ip link add vmport type veth peer name eth0 netns vm",
        "ip link set vmport master kbr0 up",
        "ip -n vm link set lo up",
        "ip -n vm link set eth0 up",
        f"ip -n vm address add {PEER}/24 dev eth0",
        "ip -n vm route add default via 10.77.0.1",
    ):
        h1.run(*command.split())
    eventually(lambda: all(h1.run("cat", f"/sys/class/net/{n}/operstate").stdout == "up\n" for n in ("kbr0", "vmport")))
    run(h1, "plain")
    return lab


@pytest.fixture
def h1(lab: Lab) -> Host:
    return lab.host("h1")


def _bridge(host: Host) -> tuple[list[str], str]:
    """Return the addresses and ports of kbr0."""
    addresses = [line.split()[3] for line in host.run("ip", "-o", "address", "show", "dev", "kbr0").stdout.splitlines()]
    return sorted(a for a in addresses if not a.startswith("fe80")), host.run("ls", "/sys/class/net/kbr0/brif").stdout


def test_containers_join_an_existing_bridge_which_stays_as_it_was(lab: Lab, h1: Host) -> None:
    before, of_bridge = dump(h1), _bridge(h1)
    option = ("--opt", "com.docker.network.bridge.name=kbr0", "--ip-range", "10.77.0.128/25")
    netagent(h1, "network", "create", *option, "lan")
    serve_name(h1, "web", "--network", "lan", "-p", "4700:80")
    settings = inspect(h1, "web")["NetworkSettings"]
    assert (settings["IPAddress"], settings["Gateway"]) == ("10.77.0.128", "10.77.0.1")
    assert settings["GlobalIPv6Address"].startswith("fd00:77::")
    assert pings(h1, "web", PEER)
    assert pings(h1, "web", "198.18.0.2"), "masquerading does not work"
    eventually(lambda: fetches(h1, "http://127.0.0.1:4700/hostname", "web"))
    assert fetches(lab.host("h2"), "http://198.18.0.1:4700/hostname", "web")
    address, other = settings["IPAddress"], inspect(h1, "plain")["NetworkSettings"]["IPAddress"]
    assert not pings(h1, "plain", address)
    assert not pings(h1, "web", other)
    h1.agent.kill()
    h1.agent.start()
    assert pings(h1, "web", PEER)
    _make_again(h1)
    eventually(lambda: pings(h1, "web", PEER), within=30)
    netagent(h1, "rm", "-f", "web")
    assert refusal(h1, "network", "create", "--opt", "bridge=kbr0", "second").startswith("bridge kbr0 is used by")
    netagent(h1, "network", "rm", "lan")
    assert _bridge(h1) == of_bridge
    eventually(lambda: same(h1, before))


def _make_again(host: Host) -> None:
    host.run("ip", "link", "delete", "kbr0")
    for command in _BRIDGE:
        host.run(*command.split())
    host.run("ip", "link", "set", "vmport", "master", "kbr0")


REFUSED = {
    "missing": (["--opt", "bridge=kbr9"], "bridge kbr9 does not exist (ip link add kbr9 type bridge, or leave"),
    "no-bridge": (["--opt", "bridge=vmport"], "interface vmport is not a bridge"),
    "no-name": (["--opt", "bridge=a/b"], "invalid interface name 'a/b'"),
    "elsewhere": (["--opt", "bridge=kbr0", "--subnet", "10.78.0.0/24"], "bridge kbr0 has no address in 10.78.0.0/24"),
    "driver": (["--driver", "vxlan", "--opt", "bridge=kbr0"], "option bridge does not work with the driver vxlan"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_bridge_that_cannot_be_used_is_refused(h1: Host, case: str) -> None:
    arguments, words = REFUSED[case]
    before = dump(h1)
    assert refusal(h1, "network", "create", *arguments, "x").startswith(words)
    assert same(h1, before)


def test_netagents_own_bridge_is_refused(h1: Host) -> None:
    own = next(n for n in h1.run("ls", "/sys/class/net").stdout.split() if n.startswith("nab"))
    said = refusal(h1, "network", "create", "--opt", f"bridge={own}", "x")
    assert said == f"bridge {own} is netagent's own, of network bridge (use network bridge)"


def test_the_default_bridge_has_the_address_of_the_configuration(h1: Host) -> None:
    netagent(h1, "rm", "-f", "plain")
    h1.agent.stop()
    h1.run("sh", "-c", "echo 'bip = \"172.18.42.1/16\"' > /etc/netagent/agent.toml")
    h1.agent.start()
    run(h1, "plain")
    settings = inspect(h1, "plain")["NetworkSettings"]
    assert (settings["Gateway"], settings["IPPrefixLen"]) == ("172.18.42.1", 16)
    assert pings(h1, "plain", "172.18.42.1")
    assert "172.18.42.1/16" in h1.run("ip", "-o", "address").stdout
    assert inside(h1, "plain", "ip", "route").stdout.startswith("default via 172.18.42.1 ")
    h1.agent.stop()
    h1.run("sh", "-c", "echo 'bip = \"198.18.0.77/24\"' > /etc/netagent/agent.toml")
    h1.agent.start()
    assert inspect(h1, "plain")["NetworkSettings"]["Gateway"] == "172.18.42.1"
    assert pings(h1, "plain", "172.18.42.1")
    netagent(h1, "rm", "-f", "plain")
    h1.agent.stop()
    said = refusal(h1, "agent")
    assert said.startswith("bip: subnet 198.18.0.0/24 overlaps with the host's route 198.18.0.0/")
    h1.run("rm", "/etc/netagent/agent.toml")
    h1.agent.start()
