"""Link-local addresses that a container has beside its others (``--link-local-ip``): valid on one bridge alone."""

from collections.abc import Iterable

from netagent.errors import InvalidRequest
from netagent.model.address import Address, parse_address

LENGTHS = {4: 16, 6: 64}
"""Prefix lengths of 169.254.0.0/16 (RFC 3927) and fe80::/64 (RFC 4291, 2.5.6)."""

ADDRESSES_LIMIT = 16
"""Link-local addresses of one endpoint."""


def parse_link_locals(texts: Iterable[str]) -> tuple[Address, ...]:
    """Return the addresses that ``texts`` spell; InvalidRequest, in Docker's words, for any that is not link-local."""
    found = tuple(dict.fromkeys(_parse(text) for text in texts))
    if len(found) > ADDRESSES_LIMIT:
        raise InvalidRequest(f"{len(found)} link-local addresses", hint=f"give at most {ADDRESSES_LIMIT}")
    return found


def _parse(text: str) -> Address:
    address = parse_address(text, what="link-local IP address")
    if not address.is_link_local or not _is_usable(address):
        raise InvalidRequest(
            f"invalid link-local IP address: {text}", hint="give one of 169.254.1.0 to 169.254.254.255, or of fe80::/64"
        )
    return address


def _is_usable(address: Address) -> bool:
    """Tell whether an interface may have the address: RFC 3927, 2.1 reserves the first and the last 256 of IPv4."""
    if address.version == 4:
        return 1 <= int(address) >> 8 & 0xFF <= 254
    return int(address) >> 64 == 0xFE80 << 48 and int(address) & (2**64 - 1) != 0
