"""What published ports receive and send: counted by the container's address and port, the same for all host ports.

The kernel makes an element for a port when its first packet passes, so publishing costs nothing. Packets are counted
where they are forwarded, or are the host's own: there a request is translated already and a reply is not yet, and no
other packet has to be looked at. Whose address it is says ``hairpin``, which has those of endpoints with ports.
"""

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address

from netagent.firewall import publish
from netagent.model.address import Address
from netagent.model.counters import Counters
from netagent.plan.desired import Chain, ElementSet

ServedPort = tuple[Address, str, int]
"""A container's address, protocol and port."""

RECEIVED = ("received4", "received6")
SENT = ("sent4", "sent6")

_KEYS = {"4": "ipv4_addr . inet_proto . inet_service", "6": "ipv6_addr . inet_proto . inet_service"}
_FAMILIES = {"4": "ip", "6": "ip6"}
_PUBLISHING = frozenset(declared.name for declared in publish.SETS if declared.data is not None)
_WITH_PORTS = "meta l4proto { tcp, udp, sctp }"

SETS = tuple(ElementSet(name=name, key=_KEYS[name[-1]], flags=("dynamic",)) for name in RECEIVED + SENT)


def _rules(direction: str, sets: Iterable[str], end: str, port: str) -> Iterator[str]:
    for name in sets:
        address = f"{_FAMILIES[name[-1]]} {end}"
        yield (
            f"ct direction {direction} {_WITH_PORTS} {address} . {address} @hairpin{name[-1]} "
            f"add @{name} {{ {address} . meta l4proto . th {port} counter }}"
        )


COUNT = "ct status dnat jump count"
"""The rule for the hooks where packets are counted."""

CHAINS = (
    Chain(
        name="count", rules=(*_rules("original", RECEIVED, "daddr", "dport"), *_rules("reply", SENT, "saddr", "sport"))
    ),
)


def counters_of_ports(
    received: Mapping[ServedPort, tuple[int, int]], sent: Mapping[ServedPort, tuple[int, int]]
) -> dict[ServedPort, Counters]:
    """Return counters by port out of bytes and packets each way."""
    nothing = (0, 0)
    return {
        port: Counters(
            rx_bytes=received.get(port, nothing)[0],
            rx_packets=received.get(port, nothing)[1],
            tx_bytes=sent.get(port, nothing)[0],
            tx_packets=sent.get(port, nothing)[1],
        )
        for port in received.keys() | sent.keys()
    }


def ports_in(set_name: str, elements: Iterable[str]) -> Iterator[ServedPort]:
    """Yield the containers' ports that elements of a publishing map lead to; of other sets, and of bare keys, none."""
    if set_name not in _PUBLISHING:
        return
    for element in elements:
        key, _, data = element.partition(" : ")
        if not data:
            continue
        address, _, port = data.partition(" . ")
        *_, protocol, service = key.split(" . ")
        first, _, last = (port or service).partition("-")
        for number in range(int(first), int(last or first) + 1):
            yield ip_address(address), protocol, number
