"""What goes to the host's nameservers and what does not, and whom a network's name server answers."""

import time
from collections.abc import Iterator

import pytest

from netagent.lab.host import Host
from tests.support.dns import ask, asked, data, forwards_now, nameserver, resolve, resolver_of
from tests.support.hosts import address, inside, inspect, netagent, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

UPSTREAM, OTHER, DEAD = "192.0.2.53", "192.0.2.54", "192.0.2.99"
FRONT, HIDDEN, QUIET, SIX = "10.61.0.1", "10.62.0.1", "10.63.0.1", "fd00:64::1"
NXDOMAIN = 3


@pytest.fixture(scope="module")
def host(make_lab: MakeLab) -> Iterator[Host]:
    (host,) = make_lab(hosts=1).hosts
    for name, options in {
        "front": ("--subnet", "10.61.0.0/24"),
        "hidden": ("--subnet", "10.62.0.0/24", "--internal"),
        "quiet": ("--subnet", "10.63.0.0/24", "--opt", "icc=false"),
        "six": ("--subnet", "fd00:64::/64"),
    }.items():
        netagent(host, "network", "create", *options, name)
        run(host, f"c-{name}", "--network", name)
    run(host, "both", "--network", "front", "--network", "hidden")
    conf = f"nameserver {UPSTREAM}\\nsearch corp.example\\n"
    with nameserver(host, UPSTREAM), nameserver(host, OTHER), resolver_of(host, conf):
        eventually(lambda: forwards_now(host, "c-front"))
        yield host


def test_names_outside_and_any_type_go_to_the_hosts_nameserver(host: Host) -> None:
    assert resolve(host, "c-front", "www.example") == ["192.0.2.80"]
    assert data(ask(host, "c-front", FRONT, "www.example", "TXT")) == ["[b'hello']"]


def test_an_answer_that_does_not_fit_comes_over_tcp(host: Host) -> None:
    cut = ask(host, "c-front", FRONT, "big.example", "TXT")
    assert cut is not None
    assert (cut.tc, cut.ancount) == (1, 0)
    assert len(data(ask(host, "c-front", FRONT, "big.example", "TXT", how="tcp"))) == 40
    assert "tcp 16 big.example" in asked(host)


@pytest.mark.parametrize(
    ("container", "server", "name", "kind"),
    [
        ("c-front", FRONT, "single", "A"),
        ("c-front", FRONT, "single", "MX"),
        ("c-front", FRONT, "c-front", "MX"),
        ("c-front", FRONT, "9.0.61.10.in-addr.arpa", "PTR"),
        ("c-front", FRONT, "9.0.62.10.in-addr.arpa", "PTR"),
        ("c-front", FRONT, "c-hidden", "A"),
        ("c-hidden", HIDDEN, "www.example", "A"),
        ("c-hidden", HIDDEN, "80.2.0.192.in-addr.arpa", "PTR"),
    ],
)
def test_what_must_not_leave_the_host_is_answered_here(
    host: Host, container: str, server: str, name: str, kind: str
) -> None:
    before = asked(host)
    reply = ask(host, container, server, name, kind)
    assert reply is not None
    assert (reply.rcode, reply.ancount) == (0 if name == "c-front" else NXDOMAIN, 0)
    assert asked(host) == before


def test_the_way_out_of_one_network_serves_names_in_all_of_a_containers_networks(host: Host) -> None:
    assert resolve(host, "both", "www.example") == ["192.0.2.80"]
    assert resolve(host, "both", "c-hidden") == [address(host, "c-hidden")]
    assert resolve(host, "both", "c-front") == [address(host, "c-front")]


def test_neighbours_that_may_not_talk_to_each_other_still_ask_for_names(host: Host) -> None:
    assert resolve(host, "c-quiet", "c-quiet") == [address(host, "c-quiet")]
    assert resolve(host, "c-quiet", "www.example") == ["192.0.2.80"]
    assert resolve(host, "c-hidden", "c-hidden") == [address(host, "c-hidden")]


@pytest.mark.parametrize("how", ["udp", "tcp"])
def test_a_network_of_ipv6_alone_asks_over_ipv6(host: Host, how: str) -> None:
    own = address(host, "c-six", 6)
    assert data(ask(host, "c-six", SIX, "c-six", "AAAA", how=how)) == [own]
    assert inside(host, "c-six", "getent", "ahostsv6", "c-six").stdout.split()[0] == own


def test_a_container_of_another_network_gets_no_answer(host: Host) -> None:
    assert ask(host, "c-front", HIDDEN, "c-hidden", within=1) is None


def test_a_type_that_a_name_does_not_have_is_answered_empty_at_once(host: Host) -> None:
    reply = ask(host, "c-front", FRONT, "c-front", "AAAA")
    assert reply is not None
    assert (reply.rcode, reply.ancount) == (0, 0)


def test_a_dead_nameserver_is_not_waited_for(host: Host) -> None:
    # An address that takes packets and never answers: they are dropped on arrival, so that sending them is no error.
    host.run("ip", "address", "add", f"{DEAD}/32", "dev", "lo")
    host.run("nft", "add table inet t; add chain inet t i { type filter hook input priority 0; }")
    host.run("nft", f"add rule inet t i ip daddr {DEAD} drop")
    try:
        with resolver_of(host, f"nameserver {DEAD}\\nnameserver {UPSTREAM}\\n"):
            time.sleep(1.1)
            # Who waits for it says SERVFAIL in the end.
            assert data(ask(host, "c-front", FRONT, "some.example")) == ["192.0.2.80"]
    finally:
        host.run("nft", "delete table inet t")
        host.run("ip", "address", "delete", f"{DEAD}/32", "dev", "lo")


def test_a_container_may_have_its_own_nameserver_search_list_and_options(host: Host) -> None:
    host.run("sh", "-c", ": > /run/nameserver.log")
    options = ("--dns", OTHER, "--dns-search", "lab.example", "--dns-search", "z.example", "--dns-option", "timeout:3")
    run(host, "picky", "--network", "front", *options)
    conf = inside(host, "picky", "cat", "/etc/resolv.conf", check=True).stdout
    assert conf == f"nameserver {FRONT}\nsearch lab.example z.example\noptions timeout:3 ndots:0\n"
    with resolver_of(host, "nameserver 192.0.2.250\\n"):
        eventually(lambda: resolve(host, "picky", "mine.example") == ["192.0.2.80"])
        assert resolve(host, "picky", "c-front") == [address(host, "c-front")]
    netagent(host, "rm", "-f", "picky")


def test_a_network_may_have_its_own_nameserver_which_a_containers_own_comes_before(host: Host) -> None:
    netagent(host, "network", "create", "--subnet", "10.65.0.0/24", "--dns", OTHER, "asking")
    run(host, "theirs", "--network", "asking")
    run(host, "own", "--network", "asking", "--dns", UPSTREAM)
    with resolver_of(host, "nameserver 192.0.2.250\\n"):
        eventually(lambda: resolve(host, "theirs", "mine.example") == ["192.0.2.80"])
    netagent(host, "network", "update", "-o", "dns=192.0.2.250", "asking")
    eventually(lambda: resolve(host, "own", "mine.example") == ["192.0.2.80"])
    netagent(host, "network", "update", "-o", "dns=", "asking")
    eventually(lambda: resolve(host, "theirs", "mine.example") == ["192.0.2.80"])
    netagent(host, "rm", "-f", "theirs", "own")
    netagent(host, "network", "rm", "asking")


def test_an_internal_network_has_no_nameserver_but_one_of_its_own(host: Host) -> None:
    run(host, "server", "--network", "hidden", "--ip", "10.62.0.5")
    run(host, "near", "--network", "hidden", "--dns", "10.62.0.5")
    run(host, "far", "--network", "hidden", "--dns", OTHER)
    with nameserver(host, "10.62.0.5", sandbox=inspect(host, "server")["NetworkSettings"]["SandboxKey"]):
        eventually(lambda: resolve(host, "near", "inner.example") == ["192.0.2.80"])
        assert resolve(host, "far", "inner.example") == []
        assert resolve(host, "c-hidden", "inner.example") == []
    netagent(host, "rm", "-f", "server", "near", "far")


def test_a_container_takes_over_the_hosts_search_list(host: Host) -> None:
    run(host, "plain", "--network", "front")
    assert "search corp.example\n" in inside(host, "plain", "cat", "/etc/resolv.conf").stdout
    netagent(host, "rm", "-f", "plain")
    done = netagent(host, "run", "--rm", "--network", "front", "--dns-search", ".", "--", "cat", "/etc/resolv.conf")
    assert "search" not in done.stdout


@pytest.mark.parametrize("text", ["nameserver\\nnameserver 1.2.3\\nnameserver fe80::1%%nope0\\n\\001\\377", ""])
def test_a_broken_resolv_conf_fails_nothing(host: Host, text: str) -> None:
    with resolver_of(host, text):
        run(host, "hardy", "--network", "front")
        eventually(lambda: resolve(host, "hardy", "c-front") == [address(host, "c-front")])
        reply = ask(host, "hardy", FRONT, "www.example", within=5)
        assert reply is None or reply.rcode in (0, 2)
        netagent(host, "rm", "-f", "hardy")


def test_random_bytes_do_not_stop_the_answers(host: Host) -> None:
    before = host.run("cat", "/run/netagent/dns.pid").stdout
    throw = (
        "import os, random, socket\n"
        f"udp = socket.socket(type=socket.SOCK_DGRAM); udp.connect(('{FRONT}', 53))\n"
        "head = bytes.fromhex('000701000001000000000000')\n"
        "for n in range(5000): udp.send(random.choice((b'', head)) + os.urandom(random.randrange(200)))\n"
        "for n in range(40):\n"
        f"    with socket.create_connection(('{FRONT}', 53)) as tcp: tcp.send(os.urandom(random.randrange(200)))\n"
    )
    inside(host, "c-front", "/usr/bin/python3", "-Ic", throw, check=True)
    assert resolve(host, "c-front", "c-front") == [address(host, "c-front")]
    assert host.run("cat", "/run/netagent/dns.pid").stdout == before


def test_the_host_itself_resolves_containers_and_everything_else(host: Host) -> None:
    with resolver_of(host, f"nameserver 127.0.0.153\\nnameserver {UPSTREAM}\\n"):
        for name, expected in (("c-front", address(host, "c-front")), ("c-hidden.hidden", address(host, "c-hidden"))):
            eventually(lambda name=name, expected=expected: expected in host.run("getent", "hosts", name).stdout)
        eventually(lambda: "192.0.2.80" in host.run("getent", "ahostsv4", "www.example").stdout)
