"""What is answered to whom: a table of questions, with scapy reading the replies."""

import pytest
from scapy.layers.dns import DNS, DNSQR, DNSRROPT

from netagent.dns.answer import answer
from netagent.dns.control import NameRecord, NetworkRecord
from netagent.dns.message import EDNS_SIZE, TCP_SIZE, parse_query
from netagent.dns.zone import View, Zones

FRONT = NetworkRecord(id="f", name="front", prefixes=("10.1.0.0/16",), gateways=("10.1.0.1",), internal=False)
BACK = NetworkRecord(
    id="b", name="back", prefixes=("10.2.0.0/16", "fd00:2::/64"), gateways=("10.2.0.1", "fd00:2::1"), internal=True
)
WEB = NameRecord(
    id="1",
    network="f",
    container="cw",
    names=("Web", "www", "*.app", "0123456789ab"),
    addresses=("10.1.0.5",),
    ports=((80, "tcp"),),
)
GATE_FRONT = NameRecord(id="2", network="f", container="cg", names=("gate",), addresses=("10.1.0.6",))
GATE_BACK = NameRecord(id="3", network="b", container="cg", names=("gate",), addresses=("10.2.0.6", "fd00:2::6"))
DB = NameRecord(id="4", network="b", container="cd", names=("db",), addresses=("10.2.0.7", "fd00:2::7"))

OWN = "127.0.0.153"
HOST = (OWN, "127.0.0.1")
IN_FRONT = ("10.1.0.1", "10.1.0.5")
IN_BACK = ("10.2.0.1", "10.2.0.7")
IN_BOTH = ("10.2.0.1", "10.2.0.6")
NXDOMAIN = "NXDOMAIN"
FORWARDED = "forwarded"
REVERSE_DB = "7.0.2.10.in-addr.arpa"
REVERSE_DB_6 = "7" + ".0" * 23 + ".2.0.0.0.0.0.d.f.ip6.arpa"


@pytest.fixture
def zones() -> Zones:
    zones = Zones()
    zones.set_networks((FRONT, BACK), private=(*FRONT.prefixes, *BACK.prefixes, "10.3.0.0/16"), own=(OWN,))
    for record in (WEB, GATE_FRONT, GATE_BACK, DB):
        zones.put(record)
    return zones


def view(zones: Zones, client: tuple[str, str] = IN_FRONT) -> View:
    found = zones.view(*client)
    assert found is not None
    return found


def ask(
    zones: Zones, name: str, kind: str = "A", client: tuple[str, str] = IN_FRONT, limit: int = TCP_SIZE
) -> DNS | None:
    query = parse_query(bytes(DNS(id=7, rd=1, qd=DNSQR(qname=name, qtype=kind))))
    reply = answer(query, view(zones, client), limit=limit, shuffle=lambda _: None)
    return None if reply is None else DNS(reply)


def sharer(number: int) -> NameRecord:
    return NameRecord(id=f"s{number}", network="f", container="s", names=("all",), addresses=(f"10.1.1.{number}",))


def said(reply: DNS | None) -> list[str] | str:
    if reply is None:
        return FORWARDED
    if reply.rcode:
        return {3: NXDOMAIN}.get(reply.rcode, str(reply.rcode))
    records = [reply.an[index] for index in range(reply.ancount)]
    assert all(record.ttl == 5 for record in records)
    return [
        f"{r.port} {r.target.decode()}" if r.type == 33 else r.rdata.decode() if r.type == 12 else r.rdata
        for r in records
    ]


@pytest.mark.parametrize(
    ("name", "kind", "client", "expected"),
    [
        ("web", "A", IN_FRONT, ["10.1.0.5"]),
        ("WWW", "A", IN_FRONT, ["10.1.0.5"]),
        ("0123456789ab", "A", IN_FRONT, ["10.1.0.5"]),
        ("web.front", "A", IN_FRONT, ["10.1.0.5"]),
        ("one.app", "A", IN_FRONT, ["10.1.0.5"]),
        ("a.one.app", "A", IN_FRONT, ["10.1.0.5"]),
        ("app", "A", IN_FRONT, NXDOMAIN),
        ("web", "AAAA", IN_FRONT, []),
        ("web", "MX", IN_FRONT, []),
        ("db", "AAAA", IN_BACK, ["fd00:2::7"]),
        ("db", "A", ("fd00:2::1", "fd00:2::7"), ["10.2.0.7"]),
        ("db", "ALL", IN_BACK, ["10.2.0.7"]),
        ("db", "A", IN_FRONT, NXDOMAIN),
        ("web", "A", IN_BACK, NXDOMAIN),
        ("web", "A", IN_BOTH, ["10.1.0.5"]),
        ("db", "A", ("10.1.0.1", "10.1.0.6"), ["10.2.0.7"]),
        ("gate", "A", IN_FRONT, ["10.1.0.6"]),
        ("gate", "A", IN_BACK, ["10.2.0.6"]),
        ("web", "A", ("10.1.0.1", "10.1.0.1"), ["10.1.0.5"]),
        ("nothing", "A", IN_FRONT, NXDOMAIN),
        ("nothing", "MX", IN_FRONT, NXDOMAIN),
        ("example.org", "A", IN_FRONT, FORWARDED),
        ("example.org", "A", IN_BACK, NXDOMAIN),
        ("example.org", "A", IN_BOTH, FORWARDED),
        (REVERSE_DB, "PTR", IN_BACK, ["db."]),
        (REVERSE_DB_6, "PTR", IN_BACK, ["db."]),
        (REVERSE_DB, "A", IN_BACK, []),
        (REVERSE_DB, "PTR", IN_FRONT, NXDOMAIN),
        ("1.1.3.10.in-addr.arpa", "PTR", IN_FRONT, NXDOMAIN),
        ("1.3.10.in-addr.arpa", "SOA", IN_FRONT, NXDOMAIN),
        ("lb._dns-sd._udp.0.0.3.10.in-addr.arpa", "PTR", IN_FRONT, NXDOMAIN),
        ("10.in-addr.arpa", "SOA", IN_FRONT, FORWARDED),
        ("1.1.4.10.in-addr.arpa", "PTR", IN_FRONT, FORWARDED),
        ("0.0.2.0.0.0.0.0.d.f.ip6.arpa", "NS", IN_FRONT, FORWARDED),
        ("0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa", "NS", IN_FRONT, FORWARDED),
        ("0.0.0.0.0.0.0.0.0.2.0.0.0.0.0.d.f.ip6.arpa", "NS", IN_FRONT, NXDOMAIN),
        ("web", "A", HOST, ["10.1.0.5"]),
        ("db", "A", HOST, ["10.2.0.7"]),
        (REVERSE_DB, "PTR", HOST, ["db."]),
        ("nothing", "A", HOST, NXDOMAIN),
        ("example.org", "A", HOST, FORWARDED),
        ("9.0.1.10.in-addr.arpa", "PTR", IN_FRONT, NXDOMAIN),
        ("8.8.8.8.in-addr.arpa", "PTR", IN_FRONT, FORWARDED),
        ("_80._tcp.web", "SRV", IN_FRONT, ["80 Web."]),
        ("_80._udp.web", "SRV", IN_FRONT, NXDOMAIN),
        ("_81._tcp.web", "SRV", IN_FRONT, NXDOMAIN),
        ("_80._tcp.nothing", "SRV", IN_FRONT, NXDOMAIN),
        ("_80._tcp.example.org", "SRV", IN_FRONT, FORWARDED),
    ],
)
def test_an_answer_depends_on_name_type_and_client(
    zones: Zones, name: str, kind: str, client: tuple[str, str], expected: list[str] | str
) -> None:
    assert said(ask(zones, name, kind, client)) == expected


@pytest.mark.parametrize(
    "client", [("10.1.0.1", "192.0.2.9"), ("10.1.0.1", "10.2.0.7"), ("10.9.0.1", "10.1.0.5"), (OWN, "10.1.0.5")]
)
def test_whoever_is_not_in_the_network_gets_no_answer(zones: Zones, client: tuple[str, str]) -> None:
    assert zones.view(*client) is None


def test_all_who_share_a_name_are_told_in_any_order(zones: Zones) -> None:
    for number in range(3):
        zones.put(
            NameRecord(id=f"s{number}", network="f", container="s", names=("all",), addresses=(f"10.1.1.{number}",))
        )
    query = parse_query(bytes(DNS(qd=DNSQR(qname="all"))))
    reply = answer(query, view(zones), limit=512, shuffle=lambda addresses: addresses.reverse())
    assert said(DNS(reply)) == ["10.1.1.2", "10.1.1.1", "10.1.1.0"]


def test_an_answer_that_does_not_fit_is_cut_and_says_so(zones: Zones) -> None:
    for number in range(100):
        zones.put(
            NameRecord(id=f"s{number}", network="f", container="s", names=("all",), addresses=(f"10.1.1.{number}",))
        )
    for size, expected in ((None, 512), (4096, EDNS_SIZE), (600, 600)):
        ar = [DNSRROPT(rclass=size)] if size else []
        query = parse_query(bytes(DNS(qd=DNSQR(qname="all"), ar=ar)))
        assert query.udp_limit == expected
        reply = answer(query, view(zones), limit=query.udp_limit, shuffle=lambda _: None)
        assert reply is not None
        assert expected - 16 < len(reply) <= expected
        assert DNS(reply).tc == 1
        assert DNS(reply).arcount == bool(size)
    whole = ask(zones, "all", limit=TCP_SIZE)
    assert whole is not None
    assert (whole.tc, whole.ancount) == (0, 100)


def test_a_name_is_gone_with_its_endpoint_and_stays_while_another_has_it(zones: Zones) -> None:
    zones.put(NameRecord(id="5", network="f", container="c5", names=("www",), addresses=("10.1.0.9",)))
    assert said(ask(zones, "www")) == ["10.1.0.5", "10.1.0.9"]
    zones.drop("1")
    assert said(ask(zones, "www")) == ["10.1.0.9"]
    assert said(ask(zones, "web")) == NXDOMAIN
    zones.drop("5")
    assert said(ask(zones, "www")) == NXDOMAIN


def test_a_network_that_is_gone_is_not_listened_for(zones: Zones) -> None:
    zones.set_networks((BACK,))
    assert zones.addresses == {"10.2.0.1", "fd00:2::1"}
    assert zones.view(*IN_FRONT) is None


def test_a_link_is_known_to_its_own_container_alone_also_where_nothing_has_a_name(zones: Zones) -> None:
    zones.put(NameRecord(id="5", network="f", container="c5", title="hidden", names=(), addresses=("10.1.0.9",)))
    zones.put(
        NameRecord(
            id="6",
            network="f",
            container="c6",
            title="linked",
            names=("linked",),
            addresses=("10.1.0.10",),
            links=(("Store", "hidden"), ("gone", "absent")),
        )
    )
    assert said(ask(zones, "store", client=("10.1.0.1", "10.1.0.10"))) == ["10.1.0.9"]
    assert said(ask(zones, "gone", client=("10.1.0.1", "10.1.0.10"))) == NXDOMAIN
    assert said(ask(zones, "store")) == NXDOMAIN
    assert said(ask(zones, "hidden")) == NXDOMAIN
    zones.drop("5")
    assert said(ask(zones, "store", client=("10.1.0.1", "10.1.0.10"))) == NXDOMAIN


def test_a_container_may_have_nameservers_of_its_own(zones: Zones) -> None:
    record = NameRecord(
        id="7", network="f", container="c7", names=("picky",), addresses=("10.1.0.11",), servers=("192.0.2.53",)
    )
    zones.put(record)
    assert view(zones, ("10.1.0.1", "10.1.0.11")).servers == ("192.0.2.53",)
    assert view(zones).servers == ()


def test_from_an_internal_network_only_its_own_nameservers_are_asked(zones: Zones) -> None:
    for identity, last, servers in (("8", 11, ("192.0.2.53", "10.2.0.5")), ("9", 12, ("192.0.2.53",))):
        addresses = (f"10.2.0.{last}",)
        zones.put(
            NameRecord(id=identity, network="b", container=identity, names=(), addresses=addresses, servers=servers)
        )
    inner, outer = (view(zones, ("10.2.0.1", f"10.2.0.{last}")) for last in (11, 12))
    assert (inner.servers, inner.forwards) == (("10.2.0.5",), True)
    assert (outer.servers, outer.forwards) == ((), False)
