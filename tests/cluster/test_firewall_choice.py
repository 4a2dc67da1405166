"""The firewall that the configuration names is the only one with anything of ours, and it is mended when flushed."""

import json
from functools import partial

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    dump,
    fetches,
    fetches_inside,
    netagent,
    pings,
    refusal,
    run,
    same,
    serve_name,
)
from tests.support.lab import MakeLab, configure_firewall, eventually

pytestmark = pytest.mark.cluster

SAVES = (
    "iptables-nft-save",
    "ip6tables-nft-save",
    "ebtables-nft-save",
    "iptables-legacy-save",
    "ip6tables-legacy-save",
)
REPAIRED_WITHIN_S = 30.0
"""At once, and on a busy machine; without a reason the agent looks every five minutes."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab) -> Lab:
    lab = make_lab(hosts=2, firewall="iptables")
    (h1, _) = lab.hosts
    netagent(h1, "network", "create", "--driver", "vxlan", "--subnet", "192.168.0.0/16", "app")
    netagent(h1, "network", "create", "--ipv6", "other")
    serve_name(h1, "web", "--network", "app", "-p", "4000:80")
    run(h1, "neighbour", "--network", "app")
    run(h1, "stranger", "--network", "other")
    return lab


def _ours_in_iptables(host: Host, *saves: str) -> list[str]:
    """Return the lines that are netagent's, without the members of ipsets that count: packets make those."""
    lines = [line for save in saves or SAVES for line in host.run(save).stdout.splitlines()]
    members = [line for line in host.run("ipset", "save").stdout.splitlines() if " packets " not in line]
    return sorted(line for line in (*lines, *members) if "NETAGENT" in line)


def _ours_in_nftables(host: Host) -> list[str]:
    return [line for line in host.run("nft", "list", "tables").stdout.splitlines() if "netagent" in line]


def _is_kept(lab: Lab) -> bool:
    """Tell whether everything that is promised holds: published, masqueraded, isolated."""
    h1, h2 = lab.hosts
    url = f"http://{h1.ip}:4000/hostname"
    web = netagent(h1, "inspect", "--format", "{{.NetworkSettings.IPAddress}}", "web").stdout.strip()
    return (
        fetches(h2, url, "web")
        and fetches(h1, "http://127.0.0.1:4000/hostname", "web")
        and fetches_inside(h1, "neighbour", url, "web")
        and pings(h1, "stranger", str(h2.ip))
        and not pings(h1, "stranger", web)
    )


def test_with_iptables_there_is_no_table_of_ours_in_nftables(lab: Lab) -> None:
    (h1, _) = lab.hosts
    assert _ours_in_iptables(h1, "iptables-nft-save")
    assert not _ours_in_nftables(h1)
    assert _is_kept(lab)


@pytest.mark.parametrize(
    "command",
    [
        "iptables -t mangle -F",
        "iptables -t nat -F",
        "iptables -t mangle -D FORWARD -j NETAGENT-FORWARD",
        "ip6tables -t raw -F NETAGENT-SOURCES",
        "ebtables -t nat -F",
        "iptables -t nat -A NETAGENT-PORTS -p tcp --dport 4000 -j RETURN",
        "nft flush ruleset",
        # The ipsets first: the kernel tells nobody of their changes, but a table's flush makes the agent look at all.
        "ipset flush; for t in raw mangle nat filter; do iptables -t $t -F; iptables -t $t -X; done",
    ],
)
def test_what_others_flush_is_back_at_once(lab: Lab, command: str) -> None:
    (h1, h2) = lab.hosts
    eventually(lambda: fetches(h2, f"http://{h1.ip}:4000/hostname", "web"))
    before = _ours_in_iptables(h1)
    h1.run("sh", "-ec", command)
    eventually(lambda: _ours_in_iptables(h1) == before, within=REPAIRED_WITHIN_S)
    assert fetches(h2, f"http://{h1.ip}:4000/hostname", "web")


def test_an_accept_of_others_opens_nothing_of_ours(lab: Lab) -> None:
    (h1, _) = lab.hosts
    h1.run("iptables", "-I", "FORWARD", "1", "-j", "ACCEPT")
    try:
        assert _is_kept(lab)
    finally:
        h1.run("iptables", "-D", "FORWARD", "-j", "ACCEPT")


def test_rules_of_the_administrator_stay_before_those_of_docker(lab: Lab) -> None:
    (h1, _) = lab.hosts
    h1.run("iptables", "-N", "DOCKER-USER")
    h1.run("iptables", "-I", "FORWARD", "1", "-j", "DOCKER-USER")
    try:
        eventually(lambda: _jumps(h1)[:2] == ["NETAGENT-ADMIN-FORWARD", "DOCKER-USER"], within=REPAIRED_WITHIN_S)
    finally:
        h1.run("iptables", "-D", "FORWARD", "-j", "DOCKER-USER")
        # In one step: the agent puts its marks back where they were taken away.
        h1.run("iptables-restore", "--noflush", stdin="*filter\n-F DOCKER-USER\n-X DOCKER-USER\nCOMMIT\n")


def _jumps(host: Host) -> list[str]:
    return [line.split()[-1] for line in host.run("iptables", "-S", "FORWARD").stdout.splitlines() if " -j " in line]


def test_rules_of_the_administrator_come_first_and_stay(lab: Lab) -> None:
    (h1, h2) = lab.hosts
    rule = ("NETAGENT-ADMIN-FORWARD", "-s", str(h2.ip), "-p", "tcp", "-m", "conntrack", "--ctorigdstport", "4000")
    h1.run("iptables", "-A", *rule, "-j", "DROP")
    try:
        h1.run("iptables", "-t", "mangle", "-F", "NETAGENT-FORWARD")
        h1.agent.restart()
        eventually(partial(fetches_inside, h1, "neighbour", f"http://{h1.ip}:4000/hostname", "web"))
        assert not fetches(h2, f"http://{h1.ip}:4000/hostname", "web")
    finally:
        h1.run("iptables", "-D", *rule, "-j", "DROP")
    assert _is_kept(lab)


def test_a_start_with_another_firewall_leaves_nothing_of_the_former(lab: Lab) -> None:
    for firewall in ("nftables", "iptables-legacy", "nftables", "iptables", "iptables-legacy", "iptables"):
        _start_with(lab.hosts[0], firewall)
        assert _is_kept(lab), firewall


def test_a_lock_that_another_program_holds_is_named_and_nothing_is_half_done(lab: Lab) -> None:
    (h1, _) = lab.hosts
    _start_with(h1, "iptables-legacy")
    before, rules = dump(h1), _ours_in_iptables(h1)
    holder = h1.popen("flock", "-F", "/run/xtables.lock", "sleep", "infinity")
    try:
        eventually(lambda: h1.run("flock", "-n", "/run/xtables.lock", "true", check=False).returncode)
        said = refusal(h1, "run", "-d", "--name", "new", "--network", "app", "-p", "4001:80", "--", "true", status=125)
        assert f"/run/xtables.lock, which sleep (pid {holder.pid}) holds" in said
        assert "new" not in netagent(h1, "ps", "-a").stdout
    finally:
        holder.kill()
        holder.wait()
    eventually(lambda: same(h1, before) and _ours_in_iptables(h1) == rules)
    run(h1, "new", "--network", "app", "-p", "4001:80")
    assert pings(h1, "new", address(h1, "web"))


def _start_with(host: Host, firewall: str) -> None:
    """Start the agent anew with this firewall, and look whether anything is left of the one before."""
    host.agent.stop()
    configure_firewall(host, firewall)
    host.agent.start()
    assert bool(_ours_in_nftables(host)) == (firewall == "nftables")
    for flavour in ("nft", "legacy"):
        lines = [host.run(f"{family}-{flavour}-save").stdout for family in ("iptables", "ip6tables")]
        is_chosen = firewall == ("iptables" if flavour == "nft" else "iptables-legacy")
        assert ["NETAGENT" in text for text in lines] == [is_chosen, is_chosen]
    assert bool(_ours_in_iptables(host, "ebtables-nft-save")) == (firewall != "nftables")
    ports = [link["ifname"] for link in json.loads(host.run("ip", "-j", "link").stdout)]
    filters = [host.run("tc", "filter", "show", "dev", p, "ingress").stdout for p in ports if p.startswith("nae")]
    assert any("bpf" in text for text in filters) == (firewall != "nftables")
