"""What packets look like that leave a network: which keep their source, and which address the others take."""

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network, collapse_addresses

from netagent.errors import InvalidRequest
from netagent.model.address import Address, Prefix, parse_address, parse_prefix


def parse_exemptions(text: str) -> tuple[Prefix, ...]:
    """Return the destinations ``CIDR,CIDR,…`` to which sources are kept, joined where they overlap."""
    prefixes = [parse_prefix(part.strip()) for part in text.split(",") if part.strip()]
    for prefix in prefixes:
        if prefix.prefixlen == 0:
            raise InvalidRequest(
                f"invalid value for option masquerade_except: {prefix} is everything", hint="use masquerade=false"
            )
    four = collapse_addresses(p for p in prefixes if isinstance(p, IPv4Network))
    six = collapse_addresses(p for p in prefixes if isinstance(p, IPv6Network))
    return (*four, *six)


def parse_outbound(texts: Iterable[str]) -> tuple[Address, ...]:
    """Return the host's addresses that packets take on their way out, at most one of each family."""
    addresses = tuple(parse_address(text) for text in texts)
    for address in addresses:
        if address.is_unspecified or address.is_loopback or address.is_multicast or address.is_link_local:
            raise InvalidRequest(
                f"invalid value for option outbound_address: {address}",
                hint="give an address by which others reach this host",
            )
    if len({address.version for address in addresses}) < len(addresses):
        raise InvalidRequest(
            "option outbound_address names more than one address of a family", hint="give one of each at most"
        )
    return addresses
