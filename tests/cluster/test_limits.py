"""Limits on a real host, as a user types them."""

import json

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import dump, inside, inspect, netagent, refusal, run, same
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=1)
    (h1,) = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.20.0.0/24", "app")
    netagent(h1, "network", "create", "--subnet", "10.21.0.0/24", "db")
    run(h1, "keeper", "--network", "app")
    netagent(h1, "network", "connect", "db", "keeper")
    return lab


@pytest.fixture
def h1(lab: Lab) -> Host:
    return lab.host("h1")


def _queues(host: Host) -> dict[str, str]:
    """Return the rates of our queues by the first three letters of their device."""
    shown = json.loads(host.run("tc", "-j", "qdisc", "show").stdout)
    return {q["dev"][:3]: q["options"]["rate"] * 8 for q in shown if q["kind"] == "tbf"}


def test_a_container_sends_at_its_rate_and_at_another_one_after_an_update(h1: Host) -> None:
    before = dump(h1)
    run(h1, "sink", "--network", "app", command=("iperf3", "-s"), listens=5201)
    run(h1, "web", "--network", "app", "--rate-out", "80mbit", "--rate-in", "40mbit")
    target = inspect(h1, "sink")["NetworkSettings"]["IPAddress"]

    def measured(*options: str) -> float:
        report = json.loads(inside(h1, "web", "iperf3", "-J", "-t", "1", "-O", "1", "-c", target, *options).stdout)
        # A server that is still busy with the last test refuses.
        return float(report["end"].get("sum_received", {}).get("bits_per_second", 0))

    # Measured again where the machine had no time for it.
    eventually(lambda: measured() == pytest.approx(80e6, rel=0.15), within=90)
    eventually(lambda: measured("-R") == pytest.approx(40e6, rel=0.15), within=90)
    assert netagent(h1, "update", "--rate-out", "20mbit", "web").stdout == "web\n"
    eventually(lambda: measured() == pytest.approx(20e6, rel=0.15), within=90)
    assert netagent(h1, "update", "--rate-in", "none", "--rate-out", "none", "web").stdout == "web\n"
    eventually(lambda: measured() > 200e6, within=90)
    netagent(h1, "rm", "-f", "web", "sink")
    eventually(lambda: same(h1, before))


def test_limits_survive_the_agent_and_come_back_when_somebody_takes_them_away(h1: Host) -> None:
    run(h1, "web", "--network", "app", "--rate-out", "20mbit", "--rate-in", "10mbit")
    wanted = {"nae": 10_000_000, "nai": 20_000_000}
    assert _queues(h1) == wanted
    h1.agent.kill()
    assert _queues(h1) == wanted
    (device,) = (link for link in h1.run("ls", "/sys/class/net").stdout.split() if link.startswith("nai"))
    h1.run("tc", "qdisc", "del", "dev", device, "root")
    h1.agent.start()
    eventually(lambda: _queues(h1) == wanted)
    h1.run("ip", "link", "del", device)
    eventually(lambda: _queues(h1) == wanted)
    netagent(h1, "restart", "-t", "0", "web")
    assert _queues(h1) == wanted
    netagent(h1, "rm", "-f", "web")
    assert not _queues(h1)


def test_a_connection_and_an_attachment_have_limits_of_their_own(h1: Host) -> None:
    run(h1, "web", "--network", "app")
    netagent(h1, "network", "connect", "--rate-in", "5mbit", "db", "web")
    networks = inspect(h1, "web")["NetworkSettings"]["Networks"]
    assert (networks["app"]["RateIn"], networks["db"]["RateIn"]) == (0, 5_000_000)
    netagent(h1, "update", "--network", "app", "--rate-out", "1gbit", "web")
    assert _queues(h1) == {"nae": 5_000_000, "nai": 1_000_000_000}
    netagent(h1, "rm", "-f", "web")
    h1.run("ip", "netns", "add", "blue")
    netagent(h1, "attach", "--netns", "/run/netns/blue", "--name", "blue", "--network", "app", "--rate-in", "125kBps")
    assert _queues(h1) == {"nae": 1_000_000}
    netagent(h1, "detach", "blue")
    h1.run("ip", "netns", "delete", "blue")


REFUSED = {
    "rate": (["update", "--rate-in", "fast", "idle"], "invalid --rate-in 'fast' (for example 10mbit"),
    "too-slow": (["update", "--rate-out", "7kbit", "idle"], "invalid --rate-out 7kbit (from 8kbit to 1tbit)"),
    "not-there": (["update", "--rate-in", "1mbit", "nope"], "No such container: nope"),
    "not-connected": (["update", "--network", "db", "--rate-in", "1mbit", "idle"], "container idle is not connected"),
    "connect": (["network", "connect", "--rate-in", "1", "db", "idle"], "invalid --rate-in 1 (from 8kbit to 1tbit)"),
}


def test_what_cannot_be_limited_is_refused_and_nothing_changes(h1: Host) -> None:
    run(h1, "idle", "--network", "app")
    before = dump(h1)
    for arguments, words in REFUSED.values():
        assert words in refusal(h1, *arguments)
    said = refusal(h1, "run", "-d", "--network", "app", "--rate-in", "x", "--", "sleep", "1", status=125)
    assert said.startswith("invalid --rate-in 'x'")
    assert netagent(h1, "update", "idle", check=False).returncode == 2
    assert same(h1, before)


def test_counters_tell_what_a_container_and_its_network_received_and_sent(h1: Host) -> None:
    run(h1, "web", "--network", "db")
    target = inspect(h1, "keeper")["NetworkSettings"]["Networks"]["db"]["IPAddress"]

    def stats(*arguments: str) -> dict[str, int]:
        found: dict[str, int] = json.loads(netagent(h1, *arguments, "--format", "json").stdout)
        return found

    before, network = stats("stats", "web"), stats("network", "stats", "db")
    # Many, beside a dozen of the kernel's own in a container's first seconds (ARP, neighbour discovery, MLD).
    assert inside(h1, "web", "ping", "-c40", "-i0.01", "-s", "1000", target).returncode == 0
    after, later = stats("stats", "web"), stats("network", "stats", "db")
    for key, least in (("RxPackets", 40), ("TxPackets", 40), ("RxBytes", 40 * 1042), ("TxBytes", 40 * 1042)):
        assert least <= after[key] - before[key] < 2 * least
        assert 2 * least <= later[key] - network[key] < 4 * least
    assert later["Containers"] == 2
    assert refusal(h1, "stats", "nope").startswith("No such container: nope")
    assert refusal(h1, "network", "stats", "nope").startswith("network nope not found")
    netagent(h1, "rm", "-f", "web")
