"""The administrator's chains, and what others do to the whole ruleset, with packets as witnesses."""

import sys
from collections.abc import Iterator

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import fetches, netagent, ruleset, run, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

ADMIN = ("inet", "netagent-admin")
REPAIRED_WITHIN_S = 30.0
"""At once, and on a busy machine; without a reason the agent looks every five minutes."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "app")
    netagent(h1, "network", "create", "other")
    serve_name(h1, "web", "--network", "app", "-p", "4000:80", "-p", "4001:80")
    serve_name(h1, "hidden", "--network", "app")
    run(h1, "stranger", "--network", "other")
    return lab


@pytest.fixture(autouse=True)
def _clean_chains(lab: Lab) -> Iterator[None]:
    yield
    lab.hosts[0].run("nft", "flush", "table", *ADMIN)


def _admin_rules(host: Host) -> str:
    return host.run("nft", "-s", "list", "table", *ADMIN).stdout


def test_a_rule_of_the_administrator_blocks_an_address_to_one_published_port(lab: Lab) -> None:
    h1, h2 = lab.hosts
    for port in (4000, 4001):
        assert fetches(h2, f"http://{h1.ip}:{port}/hostname", "web")
    rule = f"ip saddr {h2.ip} meta l4proto tcp ct original proto-dst 4000 counter drop"
    h1.run("nft", "add", "rule", *ADMIN, "forward", *rule.split())
    assert not fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    assert fetches(h2, f"http://{h1.ip}:4001/hostname", "web")
    assert "packets 0" not in h1.run("nft", "list", "chain", *ADMIN, "forward").stdout


def test_rules_of_the_administrator_survive_restarts_and_changes_of_ours(lab: Lab) -> None:
    h1, h2 = lab.hosts
    h1.run("nft", "add", "rule", *ADMIN, "forward", "ip", "saddr", str(h2.ip), "drop")
    h1.run("nft", "add", "chain", *ADMIN, "own", "{ type filter hook prerouting priority raw; policy accept; }")
    before = _admin_rules(h1)
    h1.agent.restart()
    serve_name(h1, "later", "--network", "app", "-p", "4002:80")
    h1.run("nft", "delete", "table", "inet", "netagent")
    eventually(lambda: "table inet netagent {" in h1.run("nft", "list", "ruleset").stdout)
    assert _admin_rules(h1) == before
    assert not fetches(h2, f"http://{h1.ip}:4002/hostname", "later")
    netagent(h1, "rm", "-f", "later")
    h1.run("nft", "delete", "chain", *ADMIN, "own")


def test_an_accept_of_the_administrator_opens_nothing_of_ours(lab: Lab) -> None:
    h1, _ = lab.hosts
    h1.run("nft", "add", "rule", *ADMIN, "forward", "accept")
    hidden = netagent(h1, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "hidden").stdout.strip()
    assert netagent(h1, "exec", "stranger", "--", "ping", "-c1", "-W1", hidden, check=False).returncode != 0


@pytest.mark.parametrize(
    "command",
    [
        ("flush", "ruleset"),
        ("delete", "table", "inet", "netagent"),
        ("delete", "table", "bridge", "netagent"),
        ("flush", "table", "inet", "netagent"),
        ("flush", "map", "inet", "netagent", "publish4"),
        ("flush", "chain", "inet", "netagent", "forward"),
        ("delete", "table", *ADMIN),
    ],
    ids=" ".join,
)
def test_what_others_flush_is_back_at_once(lab: Lab, command: tuple[str, ...]) -> None:
    h1, h2 = lab.hosts
    eventually(lambda: fetches(h2, f"http://{h1.ip}:4000/hostname", "web"))
    before = ruleset(h1)
    h1.run("nft", *command)
    # The first look is at the ruleset: a connection to a port that is closed for a moment would take a second itself.
    eventually(lambda: _same_ruleset(h1, before), within=REPAIRED_WITHIN_S)
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")


def _same_ruleset(host: Host, before: str) -> bool:
    # Tables, and elements of sets, are listed in the order in which they came.
    return _sorted_words(ruleset(host)) == _sorted_words(before)


def _sorted_words(text: str) -> list[str]:
    return sorted(text.replace(",", " ").split())


_LONGEST_GAP = """
import select, socket, sys, time
address, port = sys.argv[1], int(sys.argv[2])

def answers():
    try:
        with socket.create_connection((address, port), timeout=0.2) as connection:
            connection.settimeout(20)
            connection.sendall(b"GET /hostname HTTP/1.0\\r\\n\\r\\n")
            return b"web" in connection.makefile("rb").read()
    except OSError:
        time.sleep(0.01)
        return False

assert answers()
print("ready", flush=True)
longest, last, is_last = 0.0, time.monotonic(), False
while not is_last:
    is_last = bool(select.select([sys.stdin], [], [], 0)[0])
    while not answers():
        pass
    longest, last = max(longest, time.monotonic() - last), time.monotonic()
print(longest, flush=True)
"""


def test_clients_hardly_miss_a_published_port_when_the_ruleset_is_flushed(lab: Lab) -> None:
    h1, h2 = lab.hosts
    client = h2.popen(sys.executable, "-c", _LONGEST_GAP, str(h1.ip), "4000", stdin=-1, stdout=-1)
    assert client.stdout is not None
    assert client.stdout.readline() == "ready\n"
    h1.run("nft", "flush", "ruleset")
    eventually(lambda: "table inet netagent" in h1.run("nft", "list", "tables").stdout, within=REPAIRED_WITHIN_S)
    gap = float(client.communicate(timeout=REPAIRED_WITHIN_S)[0])
    assert gap < REPAIRED_WITHIN_S, f"{gap:.2f} s without an answer"
