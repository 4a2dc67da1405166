"""Which address the outside sees: exempted destinations, and an address of the host that was chosen."""

from collections.abc import Iterator
from ipaddress import IPv6Address

import pytest

from netagent.lab.host import Host
from netagent.lab.lab import Lab
from tests.support.hosts import address, inside, netagent, refusal, run
from tests.support.lab import MakeLab, eventually

pytestmark = pytest.mark.cluster

CHOSEN = {4: "198.19.9.9", 6: "fd99::9"}
FAR = {4: "198.19.8.8", 6: "fd98::8"}
"""An address of the other host that is exempted; its usual ones are not."""


@pytest.fixture(scope="module")
def lab(make_lab: MakeLab, firewall: str) -> Iterator[Lab]:
    lab = make_lab(hosts=2, firewall=firewall)
    h1, h2 = lab.hosts
    h1.run("ip", "address", "add", f"{CHOSEN[4]}/32", "dev", "lo")
    h1.run("ip", "address", "add", f"{CHOSEN[6]}/128", "dev", "lo", "nodad")
    h2.run("ip", "address", "add", f"{FAR[4]}/32", "dev", "lo")
    h2.run("ip", "address", "add", f"{FAR[6]}/128", "dev", "lo", "nodad")
    for version, subnet in ((4, "10.33.0.0/24"), (6, "fd33::/64")):
        near = {4: (h1.ip, h2.ip), 6: (h1.seat.ipv6, h2.seat.ipv6)}[version]
        family = f"-{version}"
        h1.run("ip", family, "route", "add", FAR[version], "via", str(near[1]))
        h2.run("ip", family, "route", "add", CHOSEN[version], "via", str(near[0]))
        h2.run("ip", family, "route", "add", subnet, "via", str(near[0]))
    options = (
        *("--subnet", "10.33.0.0/24", "--subnet", "fd33::/64"),
        *("--opt", f"masquerade_except={FAR[4]}/32,198.19.8.0/29,{FAR[6]}/128"),
        *("--opt", f"outbound_address={CHOSEN[4]},{CHOSEN[6]}"),
    )
    netagent(h1, "network", "create", *options, "chosen")
    run(h1, "one", "--network", "chosen")
    server = h2.popen("socat", "-t", "30", "TCP6-LISTEN:7790,fork,reuseaddr,ipv6only=0", "SYSTEM:echo $SOCAT_PEERADDR")
    eventually(lambda: ":7790 " in h2.run("ss", "-Hlnt").stdout)
    yield lab
    server.kill()
    server.wait()


def _seen(host: Host, target: str) -> str:
    """Return the address that the other host sees of a container that connects to ``target``."""
    where = f"TCP6:[{target}]" if ":" in target else f"TCP4:{target}"
    answer = inside(host, "one", "socat", "-t", "30", "-", f"{where}:7790,connect-timeout=30").stdout.strip()
    # The server listens on IPv6 for both.
    found = IPv6Address(answer.strip("[]"))
    return str(found.ipv4_mapped or found)


@pytest.mark.parametrize("version", [4, 6])
def test_the_outside_sees_the_chosen_address(lab: Lab, version: int) -> None:
    h1, h2 = lab.hosts
    assert _seen(h1, str(h2.ip if version == 4 else h2.seat.ipv6)) == CHOSEN[version]


@pytest.mark.parametrize("version", [4, 6])
def test_an_exempted_destination_sees_the_containers_own(lab: Lab, version: int) -> None:
    h1, _ = lab.hosts
    assert _seen(h1, FAR[version]) == address(h1, "one", version)


def test_both_are_changed_while_the_network_is_in_use(lab: Lab) -> None:
    h1, h2 = lab.hosts
    given = f"outbound_address={CHOSEN[4]},{CHOSEN[6]}"
    netagent(h1, "network", "update", "--opt", "outbound_address=", "--opt", "masquerade_except=", "chosen")
    try:
        assert _seen(h1, str(h2.ip)) == str(h1.ip)
        assert _seen(h1, FAR[4]) == str(h1.ip)
    finally:
        exempted = f"masquerade_except={FAR[4]}/32,198.19.8.0/29,{FAR[6]}/128"
        netagent(h1, "network", "update", "--opt", given, "--opt", exempted, "chosen")
    assert _seen(h1, str(h2.ip)) == CHOSEN[4]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("masquerade_except=0.0.0.0/0",), "invalid value for option masquerade_except: 0.0.0.0/0 is everything"),
        (("outbound_address=127.0.0.1",), "invalid value for option outbound_address: 127.0.0.1"),
        (("outbound_address=198.18.0.1,198.18.0.2",), "option outbound_address names more than one address"),
        (("outbound_address=198.18.0.1", "masquerade=false"), "option outbound_address needs masquerade=true"),
    ],
)
def test_what_cannot_be_is_refused(lab: Lab, options: tuple[str, ...], said: str) -> None:
    words = [word for option in options for word in ("--opt", option)]
    assert refusal(lab.hosts[0], "network", "create", *words, "wrong").startswith(said)


def test_an_address_of_one_host_is_refused_for_a_network_of_many(lab: Lab) -> None:
    words = refusal(lab.hosts[0], "network", "create", "-d", "vxlan", "--opt", f"outbound_address={CHOSEN[4]}", "wide")
    assert words == "option outbound_address does not work with the driver vxlan (use the driver bridge)"
