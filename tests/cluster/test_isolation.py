"""Who reaches whom: networks, containers without ICC, internal networks, sources of a port; on either firewall."""

import json

import pytest

from netagent.lab.lab import Lab
from tests.support.hosts import (
    address,
    client_address_at,
    fetches,
    fetches_inside,
    inside,
    inspect,
    netagent,
    pings,
    run,
    serve_name,
    telling_client_addresses,
)
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

PASSED = ("RxBytes", "RxPackets", "TxBytes", "TxPackets")


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Lab:
    return make_lab(hosts=2, firewall=firewall)


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
def test_without_icc_containers_reach_each_other_only_through_published_ports(lab: Lab, bridge_filter: str) -> None:
    h1, h2 = lab.hosts
    for hooks in ("iptables", "ip6tables"):
        h1.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{hooks}={bridge_filter}")
    netagent(h1, "network", "create", "--ipv6", "-o", "com.docker.network.bridge.enable_icc=false", "quiet")
    serve_name(h1, "quiet-web", "--network", "quiet", "-p", "4700:80")
    run(h1, "quiet-client", "--network", "quiet")
    try:
        # With br_netfilter the kernel bridges the translated frames (br_nf_pre_routing_finish,
        # net/bridge/br_netfilter_hooks.c).
        for here in (str(h1.ip), f"[{h1.seat.ipv6}]"):
            for client in ("quiet-client", "quiet-web"):
                assert fetches_inside(h1, client, f"http://{here}:4700/hostname", "quiet-web"), (client, here)
            assert fetches(h2, f"http://{here}:4700/hostname", "quiet-web"), here
        assert pings(h1, "quiet-client", str(h2.ip))
        assert not pings(h1, "quiet-client", address(h1, "quiet-web"))
        assert not fetches_inside(h1, "quiet-client", f"http://{address(h1, 'quiet-web')}/hostname", "quiet-web")
        ipv6 = address(h1, "quiet-web", version=6)
        assert not fetches_inside(h1, "quiet-client", f"http://[{ipv6}]/hostname", "quiet-web")
    finally:
        netagent(h1, "rm", "-f", "quiet-web", "quiet-client")
        netagent(h1, "network", "rm", "quiet")


def test_without_icc_a_link_opens_what_its_target_serves_for_one_container_alone(lab: Lab) -> None:
    h1 = lab.hosts[0]
    netagent(h1, "network", "create", "--ipv6", "-o", "icc=false", "linked")
    server = "for port in 80 81 82; do busybox httpd -p [::]:$port -h /etc; done; exec sleep infinity"
    options = ("--network", "linked", "--expose", "80")
    run(h1, "store", *options, "-p", "4707:81", command=("sh", "-c", server), listens=82)
    run(h1, "other", "--network", "linked")
    run(h1, "linker", *options, "--link", "store:db", command=("sh", "-c", server), listens=82)

    def opened(client: str, target: str, *, version: int = 4) -> list[int]:
        at = address(h1, target, version=version)
        url = f"http://{at}" if version == 4 else f"http://[{at}]"
        ask = f"(curl -sf --connect-timeout 1 -m 30 -o /dev/null {url}:$port/hostname && echo $port) &"
        command = f"for port in 80 81 82; do {ask} done; wait"
        return sorted(int(port) for port in inside(h1, client, "sh", "-c", command).stdout.split())

    def named_together(*addresses: str) -> list[str]:
        rules = h1.run("nft", "list", "ruleset").stdout.splitlines()
        return [line for line in rules if all(f"{given} " in line for given in addresses)]

    try:
        for bridge_filter in ("0", "1"):
            for hooks in ("iptables", "ip6tables"):
                h1.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-{hooks}={bridge_filter}")
            for version in (4, 6):
                eventually(lambda version=version: opened("linker", "store", version=version) == [80, 81])
                assert opened("other", "store", version=version) == []
                assert opened("store", "linker", version=version) == []
        netagent(h1, "publish", "store", "4708:82")
        eventually(lambda: opened("linker", "store") == [80, 81, 82])
        netagent(h1, "restart", "-t", "0", "store")
        eventually(lambda: opened("linker", "store") == [80, 81, 82])
        pair = address(h1, "linker"), address(h1, "store")
        assert named_together(*pair)
        netagent(h1, "rm", "-f", "store")
        eventually(lambda: not named_together(*pair))
    finally:
        netagent(h1, "rm", "-f", "store", "linker", "other")
        netagent(h1, "network", "rm", "linked")


def test_without_masquerade_the_outside_sees_the_containers_address(lab: Lab) -> None:
    h1, h2 = lab.hosts
    netagent(h1, "network", "create", "--subnet", "10.23.0.0/24", "-o", "masquerade=false", "plainly")
    run(h1, "unmasked", "--network", "plainly")
    h2.run("ip", "route", "replace", "10.23.0.0/24", "via", str(h1.ip))
    try:
        with telling_client_addresses(h2, 7778):
            seen = inside(h1, "unmasked", *client_address_at(str(h2.ip), 7778)).stdout.strip()
        assert seen == address(h1, "unmasked")
    finally:
        h2.run("ip", "route", "del", "10.23.0.0/24")
        netagent(h1, "rm", "-f", "unmasked")
        netagent(h1, "network", "rm", "plainly")


@pytest.mark.parametrize("bridge_filter", ["0", "1"])
def test_an_internal_network_has_no_outside(lab: Lab, bridge_filter: str) -> None:
    h1, h2 = lab.hosts
    h1.run("sysctl", "-qw", f"net.bridge.bridge-nf-call-iptables={bridge_filter}")
    netagent(h1, "network", "create", "--internal", "--subnet", "10.24.0.0/24", "closed")
    serve_name(h1, "closed-web", "--network", "closed", "-p", "4702:80")
    run(h1, "closed-client", "--network", "closed")
    h2.run("ip", "route", "replace", "10.24.0.0/24", "via", str(h1.ip))
    try:
        assert fetches_inside(h1, "closed-client", f"http://{address(h1, 'closed-web')}/hostname", "closed-web")
        assert not pings(h1, "closed-client", str(h2.ip))
        assert h2.run("ping", "-c", "1", "-W", "1", address(h1, "closed-web"), check=False).returncode != 0
        assert not fetches(h2, f"http://{h1.ip}:4702/hostname", "closed-web")
    finally:
        h2.run("ip", "route", "del", "10.24.0.0/24")
        netagent(h1, "rm", "-f", "closed-web", "closed-client")
        netagent(h1, "network", "rm", "closed")


@pytest.mark.parametrize("version", [4, 6])
def test_what_passes_a_published_port_is_counted_whoever_asks(lab: Lab, version: int) -> None:
    h1, h2 = lab.hosts
    here = str(h1.ip) if version == 4 else f"[{h1.seat.ipv6}]"
    netagent(h1, "network", "create", "--subnet", "10.26.0.0/24", "--subnet", "fd00:26::/64", "counted")
    ports = ("-p", "4704:80", "-p", "4705-4706:81-82")
    serve_name(h1, "counted-web", "--network", "counted", *ports)
    sandbox = inspect(h1, "counted-web")["NetworkSettings"]["SandboxKey"]
    run(h1, "counted-client", "--network", "counted")

    def passed() -> dict[str, dict[str, int]]:
        row = json.loads(netagent(h1, "stats", "--format", "json", "counted-web").stdout)
        return dict(row["Ports"])

    def is_over() -> bool:
        """Tell whether the server's connections have ended: their last packets come after the answer."""
        connected = ("ss", "-Htn", "state", "connected", "exclude", "time-wait")
        return not h1.run("nsenter", f"--net={sandbox}", *connected).stdout

    try:
        assert passed() == dict.fromkeys(("80/tcp", "81/tcp", "82/tcp"), dict.fromkeys(PASSED, 0))
        url, seen = f"http://{here}:4704/hostname", 0
        clients = (
            lambda: fetches(h2, url, "counted-web"),
            lambda: fetches(h1, url, "counted-web"),
            lambda: fetches_inside(h1, "counted-client", url, "counted-web"),
        )
        for ask in clients:
            assert ask()
            eventually(is_over)
            web = passed()["80/tcp"]
            assert web["RxPackets"] >= seen + 4, web
            assert web["TxPackets"] >= seen / 2 + 2, web
            assert web["RxBytes"] >= 40 * web["RxPackets"]
            assert web["TxBytes"] >= 40 * web["TxPackets"]
            seen = web["RxPackets"]
        assert passed()["81/tcp"] == dict.fromkeys(PASSED, 0)
        target = address(h1, "counted-web", version=version)
        assert fetches(h1, f"http://{target if version == 4 else f'[{target}]'}/hostname", "counted-web")
        assert passed()["80/tcp"]["RxPackets"] == seen, "that was not by the published port"
    finally:
        netagent(h1, "rm", "-f", "counted-web", "counted-client")
        netagent(h1, "network", "rm", "counted")


@pytest.mark.parametrize("version", [4, 6])
def test_only_the_sources_of_a_port_reach_it(lab: Lab, version: int) -> None:
    h1, h2 = lab.hosts
    here, there = (str(host.ip) if version == 4 else str(host.seat.ipv6) for host in (h1, h2))
    url = f"http://{here}:4703/hostname" if version == 4 else f"http://[{here}]:4703/hostname"
    netagent(h1, "network", "create", "--subnet", "10.25.0.0/24", "--subnet", "fd00:25::/64", "sourced")
    serve_name(h1, "secret", "--network", "sourced", "-p", f"4703:80@{there}")
    run(h1, "sourced-client", "--network", "sourced")
    try:
        assert fetches(h2, url, "secret")
        assert not fetches(h1, url, "secret")
        assert not fetches_inside(h1, "sourced-client", url, "secret")
    finally:
        netagent(h1, "rm", "-f", "secret", "sourced-client")
        netagent(h1, "network", "rm", "sourced")


def test_containers_are_reached_by_their_own_addresses_where_their_network_says_so(lab: Lab) -> None:
    h1, h2 = lab.hosts
    option = "com.docker.network.bridge.gateway_mode_ipv4"
    netagent(h1, "network", "create", "--subnet", "10.61.0.0/24", "-o", f"{option}=routed", "direct")
    netagent(h1, "network", "create", "--subnet", "10.62.0.0/24", "elsewhere")
    run(h1, "stranger", "--network", "elsewhere")
    serve_name(h1, "open", "--network", "direct", "-p", "4780:80")
    serve_name(h1, "shut", "--network", "direct")
    serve_name(h1, "mine", "--network", "direct", "-p", f"4781:80@{h1.ip},10.62.0.0/24")
    opened, shut, mine = (f"http://{address(h1, name)}/hostname" for name in ("open", "shut", "mine"))
    before, by_host = address(h1, "open"), f"http://{h1.ip}:4780/hostname"

    def reaches(url: str) -> bool:
        return h2.run("curl", "-s", "-m", "1", url, check=False).returncode == 0

    h2.run("ip", "route", "add", "10.61.0.0/24", "via", str(h1.ip))
    try:
        assert netagent(h1, "port", "open").stdout == ""
        assert netagent(h1, "ps", "-f", "name=^open$", "--format", "{{.Ports}}").stdout == "80/tcp\n"
        assert fetches(h2, opened, "open")
        assert fetches_inside(h1, "stranger", opened, "open")
        assert not reaches(by_host)
        assert not reaches(shut)
        assert not reaches(mine)
        assert fetches_inside(h1, "stranger", mine, "mine")
        with telling_client_addresses(h2, 4790):
            assert inside(h1, "open", *client_address_at(str(h2.ip), 4790)).stdout.strip() == before
        ways = json.loads(netagent(h1, "exposure", "--format", "json").stdout)["Ways"]
        direct = [way["Rule"] for way in ways if way["Container"] == "open" and " served4 " in way["Rule"]]
        assert direct == [f"inet netagent served4 {{ 0.0.0.0/0 . {before} . tcp . 80 }}"]

        netagent(h1, "network", "update", "-o", f"{option}=nat-unprotected", "direct")
        assert fetches(h2, by_host, "open")
        assert fetches(h2, shut, "shut")
        assert inside(h1, "stranger", "curl", "-s", "-m", "1", shut).returncode != 0

        netagent(h1, "network", "update", "-o", f"{option}=", "-o", "trusted_host_interfaces=eth0:eth9", "direct")
        assert fetches(h2, shut, "shut")
        netagent(h1, "network", "update", "-o", "trusted_host_interfaces=", "direct")
        assert not reaches(shut)
        assert not reaches(opened)
        assert fetches(h2, by_host, "open")
    finally:
        h2.run("ip", "route", "del", "10.61.0.0/24")
        netagent(h1, "rm", "-f", "open", "shut", "mine", "stranger")
        netagent(h1, "network", "rm", "direct", "elsewhere")
