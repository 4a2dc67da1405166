"""Who is in a lab and under which names and addresses. Pure: the same for everybody who knows four numbers."""

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from netagent.errors import InvalidRequest

DEFAULT_LAB = "default"
UNDERLAY_V4 = IPv4Network("198.18.0.0/24")
"""Benchmark addresses (RFC 2544): on no real network, and outside all pools netagent hands out itself."""
UNDERLAY_V6 = IPv6Network("fd00:198:18::/64")
MOST_HOSTS = 200
FIRST_ETCD_NUMBER = 201
MTU_RANGE = range(1280, 65536)
"""From what IPv6 needs (RFC 8200, section 5) to the most a veth takes."""
UNDERLAYS = ("both", "ipv6", "ovs")
"""IPv4 and IPv6 addresses between the hosts, IPv6 alone, or both on a bridge of Open vSwitch."""
CLIENT_PORT = 2379
PEER_PORT = 2380


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The place of one machine on the lab's underlay: a host's (h1, h2, ...) or an etcd member's (e1, ...)."""

    name: str
    netns: str
    ipv4: IPv4Address
    ipv6: IPv6Address

    @property
    def mac(self) -> str:
        """The Ethernet address of the machine's underlay interface; as on real ones it survives a power cut."""
        return ":".join(f"{byte:02x}" for byte in b"\x02\x00" + self.ipv4.packed)


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The size of a lab, and all that follows from it. ``underlay`` is one of ``UNDERLAYS``."""

    name: str
    hosts: int
    etcd: int
    mtu: int
    underlay: str = "both"

    def address(self, seat: Seat) -> IPv4Address | IPv6Address:
        """Return the address by which the others know the machine in that seat."""
        return seat.ipv6 if self.underlay == "ipv6" else seat.ipv4

    def url(self, seat: Seat, port: int) -> str:
        """Return the web address of that port of the machine in that seat."""
        return f"http://{self._endpoint(seat, port)}"

    def _endpoint(self, seat: Seat, port: int) -> str:
        return f"[{seat.ipv6}]:{port}" if self.underlay == "ipv6" else f"{seat.ipv4}:{port}"

    @property
    def switch(self) -> str:
        """The network namespace of the underlay's switch."""
        return self._netns("sw")

    @property
    def host_seats(self) -> tuple[Seat, ...]:
        """The hosts, h1 first."""
        return tuple(self._seat(f"h{number}", number) for number in range(1, self.hosts + 1))

    @property
    def etcd_seats(self) -> tuple[Seat, ...]:
        """The members of etcd, e1 first."""
        return tuple(self._seat(f"e{number + 1}", FIRST_ETCD_NUMBER + number) for number in range(self.etcd))

    @property
    def seats(self) -> tuple[Seat, ...]:
        """All machines, in the order in which they start."""
        return self.etcd_seats + self.host_seats

    @property
    def namespaces(self) -> tuple[str, ...]:
        """Every network namespace of the lab."""
        return (self.switch, *(seat.netns for seat in self.seats))

    @property
    def store_url(self) -> str:
        """What an agent of this lab gets as ``--store``."""
        return "etcd://" + ",".join(self._endpoint(seat, CLIENT_PORT) for seat in self.etcd_seats)

    def _netns(self, member: str) -> str:
        return f"nalab-{member}" if self.name == DEFAULT_LAB else f"nalab-{self.name}-{member}"

    def _seat(self, name: str, number: int) -> Seat:
        return Seat(name=name, netns=self._netns(name), ipv4=UNDERLAY_V4[number], ipv6=UNDERLAY_V6[number])


def parse_layout(name: str, *, hosts: int, etcd: int, mtu: int, underlay: str = "both") -> Layout:
    """Check what was asked for; InvalidRequest names the value that cannot be."""
    parse_name(name)
    if not 1 <= hosts <= MOST_HOSTS:
        raise InvalidRequest(f"a lab of {hosts} hosts", hint=f"a lab has 1 to {MOST_HOSTS} hosts")
    if etcd not in (1, 3):
        raise InvalidRequest(f"a lab with {etcd} etcd members", hint="1, or 3 to survive the loss of one")
    if mtu not in MTU_RANGE:
        raise InvalidRequest(f"underlay MTU {mtu}", hint=f"{MTU_RANGE.start} to {MTU_RANGE.stop - 1} bytes")
    if underlay not in UNDERLAYS:
        raise InvalidRequest(f"underlay {underlay!r}", hint=f"one of {', '.join(UNDERLAYS)}")
    return Layout(name=name, hosts=hosts, etcd=etcd, mtu=mtu, underlay=underlay)


def parse_name(name: str) -> str:
    """Return ``name`` if it can name a lab; it becomes part of namespaces and of a directory."""
    if not re.fullmatch(r"[a-z0-9]{1,12}", name):
        raise InvalidRequest(f"lab name {name!r}", hint="1 to 12 lower-case letters and digits")
    return name
