"""``netagent exposure`` beside what packets do: what it calls reachable is reached, what it calls blocked is not."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, fetches, inside, netagent, pings, run, serve_name
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

OTHERS = ("inet", "others")


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2)
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "staticnet")
    netagent(h1, "network", "create", "--internal", "closed")
    netagent(h1, "network", "create", "--opt", "icc=false", "apart")
    eventually(lambda: "staticnet" in netagent(h2, "network", "ls").stdout)
    serve_name(h1, "web", "--network", "staticnet", "-p", "4000:80")
    serve_name(h1, "local", "--network", "apart", "-p", "127.0.0.1:4001:80")
    serve_name(h1, "inner", "--network", "closed", "-p", "4002:80")
    run(h2, "remote", "--network", "staticnet")
    eventually(lambda: pings(h2, "remote", address(h1, "web")))
    return lab


@pytest.fixture(autouse=True)
def _nobody_else(lab: Lab) -> Iterator[None]:
    yield
    h1 = lab.hosts[0]
    h1.run("nft", "flush", "table", "inet", "netagent-admin")
    h1.run("nft", "delete", "table", *OTHERS, check=False)


def _view(host: Host) -> dict[str, Any]:
    view: dict[str, Any] = json.loads(netagent(host, "exposure", "--format", "json").stdout)
    return view


def _ways(host: Host, container: str) -> list[dict[str, Any]]:
    return [way for way in _view(host)["Ways"] if way["Container"] == container]


def _block(host: Host, hook: str, *rules: str, policy: str = "accept") -> None:
    lines = (f"type filter hook {hook} priority 5; policy {policy}", *rules)
    table = "\n".join((f"table {' '.join(OTHERS)} {{", "chain block {", *lines, "}", "}", ""))
    host.run("nft", "-f", "-", stdin=table)


def _fetches_from(host: Host, name: str, target: str) -> bool:
    """Tell whether a container gets the page of another one."""
    curl = ("curl", "-s", "--connect-timeout", "1", "-m", "30")
    return inside(host, name, *curl, f"http://{target}/hostname").returncode == 0


def test_a_published_port_is_shown_with_the_element_that_opens_it(lab: Lab) -> None:
    h1, h2 = lab.hosts
    published, network = _ways(h1, "web")
    assert (published["ReachableFrom"], published["Address"], published["Ports"]) == ("anywhere", "0.0.0.0", "4000")
    assert published["BlockedBy"] == []
    table, name, element = "inet netagent", "publish4", f"tcp . 4000 : {address(h1, 'web')} . 80"
    assert published["Rule"] == f"{table} {name} {{ {element} }}"
    assert element in h1.run("nft", "list", "map", *table.split(), name).stdout
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    assert (network["ReachableFrom"], network["Hosts"]) == ("network", ["h2"])
    eventually(lambda: _fetches_from(h2, "remote", address(h1, "web")))


def test_loopback_ports_internal_networks_and_icc_are_told_apart(lab: Lab) -> None:
    h1, h2 = lab.hosts
    (local,) = _ways(h1, "local")
    assert (local["ReachableFrom"], local["Address"]) == ("this host", "127.0.0.1")
    published, _ = _ways(h1, "inner")
    assert published["BlockedBy"] == [{"Where": "inet netagent forward: oifname @internal drop", "Certain": True}]
    assert not fetches(h2, f"http://{h1.ip}:4002/hostname", "inner")


def test_a_link_without_icc_is_shown_with_who_has_it(lab: Lab) -> None:
    (h1, _) = lab.hosts
    run(h1, "caller", "--network", "apart", "--link", "local:store")
    try:
        (linked,) = (way for way in _ways(h1, "local") if way["ReachableFrom"] == "container caller")
        source, target = address(h1, "caller"), address(h1, "local")
        assert (linked["Address"], linked["Ports"], linked["BlockedBy"]) == (target, "80", [])
        assert linked["Rule"] == f"inet netagent linked4 {{ {source} . {target} . tcp . 80 }}"
        eventually(lambda: _fetches_from(h1, "caller", target))
    finally:
        netagent(h1, "rm", "-f", "caller")


def test_a_rule_of_the_administrator_for_one_client_is_a_maybe(lab: Lab) -> None:
    (h1, _) = lab.hosts
    rule = "ip saddr 203.0.113.7 meta l4proto tcp ct original proto-dst 4000 drop"
    h1.run("nft", "add", "rule", "inet", "netagent-admin", "forward", *rule.split())
    published, _ = _ways(h1, "web")
    assert published["BlockedBy"] == [{"Where": f"inet netagent-admin forward: {rule}", "Certain": False}]


def test_a_drop_in_another_table_is_named_and_blocks(lab: Lab) -> None:
    h1, h2 = lab.hosts
    _block(h1, "forward", "ct state established accept", policy="drop")
    published, network = _ways(h1, "web")
    expected = [{"Where": "inet others block: policy drop", "Certain": True}]
    assert published["BlockedBy"] == network["BlockedBy"] == expected
    assert not fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    assert not _fetches_from(h2, "remote", address(h1, "web"))
    warnings = netagent(h1, "exposure").stderr
    assert "warning: traffic from network apart to the outside is blocked by inet others block: policy drop" in warnings


def test_a_drop_of_iptables_legacy_is_named_and_blocks(lab: Lab) -> None:
    h1, h2 = lab.hosts
    rule = ("FORWARD", "-o", "na+", "-p", "tcp", "-m", "conntrack", "--ctorigdstport", "4000", "-j", "DROP")
    h1.run("iptables-legacy", "-A", *rule)
    try:
        published, network = _ways(h1, "web")
        where = "ip filter (legacy) FORWARD: -o na+ -p tcp -m conntrack --ctorigdstport 4000 -j DROP"
        assert published["BlockedBy"] == [{"Where": where, "Certain": True}]
        assert network["BlockedBy"] == [{"Where": where, "Certain": False}], "its ports and protocols are any"
        assert not fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    finally:
        h1.run("iptables-legacy", "-D", *rule)
    assert _ways(h1, "web")[0]["BlockedBy"] == []
    assert _view(h1)["Warnings"] == []


def test_blocked_tunnels_are_warned_of(lab: Lab) -> None:
    h1, h2 = lab.hosts
    _block(h1, "input", "udp dport 4789 drop")
    assert _view(h1)["Warnings"] == ["VXLAN from other hosts is blocked by inet others block: udp dport 4789 drop"]
    assert not _fetches_from(h2, "remote", address(h1, "web"))
